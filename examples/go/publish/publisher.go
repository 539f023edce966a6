package main

import (
	"context"
	"log"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	hubv1 "switchyard.example/clients/gen/switchyard/v1" // made by examples/generate.sh
)

// publisher sends events to one topic and counts what became of them.
type publisher struct {
	hub                         hubv1.HubServiceClient
	topic                       string
	published, matched, refused int64
}

// publish sends one batch. It ends the program when the hub takes none of it.
func (p *publisher) publish(texts []string) {
	events := make([]*hubv1.Event, len(texts))
	for i, text := range texts {
		events[i] = &hubv1.Event{Topic: p.topic, Payload: &hubv1.Event_Text{Text: text}}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	response, err := p.hub.Publish(ctx, &hubv1.PublishRequest{Events: events})
	if err != nil {
		log.Fatal("publish failed: ", describe(status.Convert(err)))
	}
	for _, result := range response.Results {
		if result.Status != nil {
			p.refused++
			log.Print("refused: ", describe(status.FromProto(result.Status)))
		} else {
			p.published++
			p.matched += result.Matched
		}
	}
}

// describe gives the code, reason, field and text of a refusal.
func describe(refusal *status.Status) string {
	words := []string{code.Code(refusal.Code()).String()}
	for _, detail := range refusal.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			words = append(words, detail.Reason)
		case *errdetails.BadRequest:
			for _, violation := range detail.FieldViolations {
				words = append(words, violation.Field)
			}
		}
	}
	return strings.Join(words, " ") + ": " + refusal.Message()
}
