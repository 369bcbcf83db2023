"""The shipped world: its shape goes where keys say and stays in the room; kills and other sessions change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model_core.local import LocalPipeline, load_pipeline
from model_core.pipeline import SessionRequest
from model_core.quality.detect import track
from model_core.quality.words import SIZE
from model_core.session import Session
from model_core.types import FrameChunk

CHUNKS = 6
PROMPT = "a red circle on a black background"


@pytest.fixture(scope="module")
def local() -> Iterator[LocalPipeline]:
    pipeline = load_pipeline("millrace-64-world")
    yield pipeline
    asyncio.run(pipeline.aclose())


async def open_(local: LocalPipeline, seed: int, chunks: int = CHUNKS) -> Session:
    return await local.pipeline.open(SessionRequest(f"s{seed}", PROMPT, seed, 4, chunks * local.config.frames_per_chunk))


async def play(session: Session, keys: dict[int, tuple[str, ...]]) -> NDArray[np.uint8]:
    session.act(keys.get(0, ()))
    frames = []
    async with aclosing(session.events()) as events:
        async for event in events:
            if isinstance(event, FrameChunk):
                frames.append(event.pixels())
                if (held := keys.get(event.index + 1)) is not None:
                    session.act(held)
    return np.concatenate(frames)


def centres(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """`[N, 2]` (y, x), from 0 to the side of the picture."""
    pixels = torch.tensor(frames).permute(0, 3, 1, 2)[None].float() / 255
    found: NDArray[np.float32] = track(pixels)[0].remainder(SIZE).numpy()
    return found


async def test_the_shape_goes_where_keys_say_and_stops_at_the_wall(local: LocalPipeline) -> None:
    for seed, (key, axis, sign) in enumerate((("right", 1, 1), ("left", 1, -1), ("up", 0, -1), ("down", 0, 1))):
        path = centres(await play(await open_(local, seed), {0: (key,), 4: ()}))
        went = (path[31] - path[0]) * sign
        assert went[axis] > 14
        assert abs(path[31] - path[0])[1 - axis] < 4
        assert 9 < path[31][axis] < SIZE - 9, "the whole circle is in the picture"
        assert np.abs(path[-1] - path[31]).max() < 4, "it rests when no key is held"


async def test_sessions_of_a_world_have_equal_frames_alone_and_in_company(local: LocalPipeline) -> None:
    keys = {0: ("up",), 2: ("left", "up"), 4: ()}
    alone = await play(await open_(local, 7), keys)
    again, _ = await asyncio.gather(play(await open_(local, 7), keys), play(await open_(local, 8), {0: ("down",)}))
    np.testing.assert_array_equal(again, alone)
