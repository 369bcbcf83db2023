"""A call that is refused leaves nothing of its request in memory, whenever the garbage collector comes round."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import grpc.aio
import pytest

from headrace.v1 import video_pb2 as pb
from model_core.presets import millrace_64
from tests.fakes import FakeStages
from tests.served import raw_call, serving

LARGE = 4 * 1024 * 1024
CALLS = 2
IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(LARGE)


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("slots", [1, 0])
@pytest.mark.parametrize(
    "request_",
    [
        b"\x0a\xff\xff\xff\x07" + bytes(LARGE),
        bytes(6 * LARGE),
        pb.StreamRequest(spec=pb.VideoSpec(prompt="p", seconds=1, image=IMAGE)).SerializeToString(),
    ],
    ids=["no message", "too large", "no image"],
)
async def test_a_refused_request_is_let_go_of(request_: bytes, slots: int) -> None:
    stages = FakeStages(config=replace(millrace_64(), media=("image",)))
    async with serving(stages, max_sessions=slots, max_waiting=0) as served:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(CALLS):
            assert isinstance(await raw_call(served, "Stream", request_), grpc.aio.AioRpcError)
        await served.nothing_left()
        after, _ = tracemalloc.get_traced_memory()
        assert after - before < LARGE
