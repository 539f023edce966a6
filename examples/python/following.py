"""Subscriptions that outlive their sessions: rules 5 and 13 of clients/SPEC.md, in small. Left to a full client:
several addresses (3), windows in bytes (6), gaps of all kinds (8), extending leases (9), tokens that expire (12)."""

import asyncio
import signal
import time

from session import HEARTBEAT, frames
from switchyard.v1 import hub_service_pb2
from waiting import Backoff, Lost


class Following:
    """`table` has the spec of each subscription, by its id. Subclasses have an `on_FRAME` for frames they handle."""

    def __init__(self, name: str, table: dict[int, dict]):
        self.name, self.table, self.session_id = name, table, ""
        self.stopping, self.busy, self.backoff = asyncio.Event(), asyncio.Lock(), Backoff()

    def send(self, **command) -> None:
        self.commands.put_nowait(hub_service_pb2.SessionRequest(request_id=1, **command))

    async def stop(self) -> None:
        """Ends every subscription when the frame at hand is finished. Asked twice, the program ends at once."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.stopping.set()
        async with self.busy:
            for id in self.table:
                self.send(unsubscribe={"subscription_id": id})

    async def follow(self, server: str) -> None:
        """Returns when every subscription has ended as asked, or after Ctrl-C."""
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, lambda: asyncio.ensure_future(self.stop()))
        while self.table and not self.stopping.is_set():
            self.commands, hello = asyncio.Queue(), {"client_name": self.name, "previous_session_id": self.session_id}
            self.send(hello={**hello, "heartbeat_interval": {"seconds": HEARTBEAT}})
            for id, spec in self.table.items():
                self.send(subscribe={"subscription_id": id, "spec": spec})
            try:
                async for response in frames(server, self.commands):
                    async with self.busy:
                        await self.take(response)
            except Lost as lost:
                await self.backoff.wait(lost, self.stopping)

    async def take(self, response) -> None:
        frame = response.WhichOneof("frame")
        if frame == "welcome":
            self.session_id, self.backoff.up_since = response.welcome.session_id, time.monotonic()
        elif frame == "ended" and not response.ended.status.code:
            self.table.pop(response.ended.subscription_id, None)
            if not self.table:
                self.stopping.set()
                self.commands.put_nowait(None)  # the hub ends the session
        elif handle := getattr(self, f"on_{frame}", None):
            await handle(getattr(response, frame))
