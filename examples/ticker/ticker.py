"""Sends real stock prices through the hub, one topic per symbol, and prints the digests a subscriber must arrive at.

    python examples/ticker/ticker.py --repeat 3
"""

import argparse
import csv
import hashlib
import importlib.util
import json
import math
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import grpc
from google.rpc import code_pb2

sys.path.append(str(Path(__file__).resolve().parents[1] / "gen/python"))  # made by examples/generate.sh
from switchyard.v1 import event_pb2, hub_service_pb2, hub_service_pb2_grpc

BATCH = 20  # events in one publish command
IN_FLIGHT = 8  # commands that wait for their results

# Which topics a filter matches is told here a second time, so that the hub is not believed but checked.
FILTERS = {
    "stocks.*": lambda topic: topic.startswith("stocks."),
    "stocks.AAPL": lambda topic: topic == "stocks.AAPL",
    ">": lambda topic: True,
}


def prices(repeat: int, by_date: bool) -> list[event_pb2.Event]:
    """The rows of the file that vega-datasets ships, in its order and with the very text of its figures."""
    package = Path(importlib.util.find_spec("vega_datasets").origin).parent
    rows = list(csv.DictReader((package / "_data/stocks.csv").read_text("utf-8").splitlines()))
    if by_date:
        rows.sort(key=lambda row: datetime.strptime(row["date"], "%b %d %Y"))
    return [event_pb2.Event(topic=f"stocks.{row['symbol']}", text=json.dumps(row)) for row in rows] * repeat


def send(hub: hub_service_pb2_grpc.HubServiceStub, events: list[event_pb2.Event], rate: float) -> None:
    """Publishes over one Session, at most `rate` events a second, and returns when every event has been accepted."""
    room = threading.BoundedSemaphore(IN_FLIGHT)
    batch_size = BATCH if rate == math.inf else 1
    batches = [events[i : i + batch_size] for i in range(0, len(events), batch_size)]
    start = time.monotonic()

    def commands():  # gRPC asks for these from a thread of its own
        for request_id, batch in enumerate(batches, start=1):
            room.acquire()
            time.sleep(max(0, start + (request_id - 1) / rate - time.monotonic()))
            yield hub_service_pb2.SessionRequest(request_id=request_id, publish={"events": batch})

    answered = 0
    for response in hub.Session(commands()):
        frame = response.WhichOneof("frame")
        if frame == "published":
            refusals = [result.status for result in response.published.results if result.HasField("status")]
        elif frame == "error":
            refusals = [response.error]
        else:
            continue  # welcome, heartbeat, draining
        for status in refusals:
            sys.exit(f"refused: {code_pb2.Code.Name(status.code)}: {status.message}")
        answered += 1
        room.release()
    if answered != len(batches):
        sys.exit(f"the hub closed the session after {answered} of {len(batches)} batches")


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--server", default="127.0.0.1:50051", metavar="HOST:PORT")
parser.add_argument("--repeat", type=int, default=1, metavar="N", help="send the file N times")
parser.add_argument("--by-date", action="store_true", help="month by month, instead of company by company")
parser.add_argument("--rate", type=float, default=math.inf, metavar="N", help="events a second, one at a time")
args = parser.parse_args()
events = prices(args.repeat, args.by_date)
try:
    with grpc.insecure_channel(args.server) as channel:
        send(hub_service_pb2_grpc.HubServiceStub(channel), events, args.rate)
except grpc.RpcError as error:
    sys.exit(f"no session with the hub: {error.code().name}: {error.details()}")
for name, matches in FILTERS.items():
    lines = [f"{event.topic} {event.text}\n" for event in events if matches(event.topic)]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    print(json.dumps({"filter": name, "events": len(lines), "sha256": digest}))
