package main

import (
	"context"
	"fmt"
	"log"

	"google.golang.org/grpc/status"

	hubv1 "switchyard.example/clients/gen/switchyard/v1" // made by examples/generate.sh
)

// follow opens the subscriptions and returns when the last one has ended.
func follow(ctx context.Context, hub hubv1.HubServiceClient, subscriptions []*subscription, digest bool) error {
	session, err := hub.Session(ctx)
	if err != nil {
		return fmt.Errorf("no session with the hub: %w", err)
	}
	for i, s := range subscriptions {
		session.Send(s.command(int64(i + 1))) // when it fails, Recv tells why
	}
	session.CloseSend() // no more commands: the hub goes on delivering
	for opening, running := len(subscriptions), len(subscriptions); running > 0; {
		response, err := session.Recv()
		if err != nil {
			return fmt.Errorf("no session with the hub: %w", err)
		}
		switch frame := response.Frame.(type) {
		case *hubv1.SessionResponse_Subscribed:
			if opening--; opening == 0 {
				log.Print("ready")
			}
		case *hubv1.SessionResponse_Events:
			for _, received := range frame.Events.Events {
				line := subscriptions[frame.Events.SubscriptionId-1].take(received.Event)
				if !digest {
					fmt.Print(line)
				}
			}
		case *hubv1.SessionResponse_Gap:
			return fmt.Errorf("%s: lost %d events", subscriptions[frame.Gap.SubscriptionId-1].filter, frame.Gap.Count)
		case *hubv1.SessionResponse_Draining:
			log.Print("draining")
		case *hubv1.SessionResponse_Ended:
			if err := status.ErrorProto(frame.Ended.Status); err != nil {
				return fmt.Errorf("ended: %w", err)
			}
			running--
		case *hubv1.SessionResponse_Error:
			return fmt.Errorf("error: %w", status.ErrorProto(frame.Error))
		}
	}
	return nil
}
