// Publish sends events to one topic: each TEXT is one event; without TEXT, each line of standard input is one.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"log"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	hubv1 "switchyard.example/clients/gen/switchyard/v1" // made by examples/generate.sh
)

const (
	batchSize    = 100
	maxLineBytes = 4 << 20 // the hub takes no larger frame
)

func main() {
	log.SetFlags(0)
	server := flag.String("server", "127.0.0.1:50051", "`HOST:PORT` of the hub")
	seconds := flag.Int("timeout", 30, "`SECONDS` for all attempts of a batch")
	flag.Parse()
	if flag.NArg() == 0 {
		log.Fatal("usage: publish [--server HOST:PORT] [--timeout SECONDS] TOPIC [TEXT...]")
	}
	conn, err := grpc.NewClient(*server, grpc.WithTransportCredentials(insecure.NewCredentials()), reconnects)
	if err != nil {
		log.Fatal(err)
	}
	timeout := time.Duration(*seconds) * time.Second
	p := publisher{hub: hubv1.NewHubServiceClient(conn), topic: flag.Arg(0), timeout: timeout}
	texts := flag.Args()[1:]
	if len(texts) == 0 {
		lines := bufio.NewScanner(os.Stdin)
		lines.Buffer(nil, maxLineBytes)
		for lines.Scan() {
			if texts = append(texts, lines.Text()); len(texts) == batchSize {
				p.publish(texts)
				texts = texts[:0]
			}
		}
		if err := lines.Err(); err != nil {
			log.Fatal(err)
		}
	}
	for batch := range slices.Chunk(texts, batchSize) {
		p.publish(batch)
	}
	fmt.Printf("published %d, matched %d\n", p.published, p.matched)
	if p.refused > 0 {
		os.Exit(1)
	}
}
