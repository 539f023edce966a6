package main

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"switchyard.example/clients/following"
	hubv1 "switchyard.example/clients/gen/switchyard/v1"
)

// reader prints the events of a stream.
type reader struct {
	client *following.Client
	place  *place
	spec   *hubv1.SubscriptionSpec
}

func (r *reader) handle(_ context.Context, response *hubv1.SessionResponse) error {
	switch frame := response.Frame.(type) {
	case *hubv1.SessionResponse_Events:
		if err := show(frame.Events.Events); err != nil {
			return err
		}
		r.client.Grant(1, len(frame.Events.Events))
		// After the work: a token that is kept too early skips events after a crash, one kept too late repeats some.
		return r.passed(frame.Events.ResumeToken)
	case *hubv1.SessionResponse_Progress:
		return r.passed(frame.Progress.ResumeToken)
	}
	return nil
}

// passed keeps the place, for the next run of the program and for the next session.
func (r *reader) passed(token string) error {
	err := r.place.keep(token)
	r.spec.Start = r.place.start()
	return err
}

func show(events []*hubv1.ReceivedEvent) error {
	var lines bytes.Buffer
	for _, received := range events {
		text := received.Event.GetText()
		if data, ok := received.Event.Payload.(*hubv1.Event_Data); ok {
			text = fmt.Sprintf("<%d bytes>", len(data.Data))
		}
		fmt.Fprintln(&lines, received.Sequence, received.Event.Topic, text)
	}
	_, err := os.Stdout.Write(lines.Bytes())
	return err
}
