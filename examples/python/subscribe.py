"""Subscribes to topics over one Session and prints their events, or with --digest a digest of them at the end.

    python examples/python/subscribe.py 'greetings.*' 'stocks.>#10'
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import grpc
from google.rpc import code_pb2

sys.path.append(str(Path(__file__).resolve().parents[1] / "gen/python"))  # made by examples/generate.sh
from switchyard.v1 import hub_service_pb2, hub_service_pb2_grpc


class Subscription:
    """One subscription: what it asks for, and what it got. FILTER#N ends it after N events."""

    def __init__(self, argument: str):
        self.filter, _, limit = argument.partition("#")
        self.max_events = int(limit or 0)
        self.events, self.sha256 = 0, hashlib.sha256()

    def command(self, number: int, count: int) -> hub_service_pb2.SessionRequest:
        spec = {"filters": [self.filter], "max_events": self.max_events or count}
        return hub_service_pb2.SessionRequest(request_id=number, subscribe={"subscription_id": number, "spec": spec})

    def take(self, event, digest: bool) -> None:
        text = f"<{len(event.data)} bytes>" if event.HasField("data") else event.text
        self.events += 1
        self.sha256.update(f"{event.topic} {text}\n".encode())
        if not digest:
            print(event.topic, text, flush=True)


def follow(hub, subscriptions: list[Subscription], count: int, digest: bool) -> None:
    """Opens the subscriptions; when the last one has ended the hub ends the session."""
    commands = [s.command(i, count) for i, s in enumerate(subscriptions, start=1)]
    opening = running = len(subscriptions)
    for response in hub.Session(iter(commands)):  # no more commands: the hub goes on delivering
        frame = response.WhichOneof("frame")
        if frame == "subscribed":
            opening -= 1
            if not opening:
                print("ready", file=sys.stderr)
        elif frame == "events":
            for received in response.events.events:
                subscriptions[response.events.subscription_id - 1].take(received.event, digest)
        elif frame == "gap":
            sys.exit(f"gap: subscription {response.gap.subscription_id} lost {response.gap.count} events")
        elif frame == "draining":
            print("draining", file=sys.stderr)
        elif frame in ("ended", "error"):
            status = response.ended.status if frame == "ended" else response.error
            if status.code:
                sys.exit(f"{frame}: {code_pb2.Code.Name(status.code)}: {status.message}")
            running -= 1
    if running:
        sys.exit("the hub closed the session")


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--server", default="127.0.0.1:50051", metavar="HOST:PORT")
parser.add_argument("--count", type=int, default=0, metavar="N", help="end after N events of every FILTER")
parser.add_argument("--digest", action="store_true", help="print only a digest per FILTER, at the end")
parser.add_argument("subscriptions", nargs="+", type=Subscription, metavar="FILTER[#N]")
args = parser.parse_args()
try:
    with grpc.insecure_channel(args.server) as channel:
        follow(hub_service_pb2_grpc.HubServiceStub(channel), args.subscriptions, args.count, args.digest)
except KeyboardInterrupt:
    pass
except grpc.RpcError as error:
    sys.exit(f"no session with the hub: {error.code().name}: {error.details()}")
for s in args.subscriptions if args.digest else ():
    print(json.dumps({"filter": s.filter, "events": s.events, "sha256": s.sha256.hexdigest()}))
