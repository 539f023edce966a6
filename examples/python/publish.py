"""Publishes events to one topic: each TEXT is one event; without TEXT, each line of standard input is one."""

import argparse
import itertools
import signal
import sys
import time
import uuid

import grpc

from refusal import delay_of, describe, status_of
from switchyard.v1 import event_pb2, hub_service_pb2, hub_service_pb2_grpc
from waiting import Backoff

BATCH, PATIENCE = 100, 5  # events in one call, and seconds that one attempt may take
UNKNOWN = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "CANCELLED")  # perhaps published, perhaps not
OPTIONS = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 5000)]


def publish(hub, events: list[event_pb2.Event]):
    """Publishes a batch, again and again until it is answered. The events have ids, so a stream stores them only once.
    Without a stream they may be delivered twice: a full client asks the hub first (clients/SPEC.md, rule 10.6)."""
    backoff, deadline = Backoff(), time.monotonic() + args.timeout
    while True:
        try:
            return hub.Publish(hub_service_pb2.PublishRequest(events=events), timeout=PATIENCE).results
        except grpc.RpcError as error:
            status = status_of(error)
            wait = backoff.next(delay_of(status))
            if error.code().name not in UNKNOWN or time.monotonic() + wait > deadline:
                sys.exit(f"publish failed: {describe(status)}")
            time.sleep(wait)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--server", default="127.0.0.1:50051", metavar="HOST:PORT")
parser.add_argument("--timeout", type=float, default=30, metavar="SECONDS", help="for all attempts of a batch")
parser.add_argument("topic", metavar="TOPIC")
parser.add_argument("texts", nargs="*", metavar="TEXT", help="default: the lines of standard input")
args = parser.parse_args()
signal.signal(signal.SIGINT, signal.SIG_DFL)
sys.stdin.reconfigure(encoding="utf-8", newline="\n")
texts = iter(args.texts or (line.removesuffix("\n").removesuffix("\r") for line in sys.stdin))
origin = {"topic": args.topic, "source": "example-publish"}
published = matched = refused = 0
with grpc.insecure_channel(args.server, OPTIONS) as channel:
    hub = hub_service_pb2_grpc.HubServiceStub(channel)
    while some := list(itertools.islice(texts, BATCH)):
        batch = [event_pb2.Event(id=str(uuid.uuid4()), text=text, **origin) for text in some]
        results = publish(hub, batch)
        refusals = [result.status for result in results if result.HasField("status")]
        for refusal in refusals:
            print("refused:", describe(refusal), file=sys.stderr)
        refused, published = refused + len(refusals), published + len(results) - len(refusals)
        matched += sum(result.matched for result in results)
print(f"published {published}, matched {matched}")
sys.exit(1 if refused else 0)
