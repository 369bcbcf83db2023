"""What goes out to calls that watch: bytes that are made once, and cut to what each call takes."""

from __future__ import annotations

from typing import Any, cast

import pytest
from google.protobuf.message import Message

from doors.grpc.edge import Outgoing
from doors.grpc.replies import Viewing
from doors.wire.message_size import DEFAULT_BYTES
from headrace.v1 import video_pb2 as pb
from model_core.types import Codec, FrameChunk
from service.events import Frames
from service.watching.show import Item
from tests.unit.service.test_watching_show import frames


class Written:
    """As `Outgoing`."""

    def __init__(self) -> None:
        self.messages: list[Message | bytes] = []

    async def write(self, message: Message | bytes) -> None:
        self.messages.append(message)


async def shown(item: Item, max_message_bytes: int) -> list[Any]:
    written = Written()
    await Viewing(cast("Outgoing", written), max_message_bytes, 20.0).send(item)
    return written.messages


def large() -> Frames:
    """Eight frames of 1 MiB."""
    chunk = frames(0).chunk
    return Frames(FrameChunk(0, 0, 8, 4, 4, Codec.RAW_RGB, tuple(bytes([n]) * 2**20 for n in range(8)), chunk.latents, ()))


@pytest.mark.parametrize(("event", "messages"), [(frames(0), 1), (large(), 3)], ids=["small", "large"])
async def test_calls_of_the_usual_size_send_the_same_bytes(event: Frames, messages: int) -> None:
    item = Item(event)
    one, two = await shown(item, DEFAULT_BYTES), await shown(item, DEFAULT_BYTES)
    assert len(one) == messages
    assert [id(message) for message in one] == [id(message) for message in two]
    assert all(len(message) <= DEFAULT_BYTES for message in one)
    found = [data for message in one for data in pb.WatchResponse.FromString(message).frames.data]
    assert tuple(found) == event.chunk.data


async def test_a_call_that_takes_more_gets_it_whole_and_one_that_takes_less_in_more_parts() -> None:
    item = Item(large())
    assert [len(await shown(item, size)) for size in (16 * 2**20, DEFAULT_BYTES, 2 * 2**20)] == [1, 3, 8]
