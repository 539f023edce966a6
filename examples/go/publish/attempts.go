package main

import (
	"context"
	"log"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	hubv1 "switchyard.example/clients/gen/switchyard/v1"
	"switchyard.example/clients/refusal"
	"switchyard.example/clients/waiting"
)

// patience is how long one attempt may take.
const patience = 5 * time.Second

// reconnects has the connection find a hub that is back as soon as the calls try again.
var reconnects = grpc.WithConnectParams(grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: patience},
	MinConnectTimeout: patience,
})

// answered sends a batch until it is answered. Its events have ids, so a stream stores them only once. Without a stream
// they may be delivered twice: a full client asks the hub first (clients/SPEC.md, rule 10.6).
func (p *publisher) answered(request *hubv1.PublishRequest) *hubv1.PublishResponse {
	var backoff waiting.Backoff
	for deadline := time.Now().Add(p.timeout); ; {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		response, err := p.hub.Publish(ctx, request)
		cancel()
		if err == nil {
			return response
		}
		why := status.Convert(err)
		wait := backoff.Next(refusal.Delay(why))
		switch why.Code() {
		case codes.Unavailable, codes.DeadlineExceeded, codes.Internal, codes.Canceled: // perhaps published, perhaps not
			if time.Now().Add(wait).Before(deadline) {
				time.Sleep(wait)
				continue
			}
		}
		log.Fatal("publish failed: ", refusal.Describe(why))
	}
}
