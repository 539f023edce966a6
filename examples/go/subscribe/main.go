// Subscribe prints the events of subscriptions in one Session, or with --digest a digest of them at the end.
//
//	cd examples/go && go run ./subscribe 'greetings.*' 'stocks.>#10'
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

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
	var subscriptions []*subscription
	for _, argument := range flag.Args() {
		s, err := parse(argument, *count)
		if err != nil {
			log.Fatal(err)
		}
		subscriptions = append(subscriptions, s)
	}
	conn, err := grpc.NewClient(*server, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err = follow(ctx, hubv1.NewHubServiceClient(conn), subscriptions, *digest)
	if err != nil && ctx.Err() == nil { // else it was Ctrl-C
		log.Fatal(err)
	}
	for _, s := range subscriptions {
		if *digest {
			fmt.Println(s.summary())
		}
	}
}
