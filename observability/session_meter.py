"""What one session's viewer feels, and what the session costs, into the front door's metrics, and into its trace if it has one.

Labels are looked up when the session begins, not when a chunk is sent. Times are the caller's clock's.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from model_core.types import FrameChunk, Numerics, StageTiming
from observability.context import exemplar
from observability.metrics import ModelSeries
from observability.session_trace import SessionTrace

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FirstFrame:
    """Where the time to the first frame went; the four parts sum to it, unless the clocks of two hosts disagree by more than the rest."""

    queue_s: float
    service_s: float
    transfer_s: float
    overhead_s: float


def first_frame(ttff_s: float, timings: Sequence[StageTiming]) -> FirstFrame:
    """The parts of `ttff_s`. The first chunk goes through the stages one after the other, so their times do not overlap.

    `timings` are those of all stages that worked for it between admission and the first frame.
    """
    queue_s, service_s, transfer_s = (sum(getattr(t, part) for t in timings) for part in ("queue_s", "service_s", "transfer_s"))
    return FirstFrame(queue_s, service_s, transfer_s, max(0.0, ttff_s - queue_s - service_s - transfer_s))


class SessionMeter:
    """One session's. Tell it what happened, in order.

    Args:
        metrics: where to count what its model's sessions do.
        tenant: one of a fixed set.
        door: the same.
        fps: media rate.
        paced: whether the session keeps up with playback; one that does not can neither be late nor stall.
        trace: None for a session that is not traced.
        numerics: of the chunk before its first one here.
    """

    def __init__(
        self,
        metrics: ModelSeries,
        tenant: str,
        fps: int,
        *,
        paced: bool,
        door: str = "grpc",
        trace: SessionTrace | None = None,
        numerics: Numerics = Numerics(),  # noqa: B008 - frozen
    ) -> None:
        self._metrics = metrics
        self._trace = trace
        self._fps = fps
        self._paced = paced
        self._video_s = metrics.video_seconds_total(tenant, door)
        self._pixels, self._steps = metrics.pixels_total(tenant, door), metrics.denoise_steps_total(tenant, door)
        self._device_s = {stage: metrics.accelerator_seconds_total(tenant, door, stage) for stage in metrics.stages}
        self._last: tuple[float, int] | None = None  # when the last chunk was sent, and its frames
        self._stalled_s = 0.0
        self._showed = False
        self._numerics = numerics

    def encoded(self, timing: StageTiming, since: float, now: float) -> None:
        """A prompt was embedded; it was asked for at `since`."""
        self._stage(timing)
        if self._trace is not None:
            self._trace.encoded(timing, since, now)

    def waited(self, since: float, now: float) -> None:
        """A slot is there, at once or after a time in line."""
        self._metrics.admission_wait_seconds.observe(now - since)
        if self._trace is not None and now > since:
            self._trace.waited(since, now)

    def started(self) -> None:
        """The caller was told so."""
        if self._trace is not None:
            self._trace.started()

    def first(self, ttff_s: float, timings: Sequence[StageTiming]) -> None:
        """The first frame of a new session was sent; `timings` as in `first_frame`."""
        parts, by_part = first_frame(ttff_s, timings), self._metrics.ttff_parts
        self._metrics.ttff_seconds.observe(ttff_s, exemplar())
        by_part["queue"].observe(parts.queue_s)
        by_part["service"].observe(parts.service_s)
        by_part["transfer"].observe(parts.transfer_s)
        by_part["overhead"].observe(parts.overhead_s)
        self._metrics.overhead_first_frame.observe(parts.transfer_s + parts.overhead_s)
        if self._trace is not None:
            self._trace.first(ttff_s)

    def resumed(self, seconds: float) -> None:
        """The first frame of a resumed session was sent."""
        self._metrics.resume_seconds.observe(seconds, exemplar())

    def switched(self, seconds: float) -> None:
        """The first frame under a new prompt was sent."""
        self._metrics.prompt_switch_seconds.observe(seconds, exemplar())
        if self._trace is not None:
            self._trace.switched(seconds)

    def sent(self, chunk: FrameChunk, arrived: float, now: float, lateness_s: float, waited_s: float = 0.0) -> None:
        """`chunk`, here since `arrived`, was sent. `lateness_s` is against deadlines that no stall has moved.

        `waited_s`: how much later the viewer took it than it was due, or ready; that is no gap of ours.
        """
        m = self._metrics
        if self._last is not None:
            before, frames = self._last
            gap_s = max(0.0, now - before - waited_s)
            m.interframe_gap_seconds.observe(gap_s)
            if self._paced:
                m.jitter_seconds.observe(abs(gap_s - frames / self._fps))
        self._last = now, chunk.num_frames
        if self._paced:
            self._showed = True
            m.chunk_lateness_seconds.observe(lateness_s, exemplar() if lateness_s > 0 else None)
            if (stall_s := lateness_s - self._stalled_s) > 0:
                self._stalled_s = lateness_s
                m.stall_seconds_total.inc(stall_s)
        self._count(chunk)
        m.overhead_chunk.observe(max(0.0, now - arrived - waited_s) + sum(timing.transfer_s for timing in chunk.timings))
        if self._trace is not None:
            self._trace.sent(chunk, arrived, now, lateness_s)

    def made(self, chunk: FrameChunk, now: float) -> None:
        """`chunk` is here, and goes into a file."""
        self._count(chunk)
        if self._trace is not None:
            self._trace.made(chunk, now, now)

    def degraded(self, level: int) -> None:
        """The chunk that was just sent was made at brown-out `level`."""
        self._metrics.degraded_chunks_total(str(level)).inc()

    def paused(self) -> None:
        """The time until the next chunk is nobody's gap."""
        self._last = None

    def ended(self) -> None:
        """No more frames."""
        if self._showed:
            self._metrics.sessions_played[self._stalled_s == 0].inc()

    def _count(self, chunk: FrameChunk) -> None:
        """Where the time of a chunk went, what it cost, its frames, and where other devices went on with it that round otherwise."""
        numerics = chunk.numerics.after(self._numerics)
        if numerics != self._numerics.after(numerics):
            log.info("from frame %d on the session is made by devices that round otherwise", chunk.first_frame)
        self._numerics = numerics
        m = self._metrics
        latency_s, steps = 0.0, 0
        for timing in chunk.timings:
            self._stage(timing)
            steps += len(timing.steps_s)
            latency_s += timing.queue_s + timing.service_s
        m.chunk_latency_seconds.observe(latency_s)
        m.frames[chunk.codec.value].inc(chunk.num_frames)
        self._video_s.inc(chunk.num_frames / self._fps)
        self._pixels.inc(chunk.num_frames * chunk.height * chunk.width)
        self._steps.inc(steps)

    def _stage(self, timing: StageTiming) -> None:
        series = self._metrics.stages[timing.stage]
        series.queue.observe(timing.queue_s)
        series.service.observe(timing.service_s)
        series.transfer.observe(timing.transfer_s)
        self._device_s[timing.stage].inc(timing.device_s)
