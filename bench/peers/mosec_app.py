"""The three stages in mosec: a worker class a stage, batched, the last one an `SSEWorker`, as its documentation shows.

A mosec stage answers once a request, so the denoiser hands over the whole clip, and only the decoder streams: a chunk at a time, once
everything has been denoised. Such a session can neither be paced nor go on for ever.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import torch
from mosec import Server, SSEWorker, Worker

from bench.kit import framing
from bench.kit.session import Ask
from model_core import local
from model_core.config import EngineConfig
from model_core.presets import model_config
from model_core.types import FrameChunk, LatentChunk, SessionContext, TextEmbedding

BATCH = 8
WAIT_MS = 5
TIMEOUT_MS = 600_000


@dataclass(frozen=True, slots=True)
class Prompted:
    ask: Ask
    embedding: TextEmbedding


@dataclass(frozen=True, slots=True)
class Denoised:
    context: SessionContext
    chunks: tuple[LatentChunk, ...]


class Encode(Worker):
    def __init__(self) -> None:
        super().__init__()
        torch.set_num_threads(1)
        self._encoder = local.build_text_encoder(model_config(""))

    def deserialize(self, data: bytes) -> Ask:
        return Ask.from_json(json.loads(data))

    def forward(self, data: Ask) -> Prompted:
        return Prompted(data, asyncio.run(self._encoder.encode(data.prompt)))


class Denoise(Worker):
    def __init__(self) -> None:
        super().__init__()
        torch.set_num_threads(1)
        self._config = model_config("")
        self._denoiser = local.build_denoiser(self._config, EngineConfig())

    def forward(self, data: Sequence[Prompted]) -> list[Denoised]:
        return asyncio.run(self._all(data))

    async def _all(self, batch: Sequence[Prompted]) -> list[Denoised]:
        return list(await asyncio.gather(*(self._clip(prompted) for prompted in batch)))

    async def _clip(self, prompted: Prompted) -> Denoised:
        a, config = prompted.ask, self._config
        context = SessionContext(f"seed {a.seed}", a.seed, config.num_steps, prompted.embedding, num_frames=a.frames(config.fps))
        async with aclosing(self._denoiser.stream(context)) as chunks:
            return Denoised(context, tuple([chunk async for chunk in chunks]))


class _Made:
    """A `Denoiser` whose chunks are there already."""

    def __init__(self) -> None:
        self.clips: dict[str, tuple[LatentChunk, ...]] = {}

    async def stream(self, context: SessionContext) -> AsyncGenerator[LatentChunk, None]:
        for chunk in self.clips.pop(context.session_id):
            yield chunk


class Decode(SSEWorker):
    def __init__(self) -> None:
        super().__init__()
        torch.set_num_threads(1)
        self._made = _Made()
        self._decoder = local.build_decoder(model_config(""), self._made)

    def forward(self, data: Sequence[Denoised]) -> list[Any]:
        asyncio.run(self._all(data))
        return [""] * len(data)

    async def _all(self, batch: Sequence[Denoised]) -> None:
        await asyncio.gather(*(self._clip(index, clip) for index, clip in enumerate(batch)))

    async def _clip(self, index: int, clip: Denoised) -> None:
        context = SessionContext(
            f"{index}", clip.context.seed, clip.context.num_steps, clip.context.embedding, num_frames=clip.context.num_frames
        )
        self._made.clips[context.session_id] = clip.chunks
        async with aclosing(self._decoder.stream(context)) as chunks:
            async for chunk in chunks:
                await asyncio.to_thread(self.send_stream_event, _text(chunk), index)


def _text(chunk: FrameChunk) -> str:
    packed = framing.pack(chunk.first_frame, chunk.data, sum(timing.service_s for timing in chunk.timings))
    return base64.b64encode(packed).decode()


def main() -> None:
    server = Server()
    server.append_worker(Encode, num=1)
    server.append_worker(Denoise, num=int(os.environ.get("BENCH_REPLICAS", "1")), max_batch_size=BATCH, max_wait_time=WAIT_MS)
    server.append_worker(Decode, num=int(os.environ.get("BENCH_REPLICAS", "1")), max_batch_size=BATCH, max_wait_time=WAIT_MS)
    server.run()


if __name__ == "__main__":
    main()
