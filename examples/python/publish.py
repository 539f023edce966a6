"""Publishes events to one topic: each TEXT is one event; without TEXT, each line of standard input is one.

    python examples/python/publish.py greetings.en hello "good morning"
"""

import argparse
import itertools
import sys
from pathlib import Path

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2

sys.path.append(str(Path(__file__).resolve().parents[1] / "gen/python"))  # made by examples/generate.sh
from switchyard.v1 import event_pb2, hub_service_pb2, hub_service_pb2_grpc

BATCH = 100


def describe(status: status_pb2.Status) -> str:
    """The code, reason, field and text of a refusal."""
    words = [code_pb2.Code.Name(status.code)]
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            words.append(info.reason)
        elif detail.Unpack(bad):
            words += [violation.field for violation in bad.field_violations]
    return f"{' '.join(words)}: {status.message}"


def explain(error: grpc.RpcError) -> str:
    """The same for a call that failed; the whole status of a refusal travels in a trailer."""
    trailers = dict(error.trailing_metadata() or ())
    if "grpc-status-details-bin" in trailers:
        return describe(status_pb2.Status.FromString(trailers["grpc-status-details-bin"]))
    return f"{error.code().name}: {error.details()}"


def publish(hub: hub_service_pb2_grpc.HubServiceStub, topic: str, texts) -> bool:
    """Publishes in batches and tells how it went; False when an event was refused."""
    published = matched = refused = 0
    texts = iter(texts)
    while batch := list(itertools.islice(texts, BATCH)):
        events = [event_pb2.Event(topic=topic, text=text) for text in batch]
        response = hub.Publish(hub_service_pb2.PublishRequest(events=events), timeout=30)
        for result in response.results:
            if result.HasField("status"):
                refused += 1
                print("refused:", describe(result.status), file=sys.stderr)
            else:
                published += 1
                matched += result.matched
    print(f"published {published}, matched {matched}")
    return refused == 0


def main() -> None:
    parser = argparse.ArgumentParser(description="Publish events to a topic.")
    parser.add_argument("--server", default="127.0.0.1:50051", metavar="HOST:PORT")
    parser.add_argument("topic", metavar="TOPIC")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="default: the lines of standard input")
    args = parser.parse_args()
    sys.stdin.reconfigure(encoding="utf-8", newline="\n")
    texts = args.texts or (line.removesuffix("\n").removesuffix("\r") for line in sys.stdin)
    try:
        with grpc.insecure_channel(args.server) as channel:
            ok = publish(hub_service_pb2_grpc.HubServiceStub(channel), args.topic, texts)
    except grpc.RpcError as error:
        sys.exit(f"publish failed: {explain(error)}")
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
