"""A session inside one denoise replica: where it stands."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from model_core.config import ModelConfig
from model_core.engine.step_scheduler import RowView
from model_core.errors import FieldViolation, InvalidRequest
from model_core.families.interface import Leg, Sampler
from model_core.types import LatentChunk, Latents, SessionContext, StageTiming


def check(config: ModelConfig, sampler: Sampler, context: SessionContext) -> None:
    """Refuse what the graphs have no shape for. A replica must not die of a context, or reopening would carry it to the next one.

    Raises:
        InvalidRequest: naming each field, what it must be and what it is.
    """
    least = config.min_steps
    window, first = config.context_chunks, context.next_chunk - len(context.suffix)
    suffix = [latents.shape for latents in context.suffix]
    fitting = [config.latent_shape(first + i) for i in range(len(suffix))]
    given = context.given
    head = None if given is None or given.head is None else given.head.shape
    fitting_head = None if given is None or head is None else _head_shape(config, given.chunks(config.grid))
    strength = 1.0 if context.restyle is None else context.restyle.strength
    sink = [latents.shape for latents in context.sink]
    sinks = [config.latent_shape(i) for i in range(min(config.sink_chunks, max(0, first)))]
    rules: tuple[tuple[str, bool, str, object], ...] = (
        ("num_steps", least <= context.num_steps <= config.max_steps, f"from {least} to {config.max_steps}", context.num_steps),
        ("next_chunk", context.next_chunk >= 0, "0 or more", context.next_chunk),
        ("suffix", len(suffix) == min(window, max(0, context.next_chunk)), f"the last {window} chunks, or all", len(suffix)),
        ("suffix", suffix == fitting, f"latents of shapes {fitting}", suffix),
        ("given.head", head == fitting_head, f"latents of whole chunks, {fitting_head}", head),
        ("given", given is None or all(np.isfinite(array).all() for array in given.arrays()), "finite", "NaN or infinity"),
        ("suffix", all(np.isfinite(latents).all() for latents in context.suffix), "finite", "NaN or infinity"),
        ("restyle", context.restyle is None or config.restyles, f"unset for model {config.name}", "one"),
        ("restyle.strength", 0 < strength <= 1, "above 0 and at most 1", strength),
        ("sink", sink == sinks, f"latents of shapes {sinks}", sink),
        ("sink", all(np.isfinite(latents).all() for latents in context.sink), "finite", "NaN or infinity"),
    )
    broken = tuple(FieldViolation(f"context.{field}", f"must be {limit}; got {value}") for field, kept, limit, value in rules if not kept)
    if broken := (*broken, *sampler.violations(context)):
        raise InvalidRequest(broken)


def _head_shape(config: ModelConfig, chunks: int) -> tuple[int, ...]:
    """At least one chunk."""
    channels, height, width = config.latent_size
    return channels, sum(config.grid.latents(chunk) for chunk in range(max(1, chunks))), height, width


def given_chunks(context: SessionContext, config: ModelConfig) -> Iterator[tuple[LatentChunk, SessionContext]]:
    """The chunks from `context.next_chunk` on that were given and need no denoising, each with the context after it."""
    given, grid, window = context.given, config.grid, config.context_chunks
    if given is None:
        return
    end = context.end_chunk(grid)
    for index in range(context.next_chunk, given.chunks(grid) if end is None else min(end, given.chunks(grid))):
        latents = given.chunk(grid, index)
        seconds = grid.frames(index) / config.fps
        suffix = (*context.suffix, latents)
        context = replace(
            context, next_chunk=index + 1, suffix=suffix[max(0, len(suffix) - window) :],
            due_s=None if context.due_s is None else context.due_s + seconds,
        )  # fmt: skip
        yield LatentChunk(index, latents, (StageTiming("denoiser", 0.0, 0.0, 0.0, left_at=time.time()),)), context


@dataclass(slots=True, eq=False)
class SourceQueue:
    """What has come of the source of a restyled session and is not begun. Who feeds it bounds it, on the engine's thread.

    Attributes:
        strength: see `Restyle`.
        chunks: latents by chunk.
        end: one past the source's last chunk, once that is known.
    """

    strength: float
    chunks: dict[int, Latents] = field(default_factory=dict)
    end: int | None = None


@dataclass(slots=True, eq=False)
class EngineSession:
    """Mutable state of one open leg; the engine's thread owns it.

    Attributes:
        leg: the sampler's state of it.
        forwards: looks at the network that a chunk takes; see `ModelConfig.forwards`.
        end_chunk: one past the last chunk; None for an endless stream.
        chunk_index: the chunk being made.
        step_index: of those, how many are done.
        ready_since: when the current chunk could first have been worked on.
        waiting_chunks: finished chunks not yet taken.
        opened_at, chunk_s: the deadline of chunk k of a live session is `opened_at + due_s + (k - next_chunk) * chunk_s`, and `excused_s`
            later. `opened_at` is when the leg was asked for: what it waited since then is no fault of its own.
        excused_s: how much its reader has put off by taking nothing.
        patience_s: the deadline of a job's chunk is so much later than it could have been started.
        last_turn: see `RowView`.
        source: of a session that restyles one.
        begun: whether the current chunk has what it begins as; a restyled one waits for its source.
        service_s, device_s: see `StageTiming`.
        steps_at: when each step of the current chunk was done.
    """

    context: SessionContext
    slot: int
    leg: Leg
    forwards: int
    end_chunk: int | None
    opened_at: float
    chunk_s: float
    patience_s: float
    chunk_index: int = 0
    step_index: int = 0
    ready_since: float = 0.0
    waiting_chunks: int = 0
    last_turn: int = -1
    excused_s: float = 0.0
    service_s: float = 0.0
    device_s: float = 0.0
    steps_at: list[float] = field(default_factory=list)
    source: SourceQueue | None = None
    begun: bool = False

    @property
    def finished(self) -> bool:
        return self._is_past(self.end_chunk) or (self.source is not None and self._is_past(self.source.end))

    def _is_past(self, end: int | None) -> bool:
        return end is not None and self.chunk_index >= end

    def ends_after(self, chunk: int) -> bool:
        """No chunk comes after `chunk`, as far as is known."""
        return chunk + 1 in (self.end_chunk, None if self.source is None else self.source.end)

    @property
    def fed(self) -> bool:
        """The source of the current chunk has come, and the chunk has not begun."""
        return self.source is not None and not self.begun and self.chunk_index in self.source.chunks

    def view(self, group: Hashable = None) -> RowView:
        """What the step scheduler may know."""
        idle = self.finished or not self.begun
        return RowView(self.slot, self.due, self.forwards - self.step_index, self.waiting_chunks, self.last_turn, idle, group)

    @property
    def due(self) -> float:
        """When the current chunk is due."""
        if self.context.due_s is None:
            return self.ready_since + self.patience_s
        return self.opened_at + self.context.due_s + (self.chunk_index - self.context.next_chunk) * self.chunk_s + self.excused_s

    def taken(self, max_lead_chunks: int, now: float) -> None:
        """The reader took one finished chunk. If that had held the session up, it may go on.

        Then the current chunk is due no earlier than those that wait have been played: a reader who comes back late is not ahead of others.
        """
        if self.waiting_chunks == max_lead_chunks and self.step_index == 0:
            self.ready_since = now
            if self.context.due_s is not None:
                self.excused_s += max(0.0, now + (max_lead_chunks - 1) * self.chunk_s - self.due)
        self.waiting_chunks -= 1

    def waited_for_source(self, now: float) -> None:
        """Its current chunk can be worked on from `now` on. It is due no earlier than if the source had come in time."""
        self.ready_since = now
        if self.context.due_s is not None:
            self.excused_s += max(0.0, now + self.chunk_s - self.due)

    def charge(self, seconds: float, rows: int) -> None:
        """Account for a forward shared by `rows` sessions."""
        self.service_s += seconds
        self.device_s += seconds / rows

    def timing(self, now: float) -> StageTiming:
        """Where the time of the chunk that ends now went."""
        queue_s = max(0.0, now - self.ready_since - self.service_s)
        steps_s = tuple(now - at for at in self.steps_at)
        return StageTiming("denoiser", queue_s, self.service_s, self.device_s, left_at=time.time(), steps_s=steps_s)

    def start_chunk(self, index: int, now: float) -> None:
        """Begin at its first step."""
        self.chunk_index, self.step_index, self.begun = index, 0, False
        self.ready_since, self.service_s, self.device_s = now, 0.0, 0.0
        self.steps_at = []
