"""Works on the events of a stream as a member of a group, and acknowledges each one once it is done."""

import argparse
import asyncio
import sys

from following import Following
from refusal import describe

CREDIT, MOST_DONE = 8, 1000  # events in hand, of which more would only wait; and events in `Worker.done`


def work(received) -> None:
    """Prints a text. If it raises, the event comes again. An event may be done twice: see `received.redelivered`."""
    if received.event.HasField("data"):
        raise ValueError("the payload is no text")
    print(received.sequence, received.event.topic, received.event.text, flush=True)


class Worker(Following):
    def __init__(self, stream: str, group: str):
        self.done = set()  # and not confirmed by the hub: what comes again is only acknowledged again
        spec = {"stream": stream, "group": group, "start": {"preset": "START_PRESET_EARLIEST"}}
        spec |= {"ack_mode": "ACK_MODE_EXPLICIT", "credit": {"events": CREDIT}}
        super().__init__("example-worker", {1: {**spec, "reattach": {"held_sequences": self.done}}})

    async def on_subscribed(self, subscribed) -> None:
        if leased := self.done.difference(subscribed.lost_sequences):
            self.send(acknowledge={"subscription_id": 1, "sequences": leased})

    async def on_events(self, events) -> None:
        for received in events.events:
            if self.stopping.is_set():
                return  # the others go to another member as soon as this one has left
            word = {"subscription_id": 1, "sequences": [received.sequence]}
            try:
                if received.sequence not in self.done:
                    await asyncio.to_thread(work, received)
                self.done.add(received.sequence)
                self.done.difference_update(sorted(self.done)[:-MOST_DONE])
            except Exception as error:
                delay = {"seconds": received.attempt}  # a little longer each time
                word |= {"outcome": "ACK_OUTCOME_NACK", "delay": delay, "reason": str(error)[:256]}
            self.send(acknowledge=word)
            self.send(credit={"subscription_id": 1, "credit": {"events": 1}})

    async def on_acknowledged(self, acknowledged) -> None:
        for late in (result for result in acknowledged.results if result.HasField("status")):
            print(f"{late.sequence}: {describe(late.status)}", file=sys.stderr)
        self.done -= {result.sequence for result in acknowledged.results if not result.HasField("status")}


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--server", default="127.0.0.1:50051", metavar="HOST:PORT")
parser.add_argument("names", nargs=2, metavar=("STREAM", "GROUP"))
args = parser.parse_args()
asyncio.run(Worker(*args.names).follow(args.server))
