"""The spans of one call, built at the front door out of the timings that chunks carry; the stages make none, and their loops stay clean.

    headrace.v1.VideoService/<rpc>      the call; events: `started`, `prompt switched`
    ├─ wait       in line for a slot, where there was a line
    ├─ encode     the first prompt, with the way to the text encoder and back
    ├─ denoise    one chunk, from when it could be worked on; an event `step` where each step was done
    ├─ decode     the same chunk
    └─ send       from its arrival at the front door until gRPC has taken it

Moments that a stage tells are its host's wall clock, as exact between hosts as their clocks agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from opentelemetry import trace
from opentelemetry.trace import Span, Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from model_core.types import FrameChunk, StageTiming

WAIT, ENCODE, DENOISE, DECODE, ENHANCE, SEND = "wait", "encode", "denoise", "decode", "enhance", "send"
STARTED, STEP, SWITCHED = "started", "step", "prompt switched"
SPAN_OF_STAGE = {"text_encoder": ENCODE, "denoiser": DENOISE, "decoder": DECODE, "enhancer": ENHANCE}
TTFF = "headrace.ttff_s"
CHUNK = "headrace.chunk"
SESSION = "headrace.session_id"
QUEUE, SERVICE, DEVICE, TRANSFER = "headrace.queue_s", "headrace.service_s", "headrace.device_s", "headrace.transfer_s"

_FAILED = ("internal", "unavailable", "stalled")


class SessionTrace:
    """Tell it what happened, when it has happened. Moments are seconds of the caller's clock, and `now` is the present one."""

    def __init__(self, tracer: Tracer, root: Span, wall: Callable[[], float]) -> None:
        self._wall_now = wall
        self._tracer = tracer
        self._root = root
        self._context = trace.set_span_in_context(root)

    def about(self, session_id: str, attributes: Mapping[str, AttributeValue]) -> None:
        """What the call is for."""
        self._root.set_attributes({SESSION: session_id, **{f"headrace.{name}": value for name, value in attributes.items()}})

    def waited(self, since: float, now: float) -> None:
        """A slot came free."""
        self._span(WAIT, self._wall(since, now), self._wall(now, now), {})

    def encoded(self, timing: StageTiming, since: float, now: float) -> None:
        """The first prompt was embedded; it was asked for at `since`."""
        self._span(ENCODE, self._wall(since, now), self._wall(now, now), _parts(timing))

    def started(self) -> None:
        """The caller was told that its session runs; its first chunk is asked for next."""
        self._root.add_event(STARTED, timestamp=_ns(self._wall_now()))

    def first(self, ttff_s: float) -> None:
        """The first frame of a new session was sent."""
        self._root.set_attribute(TTFF, ttff_s)

    def switched(self, seconds: float) -> None:
        """The first frame under a new prompt was sent."""
        self._root.add_event(SWITCHED, {"headrace.seconds": seconds})

    def made(self, chunk: FrameChunk, arrived: float, now: float) -> None:
        """`chunk`, here since `arrived`, went through its stages."""
        left = self._wall(arrived, now)
        for timing in reversed(chunk.timings):  # a stage that does not say when it was done was done before its reader began
            end = left - timing.transfer_s if timing.left_at is None else timing.left_at
            left = end - timing.service_s - timing.queue_s
            steps = [end - before_s for before_s in timing.steps_s]
            self._span(SPAN_OF_STAGE[timing.stage], left, end, {CHUNK: chunk.index, **_parts(timing)}, steps)

    def sent(self, chunk: FrameChunk, arrived: float, now: float, lateness_s: float) -> None:
        """`chunk` was sent."""
        self.made(chunk, arrived, now)
        about = {CHUNK: chunk.index, "headrace.first_frame": chunk.first_frame, "headrace.frames": chunk.num_frames}
        self._span(SEND, self._wall(arrived, now), self._wall(now, now), {**about, "headrace.lateness_s": lateness_s})

    def end(self, outcome: str) -> None:
        """The call is over; `outcome` as in the metrics."""
        self._root.set_attribute("headrace.outcome", outcome)
        if outcome in _FAILED:
            self._root.set_status(Status(StatusCode.ERROR, outcome))
        self._root.end()

    def _wall(self, moment: float, now: float) -> float:
        """On the wall clock, which is asked anew each time, so that a session of hours does not drift away from what its stages say."""
        return self._wall_now() + moment - now

    def _span(self, name: str, start: float, end: float, attributes: Mapping[str, AttributeValue], steps: Sequence[float] = ()) -> None:
        """Moments here are the wall clock's."""
        span = self._tracer.start_span(name, self._context, attributes=attributes, start_time=_ns(start))
        for at in steps:
            span.add_event(STEP, timestamp=_ns(at))
        span.end(_ns(end))


def _parts(timing: StageTiming) -> dict[str, AttributeValue]:
    return {QUEUE: timing.queue_s, SERVICE: timing.service_s, DEVICE: timing.device_s, TRANSFER: timing.transfer_s}


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
