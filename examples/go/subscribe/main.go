// Subscribe prints the events of subscriptions in one session, or with --digest a digest of them at the end.
package main

import (
	"flag"
	"fmt"
	"log"

	"switchyard.example/clients/following"
	hubv1 "switchyard.example/clients/gen/switchyard/v1" // made by examples/generate.sh
)

func main() {
	log.SetFlags(0)
	server := flag.String("server", "127.0.0.1:50051", "`HOST:PORT` of the hub")
	count := flag.Int64("count", 0, "end after `N` events of every filter")
	digest := flag.Bool("digest", false, "print only a digest per filter, at the end")
	flag.Parse()
	if flag.NArg() == 0 {
		log.Fatal("usage: subscribe [--server HOST:PORT] [--count N] [--digest] FILTER...")
	}
	client := &following.Client{Server: *server, Name: "example-subscribe", Table: map[int64]*hubv1.SubscriptionSpec{}}
	f := follower{client: client, digest: *digest}
	client.Handle = f.handle
	for i, argument := range flag.Args() {
		s, err := parse(argument, *count)
		if err != nil {
			log.Fatal(err)
		}
		f.subscriptions = append(f.subscriptions, s)
		client.Table[int64(i+1)] = &hubv1.SubscriptionSpec{Filters: []string{s.filter}, MaxEvents: s.maxEvents}
	}
	client.Follow()
	for _, s := range f.subscriptions {
		if *digest {
			fmt.Println(s.summary())
		}
	}
}
