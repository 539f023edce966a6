package main

import (
	"crypto/rand"
	"log"
	"time"

	"google.golang.org/grpc/status"

	hubv1 "switchyard.example/clients/gen/switchyard/v1"
	"switchyard.example/clients/refusal"
)

// publisher sends events to one topic and counts what became of them.
type publisher struct {
	hub                         hubv1.HubServiceClient
	topic                       string
	timeout                     time.Duration
	published, matched, refused int64
}

// publish sends one batch. It ends the program when the hub takes none of it.
func (p *publisher) publish(texts []string) {
	events := make([]*hubv1.Event, len(texts))
	for i, text := range texts {
		payload := &hubv1.Event_Text{Text: text}
		events[i] = &hubv1.Event{Id: rand.Text(), Source: "example-publish", Topic: p.topic, Payload: payload}
	}
	for _, result := range p.answered(&hubv1.PublishRequest{Events: events}).Results {
		if result.Status != nil {
			p.refused++
			log.Print("refused: ", refusal.Describe(status.FromProto(result.Status)))
		} else {
			p.published++
			p.matched += result.Matched
		}
	}
}
