"""Subscribes to topics over one session and prints their events, or with --digest a digest of them at the end."""

import argparse
import asyncio
import hashlib
import json
import sys

from following import Following


class Subscribing(Following):
    """A live subscription for each filter. The credit is automatic: the hub sends as fast as this program reads."""

    def __init__(self, filters: list[tuple[str, int]]):
        table = {id: {"filters": [name], "max_events": limit} for id, (name, limit) in enumerate(filters, start=1)}
        super().__init__("example-subscribe", table)
        self.got = [{"filter": name, "events": 0, "sha256": hashlib.sha256()} for name, _ in filters]
        self.opening = len(filters)

    async def on_subscribed(self, _) -> None:
        self.opening -= 1
        if self.opening == 0:
            print("ready", file=sys.stderr)
        elif self.opening < 0:
            print("subscribed again: what was published meanwhile is missing", file=sys.stderr)

    async def on_gap(self, gap) -> None:
        sys.exit(f"gap: subscription {gap.subscription_id} lost {gap.count} events")

    async def on_events(self, events) -> None:
        spec, got = self.table[events.subscription_id], self.got[events.subscription_id - 1]
        for event in (received.event for received in events.events):
            text = f"<{len(event.data)} bytes>" if event.HasField("data") else event.text
            got["events"] += 1
            got["sha256"].update(f"{event.topic} {text}\n".encode())
            if not args.digest:
                print(event.topic, text, flush=True)
        if spec["max_events"]:  # the rest, should it be opened again
            spec["max_events"] -= len(events.events)
            if not spec["max_events"]:
                del self.table[events.subscription_id]


def limited(argument: str) -> tuple[str, int]:
    name, _, limit = argument.partition("#")
    return name, int(limit or 0)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--server", default="127.0.0.1:50051", metavar="HOST:PORT")
parser.add_argument("--count", type=int, default=0, metavar="N", help="end after N events of every filter")
parser.add_argument("--digest", action="store_true", help="print only a digest per filter, at the end")
parser.add_argument("filters", nargs="+", type=limited, metavar="FILTER[#N]")
args = parser.parse_args()
subscribing = Subscribing([(name, limit or args.count) for name, limit in args.filters])
asyncio.run(subscribing.follow(args.server))
for got in subscribing.got if args.digest else ():
    print(json.dumps({**got, "sha256": got["sha256"].hexdigest()}))
