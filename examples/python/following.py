"""One subscription that outlives the hub: opened again when the hub has gone away, and ended in good order on Ctrl-C."""

import queue
import random
import signal
import sys
import time

import grpc

from publish import describe, explain
from switchyard.v1 import hub_service_pb2, hub_service_pb2_grpc

OPTIONS = [  # a hub that vanishes without a word is noticed, and one that is back is found soon
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]
TRY_AGAIN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL}
ID = 1  # of the subscription: there is one in the session


class Away(Exception):
    """The hub has gone away, or asks to be called again later: after `delay` seconds, if it said so."""

    def __init__(self, reason: str, delay: float | None = None):
        super().__init__(reason)
        self.delay = delay


class Following:
    """What to subscribe to, and what to do with it, is for classes made from this one."""

    def spec(self) -> dict:
        """The `SubscriptionSpec`, asked for whenever a session begins."""
        raise NotImplementedError

    def take(self, events) -> None:
        """Handles an `events` frame. When `self.stopping` is set it begins nothing more."""
        raise NotImplementedError

    def passed(self, resume_token: str) -> None:
        """Everything up to this token is handled, or was never meant for this subscription."""

    def __init__(self):
        self.stopping = self.busy = self.left = False
        self.attempts = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.stop)

    def stop(self, *_) -> None:
        """What is begun is finished first; asked twice, it is not."""
        if self.stopping:
            sys.exit(130)
        self.stopping = True
        if not self.busy:
            self.leave()

    def leave(self) -> None:
        if not self.left:
            self.left = True
            self.send(unsubscribe={"subscription_id": ID})

    def send(self, **command) -> None:
        self.commands.put(hub_service_pb2.SessionRequest(request_id=1, **command))

    def follow(self, server: str) -> None:
        """Returns after Ctrl-C, or when the hub has ended the subscription as asked."""
        with grpc.insecure_channel(server, OPTIONS) as channel:
            hub = hub_service_pb2_grpc.HubServiceStub(channel)
            while not self.stopping:
                try:
                    return self.session(hub)
                except Away as away:
                    self.attempts += 1
                    delay = away.delay or random.uniform(0.5, 1) * min(5, 0.1 * 2 ** min(self.attempts, 10))
                    print(f"{away}; again in {delay:.1f} s", file=sys.stderr)
                end = time.monotonic() + delay
                while not self.stopping and time.monotonic() < end:
                    time.sleep(0.05)

    def session(self, hub) -> None:
        self.commands = queue.SimpleQueue()  # a signal handler may put something in
        self.send(subscribe={"subscription_id": ID, "spec": self.spec()})
        if self.stopping:
            return
        delay = None
        try:
            for response in hub.Session(iter(self.commands.get, None)):
                frame = response.WhichOneof("frame")
                if frame == "subscribed":
                    self.attempts = 0
                    print("subscribed", file=sys.stderr)
                elif frame == "events":
                    self.busy = True
                    self.take(response.events)
                    self.busy = False
                    if self.stopping:
                        self.leave()
                elif frame == "progress":
                    self.passed(response.progress.resume_token)
                elif frame == "acknowledged":
                    for result in response.acknowledged.results:
                        if result.HasField("status"):  # too late: somebody else has it by now
                            print(f"{result.sequence}: {describe(result.status)}", file=sys.stderr)
                elif frame == "draining":
                    delay = response.draining.reconnect_delay.ToTimedelta().total_seconds()
                elif frame == "error":
                    sys.exit(f"refused: {describe(response.error)}")
                elif frame == "ended":
                    return self.ended(response.ended)
        except grpc.RpcError as error:
            if error.code() not in TRY_AGAIN:
                sys.exit(f"no session with the hub: {explain(error)}")
            raise Away(explain(error), delay) from error
        finally:
            self.commands.put(None)  # no more commands
        raise Away("the hub closed the session", delay)

    def ended(self, ended) -> None:
        if ended.status.code and not ended.retry.retry:
            sys.exit(f"ended: {describe(ended.status)}")
        if ended.status.code:
            raise Away(describe(ended.status), ended.retry.delay.ToTimedelta().total_seconds())
