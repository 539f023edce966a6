// Resume follows a stream and keeps its place in a file, so that it goes on where it was after it has been killed.
package main

import (
	"flag"
	"log"

	"switchyard.example/clients/following"
	hubv1 "switchyard.example/clients/gen/switchyard/v1" // made by examples/generate.sh
)

const (
	maxBatch = 100          // events in one frame, which is the most that is seen twice after the program was killed
	window   = 2 * maxBatch // events that the hub may send before the first of them are done
)

func main() {
	log.SetFlags(0)
	server := flag.String("server", "127.0.0.1:50051", "`HOST:PORT` of the hub")
	flag.Parse()
	if flag.NArg() < 2 {
		log.Fatal("usage: resume [--server HOST:PORT] STREAM FILE [FILTER...]")
	}
	place, err := open(flag.Arg(1))
	if err != nil {
		log.Fatal(err)
	}
	spec := &hubv1.SubscriptionSpec{
		Stream:   flag.Arg(0),
		Filters:  flag.Args()[2:],
		Start:    place.start(),
		Credit:   &hubv1.Credit{Events: window},
		MaxBatch: maxBatch,
	}
	table := map[int64]*hubv1.SubscriptionSpec{1: spec}
	r := reader{client: &following.Client{Server: *server, Name: "example-resume", Table: table}, place: place, spec: spec}
	r.client.Handle = r.handle
	r.client.Follow()
}
