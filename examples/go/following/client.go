// Package following keeps subscriptions open over many sessions: rules 5 and 13 of clients/SPEC.md, in small. Left to a
// full client: several addresses (3), windows in bytes (6), gaps of all kinds (8), extending leases (9), tokens that
// expire (12).
package following

import (
	"context"
	"log"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"

	hubv1 "switchyard.example/clients/gen/switchyard/v1" // made by examples/generate.sh
	"switchyard.example/clients/waiting"
)

// Client has one session with the hub at a time.
type Client struct {
	Server, Name string
	// Table has the spec of each subscription, by its id.
	Table map[int64]*hubv1.SubscriptionSpec
	// Handle gets the frames of subscriptions. Once stop is done it begins nothing more.
	Handle func(stop context.Context, response *hubv1.SessionResponse) error

	busy      sync.Mutex // while a frame is handled
	call      grpc.BidiStreamingClient[hubv1.SessionRequest, hubv1.SessionResponse]
	sessionID string
	delay     time.Duration // before the next session, as the hub asks
	backoff   waiting.Backoff
}

// Follow ends the program with an error that trying again cannot mend. It returns when every subscription has ended as
// asked, or after Ctrl-C; the second one does not wait for what is begun.
func (c *Client) Follow() {
	stop, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(stop, cancel)
	for {
		lost, err := c.session(stop)
		if err != nil {
			log.Fatal(err)
		} else if stop.Err() != nil || len(c.Table) == 0 {
			return
		}
		wait := c.backoff.Next(c.delay)
		log.Printf("%v; again in %v", lost, wait.Round(time.Millisecond))
		select {
		case <-stop.Done():
			return
		case <-time.After(wait):
		}
	}
}
