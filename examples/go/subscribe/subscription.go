package main

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"strconv"
	"strings"

	hubv1 "switchyard.example/clients/gen/switchyard/v1"
)

// subscription is what one of them asks for, and what it got.
type subscription struct {
	filter    string
	maxEvents int64
	events    int64
	digest    hash.Hash
}

// parse reads FILTER or FILTER#N; the latter ends after N events.
func parse(argument string, count int64) (*subscription, error) {
	s := &subscription{maxEvents: count, digest: sha256.New()}
	filter, limit, limited := strings.Cut(argument, "#")
	s.filter = filter
	if limited {
		var err error
		if s.maxEvents, err = strconv.ParseInt(limit, 10, 64); err != nil {
			return nil, fmt.Errorf("%s: not a number of events: %q", filter, limit)
		}
	}
	return s, nil
}

// take counts an event into the digest and gives the line that tells of it.
func (s *subscription) take(event *hubv1.Event) string {
	text := event.GetText()
	if data, ok := event.Payload.(*hubv1.Event_Data); ok {
		text = fmt.Sprintf("<%d bytes>", len(data.Data))
	}
	line := event.Topic + " " + text + "\n"
	s.events++
	s.digest.Write([]byte(line))
	return line
}

// summary is the line of JSON that --digest prints. A filter the hub accepted needs no escapes.
func (s *subscription) summary() string {
	return fmt.Sprintf(`{"filter": "%s", "events": %d, "sha256": "%x"}`, s.filter, s.events, s.digest.Sum(nil))
}
