"""Why the hub refused something, and how long it asks to wait. Also finds the stubs, so it is the first import."""

import sys
from pathlib import Path

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2

sys.path.append(str(Path(__file__).resolve().parents[1] / "gen/python"))  # made by examples/generate.sh


def status_of(error: grpc.RpcError) -> status_pb2.Status:
    """The status of a call that failed. That of a refusal travels whole in a trailer."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return status_pb2.Status.FromString(value)
    return status_pb2.Status(code=error.code().value[0], message=error.details())


def describe(status: status_pb2.Status) -> str:
    """The code, reason, field and text, in one line."""
    words = [code_pb2.Code.Name(status.code)]
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            words.append(info.reason)
        elif detail.Unpack(bad):
            words += [violation.field for violation in bad.field_violations]
    return f"{' '.join(words)}: {status.message}"


def delay_of(status: status_pb2.Status) -> float:
    """How many seconds the hub asks to wait before the next attempt; 0 if it does not say."""
    info = error_details_pb2.RetryInfo()
    return max((info.retry_delay.ToTimedelta().total_seconds() for d in status.details if d.Unpack(info)), default=0.0)
