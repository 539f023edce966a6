// Worker works on the events of a stream as a member of a group, and acknowledges each one once it is done.
package main

import (
	"flag"
	"log"

	"switchyard.example/clients/following"
	hubv1 "switchyard.example/clients/gen/switchyard/v1" // made by examples/generate.sh
)

const (
	credit   = 8    // events in hand, of which more would only wait
	mostDone = 1000 // events in worker.held
)

func main() {
	log.SetFlags(0)
	server := flag.String("server", "127.0.0.1:50051", "`HOST:PORT` of the hub")
	flag.Parse()
	if flag.NArg() != 2 {
		log.Fatal("usage: worker [--server HOST:PORT] STREAM GROUP")
	}
	earliest := &hubv1.StartPosition_Preset{Preset: hubv1.StartPreset_START_PRESET_EARLIEST}
	member := &hubv1.SubscriptionSpec{
		Stream:   flag.Arg(0),
		Group:    flag.Arg(1),
		Start:    &hubv1.StartPosition{Position: earliest},
		AckMode:  hubv1.AckMode_ACK_MODE_EXPLICIT,
		Credit:   &hubv1.Credit{Events: credit},
		Reattach: &hubv1.Reattach{},
	}
	table := map[int64]*hubv1.SubscriptionSpec{1: member}
	w := worker{client: &following.Client{Server: *server, Name: "example-worker", Table: table}, held: member.Reattach}
	w.client.Handle = w.handle
	w.client.Follow()
}
