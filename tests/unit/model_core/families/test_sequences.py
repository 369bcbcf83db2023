"""No session notices those before it: whatever a pipeline has served, its next frames are those of a pipeline that served none."""

from __future__ import annotations

from contextlib import aclosing

import numpy as np
import pytest
import torch

from model_core.config import EngineConfig, ModelConfig
from model_core.families.registry import tiny_checkpoints
from model_core.local import LocalPipeline
from model_core.pipeline import SessionRequest
from model_core.types import Codec, Footage, FrameChunk
from tests import checkpoints
from tests.fakes import FakeStages
from tests.pictures import picture
from tests.served import serving

MODELS = [(name, "") for name in tiny_checkpoints()] + [("wan", "taehv"), ("causal-wan", "taehv")]
IDS = [f"{name}-{decoder}".rstrip("-") for name, decoder in MODELS]


def pipeline_of(name: str, decoder: str) -> LocalPipeline:
    folder = checkpoints.folder_with_taehv if decoder else checkpoints.folder
    return LocalPipeline(checkpoints.config(name, root=folder(name), decoder=decoder, steps=2), EngineConfig(slots=2, batch_buckets=(1, 2)))


def request(config: ModelConfig, number: int, codec: Codec = Codec.RAW_RGB) -> SessionRequest:
    """The `number`-th caller's: its own prompt, seed, length, and image where the model takes one."""
    grid = config.grid
    longest = 3 if grid.chunks is None else grid.chunks
    chunks = longest - number % 2 if longest > 1 else 1
    shown = config.needs_media or (bool(config.media) and number % 3 > 0)
    seen = Footage(np.asarray(picture(config.height, config.width, number))[None]) if shown else None
    return SessionRequest(f"s{number}", f"caller {number} draws " * (number + 1), number, 2, grid.first_frame(chunks), codec, seen)


async def frames(pipeline: LocalPipeline, asked: SessionRequest, leave_after: int | None = None) -> list[bytes]:
    """What the caller sees; it may leave after so many chunks."""
    session = await pipeline.pipeline.open(asked)
    made: list[bytes] = []
    async with aclosing(session.events()) as events:
        async for event in events:
            assert isinstance(event, FrameChunk)
            made += event.data
            if leave_after is not None and event.index + 1 >= leave_after:
                break
    return made


@pytest.mark.parametrize(("name", "decoder"), MODELS, ids=IDS)
async def test_the_first_the_second_and_a_later_session_are_those_of_a_fresh_pipeline(name: str, decoder: str) -> None:
    torch.set_num_threads(1)
    fresh, used = pipeline_of(name, decoder), pipeline_of(name, decoder)
    try:
        ours = request(fresh.config, 0)
        expected = await frames(fresh, ours)
        assert await frames(used, ours) == expected
        assert await frames(used, ours) == expected
        await frames(used, request(used.config, 1, Codec.JPEG), leave_after=1)
        other = await frames(used, request(used.config, 2))
        assert await frames(used, ours) == expected != other
        assert await frames(fresh, request(fresh.config, 2)) == other
    finally:
        await fresh.aclose()
        await used.aclose()


async def test_a_caller_gets_the_same_clip_twice_whoever_came_between() -> None:
    torch.set_num_threads(1)
    local = pipeline_of("wan", "")
    stages = FakeStages(config=local.config)
    stages.pipeline = local.pipeline
    try:
        async with serving(stages) as served:
            clips = [await served.client.generate("a red circle", seed=seed, steps=2, seconds=9 / local.config.fps) for seed in (1, 2, 1)]
            assert clips[0].mp4 == clips[2].mp4 != clips[1].mp4
    finally:
        await local.aclose()
