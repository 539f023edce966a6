package main

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"switchyard.example/clients/following"
	hubv1 "switchyard.example/clients/gen/switchyard/v1" // made by examples/generate.sh
)

// maxBatch is how many events are seen twice at most: those of the frame it was killed in.
const maxBatch = 100

// reader begins at the earliest event there is, unless its place is known.
type reader struct {
	stream  string
	filters []string
	place   *place
}

func (r *reader) Spec() *hubv1.SubscriptionSpec {
	earliest := &hubv1.StartPosition_Preset{Preset: hubv1.StartPreset_START_PRESET_EARLIEST}
	start := &hubv1.StartPosition{Position: earliest}
	if r.place.token != "" {
		start.Position = &hubv1.StartPosition_ResumeToken{ResumeToken: r.place.token}
	}
	return &hubv1.SubscriptionSpec{Stream: r.stream, Filters: r.filters, Start: start, MaxBatch: maxBatch}
}

// Take prints a frame, and then keeps its token: one that is kept too early skips events after a crash, one that is kept
// too late only repeats some.
func (r *reader) Take(_ context.Context, _ *following.Session, events *hubv1.Events) error {
	var lines bytes.Buffer
	for _, received := range events.Events {
		text := received.Event.GetText()
		if data, ok := received.Event.Payload.(*hubv1.Event_Data); ok {
			text = fmt.Sprintf("<%d bytes>", len(data.Data))
		}
		fmt.Fprintln(&lines, received.Sequence, received.Event.Topic, text)
	}
	if _, err := os.Stdout.Write(lines.Bytes()); err != nil {
		return err
	}
	return r.place.keep(events.ResumeToken)
}

func (r *reader) Passed(resumeToken string) error { return r.place.keep(resumeToken) }
