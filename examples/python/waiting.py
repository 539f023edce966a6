"""The wait between two attempts: rule 2 of clients/SPEC.md."""

import asyncio
import contextlib
import math
import random
import sys
import time


class Lost(Exception):
    """A session is over, and another one may go on: after `delay` seconds, if the hub said so."""

    def __init__(self, reason: str, delay: float = 0.0):
        super().__init__(reason)
        self.delay = delay


class Backoff:
    """Full jitter, or what the hub asks for if that is longer."""

    def __init__(self):
        self.most, self.up_since = 0.1, math.inf

    def next(self, asked: float) -> float:
        """How many seconds to wait. After a session that was up for 10 s it begins at 100 ms again."""
        most = 0.1 if time.monotonic() - self.up_since >= 10 else self.most
        self.most, self.up_since = min(5, 2 * most), math.inf
        return max(asked, random.uniform(0, most))

    async def wait(self, lost: Lost, stopping: asyncio.Event) -> None:
        if stopping.is_set():
            return
        delay = self.next(lost.delay)
        print(f"{lost}; again in {delay:.1f} s", file=sys.stderr)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), delay)
