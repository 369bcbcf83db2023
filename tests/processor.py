"""Two sessions of a small model with random weights, in whatever instruction set the process has: to be run in processes of their own.

python -m tests.processor RECORD OUT    one from its beginning, one from a record; what they made goes into OUT
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model_core.config import EngineConfig, MillraceConfig, VAEConfig
from model_core.families.millrace.parts import MillracePainter, MillraceSampler
from model_core.nn.vae import VAE
from model_core.pipeline import Session, SessionRequest, VideoPipeline
from model_core.session_log import SessionRecord
from model_core.stages.decoder import LocalDecoder
from model_core.stages.denoiser import LocalDenoiser
from model_core.types import Conditioning, Footage, FrameChunk, TextEmbedding
from tests.models import random_dit, random_embedding, small_config

CHUNKS = 6
# What decides on kernels: PyTorch's own, oneDNN's, and those of MKL, which makes no difference where it does not know the processor.
PORTABLE = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}


def config() -> MillraceConfig:
    small = small_config()
    return replace(small, vae=VAEConfig(latent_channels=small.dit.latent_channels, encoder_width=12, decoder_width=24, decoder_blocks=1))


class Encoder:
    async def encode(self, prompt: str, numerics: str = "") -> TextEmbedding:
        return random_embedding(prompt, config())

    async def condition(self, footage: Footage) -> Conditioning:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Made:
    """Of consecutive chunks: latents, frames, and (denoiser's, decoder's) numerics of the last one."""

    latents: NDArray[np.float32]
    frames: NDArray[np.uint8]
    numerics: tuple[str, str]

    def saved(self, name: str) -> dict[str, NDArray[np.generic]]:
        return {f"{name}_latents": self.latents, f"{name}_frames": self.frames, f"{name}_numerics": np.array(self.numerics)}

    @classmethod
    def read(cls, arrays: Mapping[str, NDArray[np.generic]], name: str) -> Made:
        denoiser, decoder = (str(digest) for digest in arrays[f"{name}_numerics"])
        latents, frames = arrays[f"{name}_latents"], arrays[f"{name}_frames"]
        return cls(latents.astype(np.float32), frames.astype(np.uint8), (denoiser, decoder))


class Replica:
    """All stages of the small model, to be closed in the loop that it was used in."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        model = config()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            vae = VAE(model.vae).eval().requires_grad_(requires_grad=False)
        self.denoiser = LocalDenoiser(MillraceSampler(random_dit(), model, (1, 2)), model, EngineConfig(slots=2, batch_buckets=(1, 2)))
        self.decoder = LocalDecoder(MillracePainter(vae, model), model, self.denoiser)
        self.pipeline = VideoPipeline(model, Encoder(), self.decoder)

    async def open(self) -> Session:
        return await self.pipeline.open(SessionRequest("s", "a red circle", 3, 2, CHUNKS * config().frames_per_chunk))

    async def aclose(self) -> None:
        await self.decoder.aclose()
        await self.denoiser.aclose()


async def played(session: Session, chunks: int = CHUNKS) -> Made:
    """At most so many chunks of a session."""
    made: list[FrameChunk] = []
    async with aclosing(session.events()) as events:
        async for event in events:
            made += [event] if isinstance(event, FrameChunk) else []
            if len(made) == chunks:
                break
    numerics = made[-1].numerics
    frames, latents = np.concatenate([chunk.pixels() for chunk in made]), np.stack([chunk.latents for chunk in made])
    return Made(latents, frames, (numerics.denoiser, numerics.decoder))


async def both(record: SessionRecord) -> tuple[Made, Made]:
    """A session from its beginning, and the rest of that of `record`."""
    replica = Replica()
    try:
        whole = await played(await replica.open())
        first = config().grid.first_frame(record.next_chunk)
        return whole, await played(await replica.pipeline.restore(record, first))
    finally:
        await replica.aclose()


def main() -> None:
    record, out = map(Path, sys.argv[1:])
    whole, rest = asyncio.run(both(SessionRecord.from_bytes(record.read_bytes())))
    arrays: dict[str, NDArray[np.generic]] = whole.saved("whole") | rest.saved("rest")
    arrays["capability"] = np.array([torch.backends.cpu.get_cpu_capability(), os.environ.get("ATEN_CPU_CAPABILITY", "")])
    np.savez(out, allow_pickle=False, **arrays)


if __name__ == "__main__":
    main()
