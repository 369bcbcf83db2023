"""Viewers that remember every frame they got and when, and what an undisturbed session would have shown them.

The reference is made in this process by the same pipeline, from the same model, seed and prompt timeline.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import torch

from deployments.config.application import AppConfig
from headrace.client import HeadraceClient, Reconnect
from headrace.playout import PlayoutClock
from headrace.v1 import video_pb2 as pb
from model_core import local
from model_core.config import EngineConfig, MillraceConfig
from model_core.pipeline import SessionRequest, VideoPipeline
from model_core.types import FrameChunk

COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "white", "cyan")
SHAPES = ("circle", "square", "triangle", "star")
WAYS = ("left", "right", "up", "down")


@dataclass(frozen=True, slots=True)
class Programme:
    """What one viewer asks for. `switch_every` chunks the prompt changes; 0: never."""

    seed: int
    steps: int
    chunks: int
    lead_s: float
    switch_every: int = 0

    def prompts(self) -> itertools.count[int]:
        return itertools.count(self.seed * 1000)


def prompt(number: int) -> str:
    """A prompt of its own for each number."""
    colour, shape, way = COLOURS[number % 8], SHAPES[number // 8 % 4], WAYS[number // 32 % 4]
    return f"a large {colour} {shape} moving {way} on a navy background, take {number}"


def digest(frame: bytes) -> bytes:
    return hashlib.sha256(frame).digest()[:12]


@dataclass
class Seen:
    """One viewer's record: frames as (index, digest), the arrival of each chunk, and prompts with the frame they came in force.

    `late_s`: how long the worst frame came after it was due on the screen of one that plays from the first frame's arrival on.
    """

    programme: Programme
    frames: list[tuple[int, bytes]] = field(default_factory=list)
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    timeline: list[tuple[int, str]] = field(default_factory=list)
    late_s: float = 0.0
    error: str = ""

    def supersede(self, first_frame: int) -> None:
        """What arrived, or was told, for `first_frame` and later is replaced."""
        self.frames = [(index, data) for index, data in self.frames if index < first_frame]
        self.timeline = [(index, text) for index, text in self.timeline if index < first_frame]

    def add(self, chunk: pb.Frames, now: float) -> None:
        self.arrivals.append((now, chunk.first_frame))
        self.frames += [(chunk.first_frame + n, digest(data)) for n, data in enumerate(chunk.data)]

    def gap(self, since: float, chunk_s: float) -> float:
        """The longest wait for a chunk that came after `since`, beyond the paced interval, in seconds."""
        waits = [b - a - chunk_s for (a, _), (b, _) in itertools.pairwise(self.arrivals) if b >= since]
        return max(0.0, *waits, 0.0)


async def watch(client: HeadraceClient, programme: Programme, config: MillraceConfig, seen: Seen, clock: Callable[[], float]) -> None:
    """Play a Live session to its end, recording it in `seen`."""
    numbers = programme.prompts()
    first = prompt(next(numbers))
    seen.timeline.append((0, first))
    seconds = config.grid.first_frame(programme.chunks) / config.fps
    playout, furthest = PlayoutClock(clock), -1
    live = client.live(
        first,
        seconds=seconds,
        seed=programme.seed,
        steps=programme.steps,
        codec=pb.CODEC_RAW_RGB,
        max_lead_s=programme.lead_s,
        reconnect=Reconnect(),
        replaceable=playout.replaceable,
    )
    async with live as session:
        async for event in session:
            if isinstance(event, pb.Frames):
                seen.add(event, clock())
                playout.arrived(event.first_frame, event.frame_count, config.fps)
                seen.late_s = playout.stats().max_late_s
                again, furthest = event.chunk_index <= furthest, max(furthest, event.chunk_index)
                last = event.chunk_index >= programme.chunks - 2
                turn = programme.switch_every and event.chunk_index % programme.switch_every == programme.switch_every - 1
                if turn and not last and not again:
                    await session.set_prompt(prompt(next(numbers)))
            elif isinstance(event, pb.PromptAck):
                seen.supersede(event.first_frame)
                playout.superseded(event.first_frame)
                seen.timeline.append((event.first_frame, event.prompt))


class Reference:
    """Undisturbed sessions, made here; those without prompt changes are made once."""

    def __init__(self, pipeline: VideoPipeline) -> None:
        self.pipeline = pipeline
        self._made: dict[tuple[int, int, tuple[tuple[int, str], ...]], list[bytes]] = {}

    async def frames(self, seen: Seen, total: int) -> list[bytes]:
        """Digests of the frames that `seen` should have: `total` of them."""
        key = (seen.programme.seed, seen.programme.steps, tuple(seen.timeline))
        made = self._made.get(key)
        if made is None or len(made) < total:
            made = self._made[key] = await self._make(seen, total)
        return made[:total]

    async def _make(self, seen: Seen, total: int) -> list[bytes]:
        (_, first), *changes = seen.timeline
        session = await self.pipeline.open(SessionRequest("reference", first, seen.programme.seed, seen.programme.steps, total))
        made: list[bytes] = []
        async with aclosing(session.events()) as events:
            async for event in events:
                made += [digest(data) for data in event.data] if isinstance(event, FrameChunk) else []
                while changes and changes[0][0] <= len(made):
                    await session.set_prompt(changes.pop(0)[1])
        return made


@asynccontextmanager
async def reference(config: MillraceConfig) -> AsyncGenerator[Reference, None]:
    """Loads the model into this process meanwhile."""
    torch.set_num_threads(AppConfig().engine.threads)  # kernels may sum in another order with other threads
    encoder = local.build_text_encoder(config)
    denoiser = local.build_denoiser(config, EngineConfig())
    decoder = local.build_decoder(config, denoiser)
    try:
        yield Reference(VideoPipeline(config, encoder, decoder))
    finally:
        for stage in (encoder, decoder, denoiser):
            await stage.aclose()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Frames of all viewers together, against the reference."""

    lost: int
    duplicated: int
    differ: int


async def judge(viewers: Sequence[Seen], total: int, truth: Reference) -> Verdict:
    lost = duplicated = differ = 0
    for seen in viewers:
        expected = await truth.frames(seen, total)
        got = dict(seen.frames)
        lost += sum(index not in got for index in range(total))
        duplicated += len(seen.frames) - len(got)
        differ += sum(index < total and expected[index] != data for index, data in seen.frames)
    return Verdict(lost, duplicated, differ)
