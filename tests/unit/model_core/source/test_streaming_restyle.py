"""Causal Wan and AnyFlow-FAR restyle, on small random weights: the same frames each time, after a break, and of each chunk's own source."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model_core.config import EngineConfig
from model_core.families.registry import family
from model_core.local import LocalPipeline
from model_core.pipeline import SessionRequest
from model_core.session import Session
from model_core.types import FrameChunk
from tests import checkpoints
from tests.pictures import moving

STREAMS = ("anyflow-far", "causal-wan")
CHUNKS = {"anyflow-far": 3, "causal-wan": 4}
STRENGTH = 0.9


def source(name: str) -> NDArray[np.uint8]:
    """One frame less than whole chunks."""
    settings = checkpoints.config(name)
    return moving(settings.grid.first_frame(CHUNKS[name]) - 1, settings.height, settings.width)


async def play(session: Session, frames: NDArray[np.uint8], first: int = 0) -> NDArray[np.uint8]:
    async def give() -> None:
        feed, at = session.source, first
        assert feed is not None
        while at < len(frames):
            room = await feed.room()
            feed.offer(at, frames[at : at + room])
            at += min(room, len(frames) - at)
        feed.finish()

    giving = asyncio.create_task(give())
    async with aclosing(session.events()) as events:
        played = [event.pixels() async for event in events if isinstance(event, FrameChunk)]
    await giving
    return np.concatenate(played)


@pytest.mark.parametrize("name", STREAMS)
async def test_a_restyled_session_is_the_same_again_in_company_and_after_a_break(name: str) -> None:
    local = LocalPipeline(checkpoints.config(name), EngineConfig(batch_buckets=(1, 2, 4)))
    grid, frames = local.config.grid, source(name)

    async def opened(strength: float = STRENGTH, seed: int = 7) -> Session:
        return await local.pipeline.open(SessionRequest(f"s{seed}", "a dog", seed, 3, None, strength=strength))

    try:
        whole = await play(await opened(), frames)
        again, other = await asyncio.gather(play(await opened(), frames), play(await opened(1.0, 8), frames))
        session = await opened()
        assert session.source is not None
        session.source.offer(0, frames[: session.source.until_frame])
        async with aclosing(session.events()) as events:
            await anext(events)
            await anext(events)
            record = session.record()
        restored = await local.pipeline.restore(record, grid.first_frame(2))
        assert restored.source is not None
        rest = await play(restored, frames, restored.source.first_frame)
    finally:
        await local.aclose()

    assert len(whole) == len(frames)
    np.testing.assert_array_equal(again, whole)
    assert not np.array_equal(other, whole)
    np.testing.assert_array_equal(rest, whole[grid.first_frame(2) :])


@pytest.mark.parametrize("name", STREAMS)
def test_latents_of_a_chunk_depend_on_it_and_on_a_bounded_past(name: str) -> None:
    """The first two chunks see all that comes before them, so theirs are those of the whole video."""
    settings = checkpoints.config(name)
    grid, encoder = settings.grid, family(settings.family).parts.video_encoder(settings)
    frames = moving(grid.first_frame(3), settings.height, settings.width)

    def of(first: int, after: int, chunk: int) -> NDArray[np.float32]:
        with torch.inference_mode():
            return encoder.encode(frames[first:after], chunk)

    for chunk in range(3):
        after = grid.first_frame(chunk + 1)
        first = max(0, grid.first_frame(chunk) - settings.source_context)
        alone, whole = of(first, after, chunk), of(0, after, chunk)
        assert alone.shape == settings.latent_shape(chunk)
        np.testing.assert_array_equal(alone, of(first, after, chunk))
        if first == 0:
            np.testing.assert_array_equal(alone, whole)
