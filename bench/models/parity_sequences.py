"""Compares sessions one after another with a pipeline that has served none: `python -m bench.models.parity_sequences [FAMILY ...]`.

All families are served by one process, in turns. In each, one request is made as the first session, the second, and the hundredth; in
between come other callers, with prompts, seeds, lengths, steps, guidance and images of their own, two at a time, of whom some leave early.
The frames of the three are compared with those of a fresh pipeline, bit for bit: 0 is equal, otherwise the largest difference of a level of
255. `others` counts the sessions in between whose frames were not those of a fresh pipeline either, of the few that are made twice.

Sizes and steps are small, so that all of it takes a few minutes; the time is printed.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model_core.config import EngineConfig, ModelConfig
from model_core.families.checkpoints.checkpoint import Checkpoint
from model_core.families.described import Choice, describe
from model_core.families.registry import tiny_checkpoints
from model_core.families.tiny import make_tiny
from model_core.local import LocalPipeline
from model_core.pipeline import SessionRequest
from model_core.types import Footage, FrameChunk

SESSIONS, AGAIN = 100, 3
ENGINE = EngineConfig(slots=4, batch_buckets=(1, 2, 4))
OURS = 0  # the caller whose request is made three times

Frames = NDArray[np.uint8]


def configuration(name: str, folder: Path) -> ModelConfig:
    small, where = tiny_checkpoints()[name], Checkpoint(folder=str(folder))
    return describe(Choice(checkpoint=where, height=small.height, width=small.width, frames=small.frames, steps=2))


def asked(config: ModelConfig, caller: int) -> SessionRequest:
    """What a caller asks for: a function of its number."""
    draw = random.Random(caller)
    grid = config.grid
    chunks = draw.randint(1, 3) if grid.chunks is None else draw.randint(1, grid.chunks)
    shown = config.needs_media or (bool(config.media) and draw.random() < 0.5)
    pixels = np.random.default_rng(caller).integers(0, 256, (1, config.height, config.width, 3), np.uint8)
    led = config.max_guidance > 1 and caller != OURS
    return SessionRequest(
        f"caller {caller}", f"a caller of number {caller} " * draw.randint(1, 3), caller, draw.randint(config.min_steps, 3),
        grid.first_frame(chunks), footage=Footage(pixels) if shown else None,
        guidance=draw.choice((None, 1.0, 3.0)) if led else None,
    )  # fmt: skip


async def frames(pipeline: LocalPipeline, caller: int, *, leaves: bool = False) -> Frames | None:
    """What a caller sees; None for one that leaves after the first chunk."""
    session = await pipeline.pipeline.open(asked(pipeline.config, caller))
    made = []
    async with aclosing(session.events()) as events:
        async for event in events:
            if leaves:
                return None
            if isinstance(event, FrameChunk):
                made.append(event.pixels())
    return np.concatenate(made)


def apart(a: Frames | None, b: Frames | None) -> int:
    if a is None or b is None or a.shape != b.shape:
        return 255
    return int(np.abs(a.astype(np.int64) - b).max())


async def compare(folder: Path, names: list[str]) -> bool:
    """Print a line for each family. Returns whether all frames are equal."""
    made = {name: configuration(name, folder / name) for name in names}
    used = {name: LocalPipeline(config, ENGINE) for name, config in made.items()}
    results: dict[str, list[int]] = {name: [] for name in names}
    expected: dict[tuple[str, int], Frames | None] = {}
    for name, config in made.items():
        fresh = LocalPipeline(config, ENGINE)
        expected[name, OURS] = await frames(fresh, OURS)
        await fresh.aclose()
    again = {caller for caller in range(1, SESSIONS) if caller % (SESSIONS // AGAIN) == 0}
    for number in range(1, SESSIONS, 2):  # sessions `number` and `number + 1`, side by side
        for name, pipeline in used.items():
            if number in (1, SESSIONS - 1):
                for ours in (OURS,) if number > 1 else (OURS, OURS):
                    results[name].append(apart(await frames(pipeline, ours), expected[name, OURS]))
            callers = (number, number + 1)
            seen = await asyncio.gather(*(frames(pipeline, caller, leaves=caller % 10 == 7) for caller in callers))
            expected |= {(name, caller): made for caller, made in zip(callers, seen, strict=True) if caller in again}
    same = True
    for name, pipeline in used.items():
        fresh = LocalPipeline(made[name], ENGINE)
        others = sum([apart(await frames(fresh, caller), expected[name, caller]) > 0 for caller in sorted(again)])
        first, second, last = results[name]
        print(f"{name:<15}{first:>10}{second:>10}{last:>12}{others:>10}", flush=True)
        same = same and not any((first, second, last, others))
        for each in (fresh, pipeline):
            await each.aclose()
    return same


def main() -> int:
    """Print the table; 1 if any frames differ."""
    torch.set_num_threads(1)
    began = time.monotonic()
    names = sys.argv[1:] or sorted(tiny_checkpoints())
    print(f"{'family':<15}{'first':>10}{'second':>10}{'hundredth':>12}{'others':>10}")
    with tempfile.TemporaryDirectory(prefix="headrace-parity-") as folder:
        for name in names:
            make_tiny(name, Path(folder) / name)
        same = asyncio.run(compare(Path(folder), names))
    print(f"{SESSIONS} sessions a family in {time.monotonic() - began:.0f} s")
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
