package main

import (
	"context"
	"log"
	"slices"

	"google.golang.org/grpc/status"

	"switchyard.example/clients/following"
	hubv1 "switchyard.example/clients/gen/switchyard/v1"
	"switchyard.example/clients/refusal"
)

// worker knows which events are done and not confirmed by the hub: those that come again are only acknowledged again.
type worker struct {
	client *following.Client
	held   *hubv1.Reattach
}

func (w *worker) handle(stop context.Context, response *hubv1.SessionResponse) error {
	switch frame := response.Frame.(type) {
	case *hubv1.SessionResponse_Subscribed:
		lost := func(sequence int64) bool { return slices.Contains(frame.Subscribed.LostSequences, sequence) }
		if leased := slices.DeleteFunc(slices.Clone(w.held.HeldSequences), lost); len(leased) > 0 {
			w.client.Acknowledge(&hubv1.Acknowledge{SubscriptionId: 1, Sequences: leased})
		}
	case *hubv1.SessionResponse_Events:
		for _, received := range frame.Events.Events {
			if stop.Err() != nil {
				return nil // the others go to another member as soon as this one has left
			}
			w.client.Acknowledge(w.outcome(received))
			w.client.Grant(1, 1)
		}
	case *hubv1.SessionResponse_Acknowledged:
		for _, result := range frame.Acknowledged.Results {
			if result.Status != nil {
				log.Printf("%d: %s", result.Sequence, refusal.Describe(status.FromProto(result.Status)))
				continue
			}
			confirmed := func(sequence int64) bool { return sequence == result.Sequence }
			w.held.HeldSequences = slices.DeleteFunc(w.held.HeldSequences, confirmed)
		}
	}
	return nil
}
