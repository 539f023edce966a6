"""One session with a hub, and what its end means: rules 1, 4 and 5 of clients/SPEC.md."""

import asyncio
import sys

import grpc
from google.rpc import code_pb2

from refusal import delay_of, describe, status_of
from switchyard.v1 import hub_service_pb2_grpc, reason_pb2
from waiting import Lost

HEARTBEAT, CONNECT = 15, 10  # seconds: how long an idle hub may be silent, and the most until the first frame
FINAL = {code_pb2.UNAUTHENTICATED, code_pb2.PERMISSION_DENIED, code_pb2.UNIMPLEMENTED, code_pb2.ABORTED}


async def frames(server: str, commands: asyncio.Queue):
    """Sends the commands, of which None is the end, and yields what comes. Raises `Lost` when nothing more will."""

    async def requests():
        while (command := await commands.get()) is not None:
            yield command

    patience, delay = CONNECT, 0.0
    # Because of the pool, every session has a connection of its own.
    async with grpc.aio.insecure_channel(server, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = hub_service_pb2_grpc.HubServiceStub(channel).Session(requests())
        try:
            while (response := await asyncio.wait_for(call.read(), patience)) is not grpc.aio.EOF:
                check(response)
                delay = response.draining.reconnect_delay.ToTimedelta().total_seconds() or delay
                yield response
                patience = 2 * HEARTBEAT + 5
        except TimeoutError:
            raise Lost("the hub is silent") from None
        except grpc.RpcError as error:
            status = status_of(error)
            if status.code in FINAL:
                sys.exit(f"no session with the hub: {describe(status)}")
            raise Lost(describe(status), delay or delay_of(status)) from None
        finally:
            commands.put_nowait(None)
    raise Lost("the hub closed the session", delay)


def check(response) -> None:
    """Ends the program on what trying again cannot mend."""
    # A command for a subscription that has just ended was too late, which is no fault.
    if response.HasField("error") and "SUBSCRIPTION_NOT_FOUND" not in describe(response.error):
        sys.exit(f"refused: {describe(response.error)}")
    ended = response.ended
    if ended.status.code and not ended.retry.retry:
        sys.exit(f"ended: {describe(ended.status)}")
    if ended.status.code and ended.reason != reason_pb2.END_REASON_DRAINING:  # else the session ends too
        raise Lost(describe(ended.status), ended.retry.delay.ToTimedelta().total_seconds())
