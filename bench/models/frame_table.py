"""A digest of the frames of many sessions, to compare two versions of the code on one machine: `python -m bench.models.frame_table`.

    python -m bench.models.frame_table --write before.json      in the old checkout
    python -m bench.models.frame_table --against before.json    in the new one: exits 1 if a session has other frames, or is missing

The sessions: the embedded model, and a tiny checkpoint of every family; a text, an image and a video where the model takes them; two seeds;
a prompt switch, once behind what was handed out and once from an earlier frame; a resume from the stored bytes of its record, in a fresh
pipeline; guidance and a negative prompt. Digests depend on the processor and on the libraries, so a file is good on one machine only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model_core.config import EngineConfig, ModelConfig
from model_core.families.checkpoints.checkpoint import Checkpoint
from model_core.families.described import Choice, describe
from model_core.families.registry import tiny_checkpoints
from model_core.families.tiny import make_tiny
from model_core.local import LocalPipeline
from model_core.media import FrameHash
from model_core.pipeline import PromptApplied, SessionRequest
from model_core.presets import DEFAULT_MODEL, model_config
from model_core.session import Session
from model_core.session_log import SessionRecord
from model_core.types import Footage, FrameChunk

ENGINE = EngineConfig(slots=4, batch_buckets=(1, 2, 4))
CHUNKS, BEFORE = 5, 2  # in a session without an end of its own; those that the viewer has when something happens to it

Case = Callable[[ModelConfig], Coroutine[Any, Any, str]]


def tiny(name: str, folder: Path) -> ModelConfig:
    small, where = tiny_checkpoints()[name], Checkpoint(folder=str(folder))
    return describe(Choice(checkpoint=where, height=small.height, width=small.width, frames=small.frames, steps=3))


def footage(config: ModelConfig, frames: int) -> Footage:
    return Footage(np.random.default_rng(3).integers(0, 256, (frames, config.height, config.width, 3), np.uint8))


def request(config: ModelConfig, *, seed: int = 7, shown: int = 0) -> SessionRequest:
    chunks = CHUNKS if config.grid.chunks is None else config.grid.chunks
    given = footage(config, shown) if shown else footage(config, 1) if config.needs_media else None
    return SessionRequest(
        "session", "a red circle moves left over a blue background", seed, config.num_steps, config.grid.first_frame(chunks), footage=given
    )


@asynccontextmanager
async def fresh(config: ModelConfig) -> AsyncIterator[LocalPipeline]:
    pipeline = LocalPipeline(config, ENGINE)
    try:
        yield pipeline
    finally:
        await pipeline.aclose()


async def watched(session: Session, digest: FrameHash, chunks: int | None = None) -> None:
    """Add what the viewer gets, up to `chunks`, and the frames at which prompts took effect."""
    async with aclosing(session.events()) as events:
        async for event in events:
            if isinstance(event, PromptApplied):
                digest.update(f"{event.prompt} {event.first_frame} {event.superseded}".encode())
            if isinstance(event, FrameChunk):
                digest.update(event.pixels())
                chunks = None if chunks is None else chunks - 1
                if chunks == 0:
                    return


async def undisturbed(config: ModelConfig, asked: Callable[[ModelConfig], SessionRequest]) -> str:
    digest = FrameHash()
    async with fresh(config) as pipeline:
        await watched(await pipeline.pipeline.open(asked(config)), digest)
    return digest.hexdigest()


async def switched(config: ModelConfig, *, back: int) -> str:
    """The prompt changes when the viewer has two chunks, while the session pauses: so it takes effect at the same frame in every run."""
    digest, left = FrameHash(), BEFORE
    async with fresh(config) as pipeline:
        session = await pipeline.pipeline.open(request(config))
        async with aclosing(session.events()) as events:
            async for event in events:
                if isinstance(event, PromptApplied):
                    digest.update(f"{event.prompt} {event.first_frame} {event.superseded}".encode())
                if isinstance(event, FrameChunk):
                    digest.update(event.pixels())
                    left -= 1
                    if left == 0:
                        session.pause()
                        from_frame = config.grid.first_frame(BEFORE - back) if back else None
                        await session.set_prompt("a green square moves down over a white background", 1, from_frame)
                        session.resume()
    return digest.hexdigest()


async def resumed(config: ModelConfig) -> str:
    """From the record that a store holds after two chunks, in another pipeline."""
    digest = FrameHash()
    async with fresh(config) as pipeline:
        session = await pipeline.pipeline.open(request(config))
        await watched(session, digest, BEFORE)
        stored, next_frame = session.record().to_bytes(), session.next_frame
    async with fresh(config) as pipeline:
        await watched(await pipeline.pipeline.restore(SessionRecord.from_bytes(stored), next_frame), digest)
    return digest.hexdigest()


def led(config: ModelConfig) -> SessionRequest:
    return replace(request(config), guidance=min(3.0, config.max_guidance), negative_prompt="blurred")


def cases(config: ModelConfig) -> dict[str, Case]:
    """Those that the model can show."""
    found: dict[str, Case] = {f"seed {seed}": partial(undisturbed, asked=partial(request, seed=seed)) for seed in (7, 8)}
    for kind, frames in (("image", 1), ("video", config.grid.first_frame(2))):
        if kind in config.media:
            found[kind] = partial(undisturbed, asked=partial(request, shown=frames))
    if config.max_guidance > 1:
        found["guidance"] = partial(undisturbed, asked=led)
    if config.grid.chunks is None or config.grid.chunks > BEFORE:
        found |= {"switch": partial(switched, back=0), "switch back": partial(switched, back=1), "resume": resumed}
    return found


def digests(names: list[str]) -> dict[str, str]:
    """By "model, case"; printed as they come."""
    torch.set_num_threads(1)
    made: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="headrace-frames-") as folder:
        for name in names:
            if name == DEFAULT_MODEL:
                config: ModelConfig = model_config(name)
            else:
                make_tiny(name, Path(folder) / name)
                config = tiny(name, Path(folder) / name)
            for case, run in cases(config).items():
                made[f"{name}, {case}"] = asyncio.run(run(config))
                print(f"{name:<16}{case:<12}{made[f'{name}, {case}']}", flush=True)
    return made


def main() -> int:
    """Print the table; 1 if it differs from that of `--against`."""
    parser = argparse.ArgumentParser(description="digests of the frames of many sessions")
    parser.add_argument("models", nargs="*", help=f"of: {', '.join([DEFAULT_MODEL, *sorted(tiny_checkpoints())])}; all, if left out")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the digests as JSON")
    parser.add_argument("--against", type=Path, metavar="FILE", help="compare with such a file")
    options = parser.parse_args()
    made = digests(options.models or [DEFAULT_MODEL, *sorted(tiny_checkpoints())])
    if options.write:
        options.write.write_text(json.dumps(made, indent=1) + "\n", "utf-8")
    if not options.against:
        return 0
    expected = json.loads(options.against.read_text("utf-8"))
    if options.models:
        expected = {key: value for key, value in expected.items() if key.split(",")[0] in options.models}
    differ = sorted(key for key in expected.keys() | made.keys() if expected.get(key) != made.get(key))
    for key in differ:
        print(f"differs: {key}: {expected.get(key)} before, {made.get(key)} now")
    print(f"{len(expected)} sessions before, {len(made)} now, {len(differ)} differ")
    return int(bool(differ))


if __name__ == "__main__":
    sys.exit(main())
