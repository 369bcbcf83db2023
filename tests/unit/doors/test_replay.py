"""Replays over gRPC and HTTP: the frames that were seen, with those between, from a session that runs, has ended, or was broken off."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio
import numpy as np
import pytest
from numpy.typing import NDArray

from headrace.client import BadRequest, ClientError
from headrace.v1 import video_pb2 as pb
from model_core.errors import InvalidRequest
from model_core.session_log import PromptEntry, SessionRecord
from model_core.types import Codec
from service.checks import Problems
from service.orders import Doorway, Mode
from service.replay import ReplayRequest, replay_point
from tests.fakes import FakeStages
from tests.served import Served, serving

CONFIG = FakeStages().config
CHUNK = CONFIG.frames_per_chunk
PROMPT = "a blue circle"
WHOLE_S = 3.0  # nine chunks


def stages() -> FakeStages:
    return FakeStages(enhances=True, keep_chunks=24)


async def played(served: Served, seconds: float = WHOLE_S, enhance: pb.Enhance | None = None) -> tuple[str, list[bytes]]:
    """A session's token and raw frames."""
    events: list[Any] = [event async for event in served.client.stream(PROMPT, seconds=seconds, seed=1, enhance=enhance)]
    return events[0].resume_token, [bytes(data) for event in events if isinstance(event, pb.Frames) for data in event.data]


async def replayed(served: Served, token: str, **asked: Any) -> tuple[list[Any], list[bytes]]:
    events = [event async for event in served.client.replay(token, **asked)]
    return events, [bytes(data) for event in events if isinstance(event, pb.Frames) for data in event.data]


async def recorded(served: Served, token: str) -> tuple[list[Any], list[bytes]]:
    """A replay of a session that runs, once something of it has been written down."""
    async with asyncio.timeout(20.0):
        while True:
            try:
                return await replayed(served, token, seconds=0.1)
            except BadRequest:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(("slow", "seconds", "chunks"), [(2, 1.0, 3), (4, 1.0, 3), (2, 60.0, 9), (4, 0.1, 1)])
async def test_the_frames_that_were_seen_come_again_with_frames_between(slow: int, seconds: float, chunks: int) -> None:
    async with serving(stages()) as served:
        token, seen = await played(served)
        events, frames = await replayed(served, token, seconds=seconds, slow=slow)
        _, again = await replayed(served, token, seconds=seconds, slow=slow)
        await served.nothing_left()
    assert (events[0].fps, events[0].width) == (24, 64)
    assert len(frames) == slow * chunks * CHUNK
    assert frames[slow - 1 :: slow] == seen[-chunks * CHUNK :], "each as it was, and no step of the denoiser was made"
    assert frames == again, "the same range has the same bytes"
    assert events[-1].usage.frames_sent == len(frames)
    assert served.stages.denoiser.statistics().chunks == 9


async def test_a_range_ends_where_the_caller_says_and_a_cut_end_stays_cut() -> None:
    async with serving(stages()) as served:
        token, seen = await played(served, seconds=(9 * CHUNK - 3) / 24)
        _, last = await replayed(served, token, seconds=0.2)
        _, earlier = await replayed(served, token, seconds=1 / 3, until_frame=4 * CHUNK)
    assert len(seen) == 9 * CHUNK - 3
    assert last[1::2] == seen[8 * CHUNK :]
    assert earlier[1::2] == seen[3 * CHUNK : 4 * CHUNK]


async def test_of_an_enhanced_session_the_size_stays_and_frames_are_counted_as_they_were_shown() -> None:
    async with serving(stages()) as served:
        token, seen = await played(served, enhance=pb.Enhance(frames=2, size=2))
        events, frames = await replayed(served, token, seconds=1 / 3, until_frame=2 * 4 * CHUNK)
    assert (events[0].fps, events[0].width) == (24, 128)
    assert frames == seen[2 * 3 * CHUNK : 2 * 4 * CHUNK], "twice the frames at half the pace are what was shown"


async def test_a_session_that_runs_goes_on_while_it_is_seen_again() -> None:
    async with serving(stages()) as served:
        stream = served.client.stream(PROMPT, seconds=2000.0, seed=1, max_lead_s=0.5)
        token, frames = "", 0
        async for event in stream:
            frames += event.frame_count if isinstance(event, pb.Frames) else 0
            if isinstance(event, pb.Started):
                token = event.resume_token
            if frames >= 2 * CHUNK:
                break
        events, again = await recorded(served, token)
        assert len(again) == 2 * CHUNK
        assert events[-1].reason == pb.END_REASON_COMPLETED
        assert isinstance(following := await anext(stream), pb.Frames)
        assert following.frame_count == CHUNK
        await stream.aclose()


async def test_what_cannot_be_shown_again_is_named() -> None:
    async with serving(stages()) as served:
        token, _ = await played(served)
        with pytest.raises(BadRequest) as refused:
            await replayed(served, token, seconds=0.0, slow=3)
        assert [violation.field for violation in refused.value.violations] == ["seconds", "slow"]
        with pytest.raises(ClientError) as unknown:
            await replayed(served, "nobody's")
        assert unknown.value.code is grpc.StatusCode.NOT_FOUND
    async with serving(FakeStages(keep_chunks=24)) as served:
        token, _ = await played(served)
        with pytest.raises(BadRequest, match=r"slow.*nothing here enhances"):
            await replayed(served, token)


# -- the range, without a server ----------------------------------------------------------------------------------------------


def latents(chunk: int) -> NDArray[np.float32]:
    return np.full(CONFIG.latent_shape(chunk), chunk, np.float32)


def record(first: int, count: int) -> SessionRecord:
    held = tuple(latents(chunk) for chunk in range(first, first + count))
    return SessionRecord("m", "f", "s", 1, 4, None, Codec.JPEG, first, held, (PromptEntry(0, "p"),), ((0, 4),))


@pytest.mark.parametrize(
    ("first", "count", "seconds", "until", "shown"),
    [
        (0, 9, 1.0, 0, [6, 7, 8]), (0, 9, 99.0, 0, list(range(9))), (0, 9, 1.0, 2 * CHUNK, [0, 1]), (0, 9, 1 / 3, CHUNK + 1, [1]),
        (20, 9, 99.0, 0, [23, 24, 25, 26, 27, 28]), (20, 9, 1 / 3, 25 * CHUNK, [24]),
    ],
)  # fmt: skip
def test_the_decoder_sees_what_it_must_have_seen_and_that_is_not_shown(
    first: int, count: int, seconds: float, until: int, shown: list[int]
) -> None:
    request = ReplayRequest(token="t", seconds=seconds, until_frame=until)  # noqa: S106 - no secret
    point = replay_point(record(first, count), CONFIG, request, Doorway(Mode.STREAM), "new", Problems())
    made, seen = point.story.record, point.story.chunk
    assert made.given is not None
    assert made.given.head is not None
    numbers = [int(part[0, 0, 0, 0]) for part in np.split(made.given.head, made.given.head.shape[1] // CONFIG.grid.rest, axis=1)]
    assert numbers[seen:] == shown
    assert numbers[:seen] == list(range(max(first, shown[0] - CONFIG.context_chunks), shown[0]))
    assert seen == min(CONFIG.context_chunks, shown[0])
    assert point.next_frame == 2 * seen * CHUNK


def test_frames_that_are_no_longer_held_are_refused_with_those_that_are() -> None:
    request = ReplayRequest(token="t", until_frame=22 * CHUNK)  # noqa: S106 - no secret
    with pytest.raises(InvalidRequest, match=f"until_frame: must be within .*, frames {23 * CHUNK} to {29 * CHUNK}; got {22 * CHUNK}"):
        replay_point(record(20, 9), CONFIG, request, Doorway(Mode.STREAM), "new", Problems())
