package main

import (
	"context"
	"fmt"
	"log"

	"switchyard.example/clients/following"
	hubv1 "switchyard.example/clients/gen/switchyard/v1" // made by examples/generate.sh
)

// follower prints the events of live subscriptions, or only counts them. The credit is automatic: the hub sends as fast
// as this program reads.
type follower struct {
	client        *following.Client
	subscriptions []*subscription
	digest        bool
	opened        int
}

func (f *follower) handle(_ context.Context, response *hubv1.SessionResponse) error {
	switch frame := response.Frame.(type) {
	case *hubv1.SessionResponse_Subscribed:
		if f.opened++; f.opened == len(f.subscriptions) {
			log.Print("ready")
		} else if f.opened > len(f.subscriptions) {
			log.Print("subscribed again: what was published meanwhile is missing")
		}
	case *hubv1.SessionResponse_Events:
		id := frame.Events.SubscriptionId
		for _, received := range frame.Events.Events {
			line := f.subscriptions[id-1].take(received.Event)
			if !f.digest {
				fmt.Print(line)
			}
		}
		f.count(id, int64(len(frame.Events.Events)))
	case *hubv1.SessionResponse_Gap:
		return fmt.Errorf("%s: lost %d events", f.subscriptions[frame.Gap.SubscriptionId-1].filter, frame.Gap.Count)
	}
	return nil
}

// count leaves the rest of a limit, should the subscription be opened again.
func (f *follower) count(id, events int64) {
	if spec := f.client.Table[id]; spec.MaxEvents > 0 {
		if spec.MaxEvents -= events; spec.MaxEvents == 0 {
			delete(f.client.Table, id)
		}
	}
}
