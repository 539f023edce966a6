"""Works on the events of a stream as a member of a group, and acknowledges each one once it is done.

    python examples/python/worker.py orders billing
"""

import argparse
import sys

from following import ID, Following

CREDIT = 8  # so many events wait here at most: what waits long at one member is done sooner by another
MAX_REASON = 256  # characters: at most 1024 bytes


def handle(received) -> None:
    """The work; here: to print a text. Whatever it raises has the event delivered again later, to any member.

    It sees an event again that it was done with, when it is killed before the hub has heard of that. So its work has to
    come to the same if it is done twice: stream and sequence name an event for as long as the stream exists.
    """
    if received.event.HasField("data"):
        raise ValueError("the payload is no text")
    print(received.sequence, received.event.topic, received.event.text, flush=True)


class Worker(Following):
    """A member of a group that is made if it does not exist, to work on everything the stream has."""

    def __init__(self, stream: str, group: str):
        super().__init__()
        self.member = {"stream": stream, "group": group, "start": {"preset": "START_PRESET_EARLIEST"}}

    def spec(self) -> dict:
        return {**self.member, "ack_mode": "ACK_MODE_EXPLICIT", "credit": {"events": CREDIT}}

    def take(self, events) -> None:
        for received in events.events:
            if self.stopping:
                return  # the hub gives the others to another member as soon as this one has left
            outcome = {"outcome": "ACK_OUTCOME_ACK"}
            try:
                handle(received)
            except Exception as error:
                print(f"{received.sequence}: attempt {received.attempt} failed: {error}", file=sys.stderr)
                delay = {"seconds": received.attempt}  # a little longer after each attempt
                outcome = {"outcome": "ACK_OUTCOME_NACK", "delay": delay, "reason": str(error)[:MAX_REASON]}
            self.send(acknowledge={"subscription_id": ID, "sequences": [received.sequence], **outcome})
            self.send(credit={"subscription_id": ID, "credit": {"events": 1}})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="127.0.0.1:50051", metavar="HOST:PORT")
    parser.add_argument("stream", metavar="STREAM")
    parser.add_argument("group", metavar="GROUP")
    args = parser.parse_args()
    Worker(args.stream, args.group).follow(args.server)
