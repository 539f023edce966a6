package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"switchyard.example/clients/following"
	hubv1 "switchyard.example/clients/gen/switchyard/v1" // made by examples/generate.sh
)

const (
	credit         = 8 // so many events wait here at most: what waits long at one member is done sooner by another
	maxReasonBytes = 1024
)

// handle is the work; here: to print a text. An error has the event delivered again later, to any member.
//
// It sees an event again that it was done with, when it is killed before the hub has heard of that. So its work has to
// come to the same if it is done twice: stream and sequence name an event for as long as the stream exists.
func handle(received *hubv1.ReceivedEvent) error {
	if _, ok := received.Event.Payload.(*hubv1.Event_Data); ok {
		return errors.New("the payload is no text")
	}
	_, err := fmt.Println(received.Sequence, received.Event.Topic, received.Event.GetText())
	return err
}

// worker is a member of a group that is made if it does not exist, to work on everything the stream has.
type worker struct {
	stream, group string
}

func (w *worker) Spec() *hubv1.SubscriptionSpec {
	earliest := &hubv1.StartPosition_Preset{Preset: hubv1.StartPreset_START_PRESET_EARLIEST}
	return &hubv1.SubscriptionSpec{
		Stream:  w.stream,
		Group:   w.group,
		Start:   &hubv1.StartPosition{Position: earliest},
		AckMode: hubv1.AckMode_ACK_MODE_EXPLICIT,
		Credit:  &hubv1.Credit{Events: credit},
	}
}

func (w *worker) Take(ctx context.Context, session *following.Session, events *hubv1.Events) error {
	for _, received := range events.Events {
		if ctx.Err() != nil {
			return nil // the hub gives the others to another member as soon as this one has left
		}
		done := &hubv1.Acknowledge{Sequences: []int64{received.Sequence}, Outcome: hubv1.AckOutcome_ACK_OUTCOME_ACK}
		if err := handle(received); err != nil {
			log.Printf("%d: attempt %d failed: %v", received.Sequence, received.Attempt, err)
			reason := err.Error()
			done.Reason = strings.ToValidUTF8(reason[:min(len(reason), maxReasonBytes)], "")
			done.Outcome = hubv1.AckOutcome_ACK_OUTCOME_NACK
			done.Delay = durationpb.New(time.Duration(received.Attempt) * time.Second) // a little longer each time
		}
		session.Acknowledge(done)
	}
	return nil
}

// Passed has nothing to do: the hub keeps the place of a group.
func (w *worker) Passed(string) error { return nil }
