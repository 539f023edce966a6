// Worker works on the events of a stream as a member of a group, and acknowledges each one once it is done.
//
//	cd examples/go && go run ./worker orders billing
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
	if flag.NArg() != 2 {
		log.Fatal("usage: worker [--server HOST:PORT] STREAM GROUP")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // asked twice, it ends at once
	if err := following.Follow(ctx, *server, &worker{stream: flag.Arg(0), group: flag.Arg(1)}); err != nil {
		log.Fatal(err)
	}
}
