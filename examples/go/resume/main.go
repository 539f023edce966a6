// Resume follows a stream and keeps its place in a file, so that it goes on where it was after it has been killed.
//
//	cd examples/go && go run ./resume orders orders.token 'orders.eu.>'
package main

import (
	"context"
	"flag"
	"log"
	"os"
	"os/signal"
	"syscall"

	"switchyard.example/clients/following"
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // asked twice, it ends at once
	reader := &reader{stream: flag.Arg(0), filters: flag.Args()[2:], place: place}
	if err := following.Follow(ctx, *server, reader); err != nil {
		log.Fatal(err)
	}
}
