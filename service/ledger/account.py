"""Cuts what a session uses into rows. Pure but for the ledger that takes them.

A row covers the chunks that begin within one interval of media time. It is known by its first frame, so that whoever sends those frames
again, on whatever connection, writes the same row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from model_core.enhancement import AS_RENDERED, Enhancement
from model_core.types import FrameChunk
from service.events import Usage
from service.ledger.interface import Kind, Ledger, UsageRow

INTERVAL_S = 60.0
# Chunks that can be taken off a row exactly. A session's log reaches a few seconds back; what is beyond that is taken off in proportion.
_RECENT_CHUNKS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Billed:
    """What all rows of one session, or of one job, have in common; see `UsageRow`."""

    source: str
    tenant: str
    door: str
    model: str
    tier: str
    kind: Kind


def whole(billed: Billed, usage: Usage, started_at: float) -> UsageRow:
    """The only row of what is billed as a whole: a file, or a job. A part of it is of no use, so a failed one is billed nothing."""
    return UsageRow(
        source=billed.source, tenant=billed.tenant, door=billed.door, model=billed.model, tier=billed.tier, kind=billed.kind,
        started_at=started_at, frames=usage.frames, video_seconds=usage.video_s, pixels=usage.pixels, steps=usage.steps,
        text_seconds=usage.text_s, denoise_seconds=usage.denoise_s, decode_seconds=usage.decode_s,
    )  # fmt: skip


def cut(row: UsageRow, end: int) -> UsageRow:
    """`row` without its frames from `end` on. They take their share of everything else along."""
    frames = max(0, min(row.frames, end - row.interval))
    if frames == row.frames:
        return row
    share = frames / row.frames
    return replace(
        row,
        frames=frames,
        video_seconds=row.video_seconds * share,
        pixels=row.pixels // row.frames * frames,
        steps=round(row.steps * share),
        text_seconds=row.text_seconds if frames else 0.0,
        denoise_seconds=row.denoise_seconds * share,
        decode_seconds=row.decode_seconds * share,
    )


@dataclass(frozen=True, slots=True)
class _Chunk:
    """What one chunk adds to its row."""

    row: _Row
    first_frame: int
    frames: int
    steps: int
    denoise_s: float
    decode_s: float


@dataclass(slots=True, eq=False)
class _Row:
    """A row that grows. It covers `frames` frames from `first_frame` on."""

    first_frame: int
    started_at: float
    text_s: float = 0.0
    frames: int = 0
    steps: int = 0
    denoise_s: float = 0.0
    decode_s: float = 0.0

    @property
    def end(self) -> int:
        return self.first_frame + self.frames

    def add(self, chunk: _Chunk, sign: int) -> None:
        self.frames += sign * chunk.frames
        self.steps += sign * chunk.steps
        self.denoise_s = max(0.0, self.denoise_s + sign * chunk.denoise_s)
        self.decode_s = max(0.0, self.decode_s + sign * chunk.decode_s)


class SessionAccount:
    """What one connection of a session uses. The task that serves the session owns it.

    Args:
        ledger: takes the rows.
        billed: whose session it is.
        fps: media rate.
        leg: see `UsageRow`.
        wall: Unix time.
        resumed_at: the frame that a resumed session goes on with; None for a new session.
        text_seconds: device time of the first prompt and of the upload; 0 where an earlier connection had it.
        interval_s: media time of a row.
        enhance: what is done to frames. They are counted as they are sent; pixels are billed as they are rendered.
    """

    def __init__(
        self,
        ledger: Ledger,
        billed: Billed,
        fps: int,
        wall: Callable[[], float],
        *,
        resumed_at: int | None = None,
        text_seconds: float = 0.0,
        interval_s: float = INTERVAL_S,
        enhance: Enhancement = AS_RENDERED,
    ) -> None:
        self._ledger = ledger
        self._billed = billed
        self._fps = fps
        self._wall = wall
        self._leg = wall()
        self._interval = max(1, round(interval_s * fps))
        self._text_s = text_seconds
        self._resumed_at = resumed_at
        self._frame_pixels = 0
        self._enhance = enhance
        self._rows: list[_Row] = []  # the last one grows; those before it may be cut
        self._recent: deque[_Chunk] = deque(maxlen=_RECENT_CHUNKS)
        if resumed_at is not None:
            ledger.resumed(billed.source, resumed_at, self._leg)

    def sent(self, chunk: FrameChunk) -> None:
        """The caller has taken `chunk`."""
        self._frame_pixels = chunk.height * chunk.width // self._enhance.size**2
        row = self._rows[-1] if self._rows else None
        if row is None or chunk.first_frame >= (row.first_frame // self._interval + 1) * self._interval:
            row = self._begin(chunk.first_frame)
        steps, denoise_s, decode_s = 0, 0.0, 0.0
        for timing in chunk.timings:
            if timing.stage == "denoiser":
                steps, denoise_s = steps + len(timing.steps_s), denoise_s + timing.device_s
            elif timing.stage == "decoder":
                decode_s += timing.device_s
        part = _Chunk(row, chunk.first_frame, chunk.num_frames, steps, denoise_s, decode_s)
        row.add(part, +1)
        self._recent.append(part)
        self._record(row)

    def superseded(self, frame: int) -> None:
        """Frames from `frame` on come again."""
        touched: list[_Row] = []
        while self._recent and self._recent[-1].first_frame >= frame:
            part = self._recent.pop()
            part.row.add(part, -1)
            touched.append(part.row)
        for row in self._rows:
            if row in touched or row.end > frame:
                self._record(row, frame)
        self._rows = [row for row in self._rows if row.first_frame < frame]
        if self._resumed_at is not None and frame < self._resumed_at:
            self._resumed_at = frame
            self._ledger.resumed(self._billed.source, frame, self._leg)

    def _begin(self, frame: int) -> _Row:
        row = _Row(frame, self._wall(), self._text_s)
        self._text_s = 0.0
        reach = self._recent[0].first_frame if self._recent else 0
        self._rows = [*(earlier for earlier in self._rows if earlier.end > reach), row]
        return row

    def _record(self, row: _Row, end: int | None = None) -> None:
        billed, rendered = self._billed, -(-row.frames // self._enhance.frames)
        made = UsageRow(
            source=billed.source, interval=row.first_frame, tenant=billed.tenant, door=billed.door, model=billed.model, tier=billed.tier,
            kind=billed.kind, leg=self._leg, started_at=row.started_at, frames=row.frames, video_seconds=row.frames / self._fps,
            pixels=rendered * self._frame_pixels, steps=row.steps, text_seconds=row.text_s, denoise_seconds=row.denoise_s,
            decode_seconds=row.decode_s,
        )  # fmt: skip
        if end is not None and row.end > end:
            made = cut(made, end)
            row.frames, row.steps, row.denoise_s, row.decode_s = made.frames, made.steps, made.denoise_seconds, made.decode_seconds
        self._ledger.record(made)
