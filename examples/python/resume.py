"""Follows a stream and keeps its place in a file, so that it goes on where it was after it has been killed.

    python examples/python/resume.py orders orders.token 'orders.eu.>'
"""

import argparse
import os
import sys
from pathlib import Path

from following import Following

MAX_BATCH = 100  # so many events are seen twice at most: those of the frame it was killed in


class Resuming(Following):
    """A subscription that begins at the earliest event there is, unless the file has a token."""

    def __init__(self, stream: str, filters: list[str], file: Path):
        super().__init__()
        self.stream, self.filters, self.file = stream, filters, file
        self.token = file.read_text().strip() if file.exists() else ""

    def spec(self) -> dict:
        start = {"resume_token": self.token} if self.token else {"preset": "START_PRESET_EARLIEST"}
        return {"stream": self.stream, "filters": self.filters, "start": start, "max_batch": MAX_BATCH}

    def take(self, events) -> None:
        for received in events.events:
            text = f"<{len(received.event.data)} bytes>" if received.event.HasField("data") else received.event.text
            print(received.sequence, received.event.topic, text)
        sys.stdout.flush()
        # Not before everything in the frame is done: a token that is kept too early skips events after a crash, one that is
        # kept too late only repeats some.
        self.passed(events.resume_token)

    def passed(self, resume_token: str) -> None:
        """Keeps a token. Whoever reads the file finds the old one or the new one, whole, even after a loss of power."""
        fresh = self.file.with_name(self.file.name + ".new")
        with fresh.open("w") as file:
            file.write(resume_token + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self.file)
        self.token = resume_token


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="127.0.0.1:50051", metavar="HOST:PORT")
    parser.add_argument("stream", metavar="STREAM")
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("filters", nargs="*", metavar="FILTER", help="default: everything the stream has")
    args = parser.parse_args()
    Resuming(args.stream, args.filters, args.file).follow(args.server)
