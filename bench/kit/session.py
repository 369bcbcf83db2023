"""What every peer holds: the whole pipeline in its own process, and one session of it. No server knows of another.

This is the strongest form that a peer can take: our engine, with its batching of sessions, works inside it, and its sessions are paced as
ours are. What a comparison then shows is the serving layer alone.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from bench.kit import framing
from model_core.local import LocalPipeline
from model_core.pipeline import SessionRequest
from model_core.types import FrameChunk, StageTiming
from service.clock import MonotonicClock
from service.sessions.pacing import MediaTimeline, Pacer


@dataclass(frozen=True, slots=True)
class Ask:
    """One caller's wish; `lead_s` 0 is unpaced."""

    prompt: str
    seed: int
    seconds: float
    lead_s: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        return cls(str(body["prompt"]), int(body["seed"]), float(body["seconds"]), float(body["lead_s"]))

    def frames(self, fps: int) -> int:
        return max(1, round(self.seconds * fps))


async def chunks(pipeline: LocalPipeline, ask: Ask) -> AsyncGenerator[FrameChunk, None]:
    """The session's chunks, paced as asked; the first carries what its prompt took, too."""
    config = pipeline.config
    pacer = Pacer(MediaTimeline(config.fps, ask.lead_s), MonotonicClock(), config.chunk_seconds)
    before = pipeline.encoder.statistics().service_s
    request = SessionRequest(secrets.token_hex(8), ask.prompt, ask.seed, config.num_steps, ask.frames(config.fps))
    session = await pipeline.pipeline.open(request)
    encoding_s = pipeline.encoder.statistics().service_s - before
    async with aclosing(session.events(pacer if ask.lead_s else None)) as events:
        async for event in events:
            if isinstance(event, FrameChunk):
                if event.first_frame == 0:
                    encoded = StageTiming("text_encoder", 0.0, encoding_s, encoding_s)
                    event = replace(event, timings=(encoded, *event.timings))  # noqa: PLW2901 - the same chunk, with more said of it
                yield event
                pacer.sent(event.first_frame)


async def framed(pipeline: LocalPipeline, ask: Ask) -> AsyncGenerator[bytes, None]:
    """The same as bytes."""
    async with aclosing(chunks(pipeline, ask)) as made:
        async for chunk in made:
            yield framing.pack(chunk.first_frame, chunk.data, sum(timing.service_s for timing in chunk.timings))
