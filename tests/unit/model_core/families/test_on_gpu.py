"""Every family with all stages on an NVIDIA GPU: sessions that do not notice each other, and frames as the CPU's but for rounding."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from model_core.config import EngineConfig, Execution, ModelConfig, RuntimeConfig
from model_core.families.registry import tiny_checkpoints
from model_core.local import LocalPipeline
from model_core.pipeline import Session, SessionRequest
from model_core.session_log import SessionRecord
from model_core.types import Footage, FrameChunk
from tests import checkpoints

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]

PROMPT = "a red circle moves left"
# One shape for every batch: matrix products of another size may be another kernel's, which rounds otherwise.
ONE_SHAPE = EngineConfig(batch_buckets=(2,))


def on_gpu(name: str, dtype: Literal["float32", "bfloat16"] = "float32") -> ModelConfig:
    runtime, small = RuntimeConfig(name="cuda", dtype=dtype), checkpoints.config(name)
    execution = Execution(text_encoder=runtime, denoiser=runtime, decoder=runtime)
    return replace(small, checkpoint=replace(small.checkpoint, dtype=dtype), execution=execution)


def request(name: str, seed: int) -> SessionRequest:
    config = checkpoints.config(name)
    footage = Footage(np.asarray(checkpoints.image(name, seed))[None]) if config.needs_media else None
    frames = config.grid.max_frames or config.grid.first_frame(3)
    return SessionRequest(f"s{seed}", f"{PROMPT} {seed}", seed, num_steps=3, num_frames=frames, footage=footage)


async def played(session: Session) -> list[bytes]:
    async with aclosing(session.events()) as events:
        return [frame async for event in events if isinstance(event, FrameChunk) for frame in event.data]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", sorted(tiny_checkpoints()))
async def test_sessions_on_the_gpu_depend_on_nobody_and_go_on_anywhere(name: str, dtype: Literal["float32", "bfloat16"]) -> None:
    config = on_gpu(name, dtype)
    here, there = (LocalPipeline(config, ONE_SHAPE) for _ in range(2))
    try:
        one, other = request(name, 1), request(name, 2)
        alone = await played(await here.pipeline.open(one))
        assert await played(await here.pipeline.open(other)) != alone
        assert await played(await here.pipeline.open(one)) == alone
        sessions = [await here.pipeline.open(each) for each in (one, other)]
        assert (await asyncio.gather(*map(played, sessions)))[0] == alone
        session = await here.pipeline.open(one)
        if config.grid.chunks != 1:
            async with aclosing(session.events()) as events:
                seen = list((await anext(events)).data)  # type: ignore[union-attr]
        else:
            seen = []
        record = SessionRecord.from_bytes(session.record().to_bytes())
        assert seen + await played(await there.pipeline.restore(record, len(seen))) == alone
    finally:
        for pipeline in (here, there):
            await pipeline.aclose()


@pytest.mark.parametrize("name", sorted(tiny_checkpoints()))
async def test_frames_of_the_gpu_are_those_of_the_cpu_but_for_rounding(name: str) -> None:
    made = []
    for config in (checkpoints.config(name), on_gpu(name)):
        pipeline = LocalPipeline(config, ONE_SHAPE)
        try:
            made.append(np.frombuffer(b"".join(await played(await pipeline.pipeline.open(request(name, 1)))), np.uint8).astype(int))
        finally:
            await pipeline.aclose()
    cpu, gpu = made
    assert cpu.shape == gpu.shape
    # The networks are small and of random weights, and steps amplify what differs: most pixels are equal, and none is far off.
    assert np.abs(cpu - gpu).mean() < 1.0
    assert np.quantile(np.abs(cpu - gpu), 0.99) <= 4
