"""What is written to a call, where the task that writes is cancelled."""

import asyncio
from typing import Any, cast

import pytest
from google.protobuf.message import Message

from doors.grpc.edge import Outgoing
from headrace.v1 import video_pb2 as pb


class SlowContext:
    """Of a gRPC context, what writes; headers are on their way until the test says so."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.headers = 0
        self.messages: list[Message] = []

    async def send_initial_metadata(self, _: object) -> None:
        await self.arrived.wait()
        self.headers += 1

    async def write(self, message: Message) -> None:
        self.messages.append(message)


async def test_headers_go_first_once_and_whole_whatever_becomes_of_the_writer() -> None:
    context = SlowContext()
    outgoing = Outgoing(cast("Any", context))
    writing = asyncio.create_task(outgoing.write(pb.StreamResponse()))
    await asyncio.sleep(0)
    writing.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not writing.done()
    context.arrived.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert (context.headers, context.messages) == (1, [])
    await outgoing.write(pb.StreamResponse())
    await outgoing.write(pb.StreamResponse())
    assert (context.headers, len(context.messages)) == (1, 2)
