package main

import (
	"errors"
	"fmt"
	"log"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	hubv1 "switchyard.example/clients/gen/switchyard/v1"
)

const maxReasonBytes = 1024

// work prints a text. After an error the event comes again. An event may be done twice: see received.Redelivered.
func work(received *hubv1.ReceivedEvent) error {
	if _, ok := received.Event.Payload.(*hubv1.Event_Data); ok {
		return errors.New("the payload is no text")
	}
	_, err := fmt.Println(received.Sequence, received.Event.Topic, received.Event.GetText())
	return err
}

// outcome works on an event, unless it is done, and gives what is to be said of it.
func (w *worker) outcome(received *hubv1.ReceivedEvent) *hubv1.Acknowledge {
	word := &hubv1.Acknowledge{SubscriptionId: 1, Sequences: []int64{received.Sequence}}
	if slices.Contains(w.held.HeldSequences, received.Sequence) {
		return word
	}
	if err := work(received); err != nil {
		log.Printf("%d: attempt %d failed: %v", received.Sequence, received.Attempt, err)
		reason := err.Error()
		word.Outcome = hubv1.AckOutcome_ACK_OUTCOME_NACK
		word.Delay = durationpb.New(time.Duration(received.Attempt) * time.Second) // a little longer each time
		word.Reason = strings.ToValidUTF8(reason[:min(len(reason), maxReasonBytes)], "")
		return word
	}
	done := append(w.held.HeldSequences, received.Sequence)
	w.held.HeldSequences = done[max(0, len(done)-mostDone):]
	return word
}
