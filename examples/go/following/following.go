// Package following keeps one subscription open: again when the hub has gone away, until it is asked to leave.
package following

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	hubv1 "switchyard.example/clients/gen/switchyard/v1" // made by examples/generate.sh
)

// ID names the subscription: there is one in the session.
const ID = 1

// longestWait is the most between two attempts that the hub has not asked for.
const longestWait = 5 * time.Second

// Follower says what to subscribe to, and what to do with it.
type Follower interface {
	// Spec is asked for whenever a session begins.
	Spec() *hubv1.SubscriptionSpec
	// Take handles an events frame. It begins nothing more once ctx is done.
	Take(ctx context.Context, session *Session, events *hubv1.Events) error
	// Passed hears that everything up to this token is handled, or was never meant for this subscription.
	Passed(resumeToken string) error
}

// away tells that the hub has gone away, or asks to be called again later: after delay, if it said so.
type away struct {
	reason error
	delay  time.Duration
}

func (a *away) Error() string { return a.reason.Error() }

// Follow returns nil once ctx is done and the hub has been told, or when the hub has ended the subscription as asked.
func Follow(ctx context.Context, server string, follower Follower) error {
	conn, err := grpc.NewClient(server,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// A hub that vanishes without a word is noticed, and one that is back is found soon.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: time.Second,
		}))
	if err != nil {
		return err
	}
	defer conn.Close()
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, longestWait) {
		subscribed, err := attempt(ctx, hubv1.NewHubServiceClient(conn), follower)
		var gone *away
		if !errors.As(err, &gone) {
			return err
		} else if ctx.Err() != nil {
			return nil
		}
		if subscribed {
			wait = 100 * time.Millisecond
		}
		delay := gone.delay
		if delay == 0 {
			delay = wait/2 + rand.N(wait/2)
		}
		log.Printf("%v; again in %v", err, delay.Round(time.Millisecond))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
	}
}

// sorted makes the end of a session one after which to try again, if that helps.
func sorted(err error, delay time.Duration) error {
	switch status.Code(err) {
	case codes.Unavailable, codes.ResourceExhausted, codes.Internal:
		return &away{err, delay}
	default:
		return fmt.Errorf("no session with the hub: %w", err)
	}
}

// ended tells what the end of the subscription means; nil when it is as asked.
func ended(frame *hubv1.Ended) error {
	err := status.ErrorProto(frame.Status)
	if err != nil && frame.Retry.GetRetry() {
		return &away{err, frame.Retry.Delay.AsDuration()}
	}
	return err
}
