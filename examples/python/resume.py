"""Follows a stream and keeps its place in a file, so that it goes on where it was after it has been killed."""

import argparse
import asyncio
import os
from pathlib import Path

from following import Following

MAX_BATCH = 100  # events in one frame, which is the most that is seen twice after the program was killed
WINDOW = 2 * MAX_BATCH  # events that the hub may send before the first of them are done


class Resuming(Following):
    """A subscription that begins at the earliest event there is, unless the file has a token."""

    def __init__(self, stream: str, filters: list[str], file: Path):
        self.file, token = file, file.read_text().strip() if file.exists() else ""
        self.spec = {"stream": stream, "filters": filters, "max_batch": MAX_BATCH, "credit": {"events": WINDOW}}
        self.spec["start"] = {"resume_token": token} if token else {"preset": "START_PRESET_EARLIEST"}
        super().__init__("example-resume", {1: self.spec})

    async def on_events(self, events) -> None:
        for received in events.events:
            text = f"<{len(received.event.data)} bytes>" if received.event.HasField("data") else received.event.text
            print(received.sequence, received.event.topic, text, flush=True)
        # After the work: a token that is kept too early skips events after a crash, one kept too late repeats some.
        await self.on_progress(events)
        self.send(credit={"subscription_id": 1, "credit": {"events": len(events.events)}})

    async def on_progress(self, progress) -> None:
        """Keeps a token. Whoever reads the file finds the old one or the new one, whole, even after a loss of power."""
        fresh = self.file.with_name(self.file.name + ".new")
        with fresh.open("w") as file:
            file.write(progress.resume_token + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self.file)
        self.spec["start"] = {"resume_token": progress.resume_token}


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--server", default="127.0.0.1:50051", metavar="HOST:PORT")
parser.add_argument("stream", metavar="STREAM")
parser.add_argument("file", type=Path, metavar="FILE")
parser.add_argument("filters", nargs="*", metavar="FILTER", help="default: everything the stream has")
args = parser.parse_args()
asyncio.run(Resuming(args.stream, args.filters, args.file).follow(args.server))
