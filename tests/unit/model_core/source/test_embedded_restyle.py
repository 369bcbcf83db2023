"""The embedded model restyles: the same frames each time, in company and after a break; motion is the source's, colour the prompt's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model_core.diffusion.flow_match import first_step, timesteps
from model_core.local import LocalPipeline, load_pipeline
from model_core.pipeline import SessionRequest
from model_core.presets import millrace_64
from model_core.quality.detect import apart, read, track
from model_core.quality.words import COLOURS
from model_core.session import Session
from model_core.types import FrameChunk
from training.world import Scene, scene_tensor, steady_clip

FRAMES = 52
PROMPT = "a blue circle moving right on a black background"


@pytest.fixture(scope="module")
def local() -> Iterator[LocalPipeline]:
    pipeline = load_pipeline()
    yield pipeline
    asyncio.run(pipeline.aclose())


def red_circle(frames: int = FRAMES) -> NDArray[np.uint8]:
    """`[N, 64, 64, 3]`: it moves right on black."""
    clip = steady_clip(scene_tensor([Scene(0, 0, 0, 0)]), torch.full((1, 2), 32.0), frames)
    return (clip[0].permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()


def floats(frames: NDArray[np.uint8]) -> torch.Tensor:
    """`[1, N, 3, H, W]` in [0, 1]."""
    return torch.tensor(frames).permute(0, 3, 1, 2)[None].float() / 255


async def open_(local: LocalPipeline, strength: float | None = 0.5, frames: int | None = None, seed: int = 3) -> Session:
    return await local.pipeline.open(SessionRequest(f"s{seed}", PROMPT, seed, 4, frames, strength=strength))


async def play(session: Session, source: NDArray[np.uint8] | None = None, first: int = 0) -> NDArray[np.uint8]:
    async def give() -> None:
        if source is not None and session.source is not None:
            at = first
            while at < len(source):
                room = await session.source.room()
                session.source.offer(at, source[at : at + room])
                at += min(room, len(source) - at)
            session.source.finish()

    giving = asyncio.create_task(give())
    async with aclosing(session.events()) as events:
        played = [event.pixels() async for event in events if isinstance(event, FrameChunk)]
    await giving
    return np.concatenate(played)


async def test_a_source_is_restyled_alike_each_time_and_beside_other_sessions(local: LocalPipeline) -> None:
    alone = await play(await open_(local), red_circle())
    again, plain, other = await asyncio.gather(
        play(await open_(local), red_circle()),
        play(await open_(local, None, FRAMES, seed=4)),
        play(await open_(local, 0.9, seed=5), red_circle()),
    )

    assert alone.shape == (FRAMES, 64, 64, 3)
    np.testing.assert_array_equal(alone, again)
    np.testing.assert_array_equal(plain, await play(await open_(local, None, FRAMES, seed=4)))
    np.testing.assert_array_equal(other, await play(await open_(local, 0.9, seed=5), red_circle()))


async def test_a_session_goes_on_with_equal_frames_when_the_source_is_sent_again(local: LocalPipeline) -> None:
    whole = await play(await open_(local), red_circle())
    session = await open_(local)
    assert session.source is not None
    session.source.offer(0, red_circle()[: session.source.until_frame])
    async with aclosing(session.events()) as events:
        for _ in range(3):
            await anext(events)
        record = session.record()

    restored = await local.pipeline.restore(record, 24)
    assert restored.source is not None

    np.testing.assert_array_equal(await play(restored, red_circle(), restored.source.first_frame), whole[24:])


@pytest.mark.parametrize("strength", [0.5, 0.9])
async def test_motion_is_the_source_s_and_colour_the_prompt_s(local: LocalPipeline, strength: float) -> None:
    """Mean distance of the shape's centre from the source's, and the colour of each chunk."""
    source = red_circle(64)
    shown, given = (floats(frames).split(8, 1) for frames in (await play(await open_(local, strength), source), source))

    away = torch.cat([apart(track(one), track(other)) for one, other in zip(shown, given, strict=True)], 1)
    assert float(away.mean()) < 2
    assert read(torch.cat(shown)).colour.tolist() == [list(COLOURS).index("blue")] * 8
    assert read(torch.cat(given)).colour.tolist() == [list(COLOURS).index("red")] * 8


async def test_at_full_strength_nothing_of_the_source_is_left(local: LocalPipeline) -> None:
    np.testing.assert_array_equal(await play(await open_(local, 1.0), red_circle()), await play(await open_(local, None, FRAMES)))


@pytest.mark.parametrize(("strength", "step"), [(1.0, 0), (0.95, 1), (0.9, 1), (0.75, 2), (0.74, 3), (0.5, 3), (0.01, 3)])
def test_a_strength_is_the_first_step_whose_noise_is_not_above_it(strength: float, step: int) -> None:
    config = millrace_64()

    assert first_step(timesteps(config.num_steps, config.shift), strength) == step
