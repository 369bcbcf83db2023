"""When frames may leave: the media timeline. Pure arithmetic, bound to a clock at the edge."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class MonotonicClock:
    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class MediaTimeline:
    """Frame n is due `n / fps` after the first was sent, and may leave at most `max_lead_s` before that.

    What the viewer does himself makes nothing late: everything is due as much later as he paused, as he came late to take a frame, and as
    he asked for frames anew that were due already. What the server does moves no deadline: a session that it kept waiting is late, and is
    helped.

    Args:
        fps: media rate.
        max_lead_s: 0 for no limit.
    """

    def __init__(self, fps: float, max_lead_s: float) -> None:
        self._fps = fps
        self._max_lead_s = max_lead_s
        self._origin: float | None = None
        self._paused_at: float | None = None
        self._again_s = self._again_at = 0.0
        self._blocked_s = self._stalled_s = 0.0

    @property
    def stalled_s(self) -> float:
        """By how much the viewer made later what came after the last frame that he took."""
        return self._stalled_s

    @property
    def blocked_s(self) -> float:
        """How long messages have waited for the viewer to take them, since the last frame."""
        return self._blocked_s

    @property
    def paced(self) -> bool:
        return self._max_lead_s > 0

    def due(self, frame: int) -> float | None:
        """When `frame` is to be on screen; None before the first frame was sent."""
        return None if self._origin is None else self._origin + frame / self._fps

    def delay(self, frame: int, now: float) -> float:
        """Seconds that `frame` has to wait from `now` on; 0 or less for none."""
        due = self.due(frame)
        return 0.0 if due is None or not self.paced else due - self._max_lead_s - now

    def blocked(self, seconds: float) -> None:
        """A message was ready to be sent for so long until the viewer took it."""
        self._blocked_s += seconds

    def sent(self, frame: int, now: float) -> float:
        """`frame` left at `now`. Returns how late it was by the server's doing, 0 for one on time. The first call starts the timeline."""
        if self._origin is None:
            self._origin = now - frame / self._fps
        late_s = max(0.0, now - (self._origin + frame / self._fps))
        self._stalled_s, self._blocked_s = min(late_s, self._blocked_s), 0.0
        self._origin += self._stalled_s
        return late_s - self._stalled_s

    def asked(self, frame: int, now: float, again: int = 0) -> None:
        """The viewer wants other frames, or the same ones anew, from `frame` on: it is due at `now` at the earliest.

        So many of them as `again` says had been sent.
        """
        if self._origin is not None:
            self._origin = max(self._origin, now - frame / self._fps)
        self._again_s = max(0.0, self._again_s - (now - self._again_at)) + again / self._fps
        self._again_at = now

    def yields_s(self, now: float) -> float:
        """How much later than due a chunk may come, so that others go first: what was made again beyond the lead, faster than it plays."""
        return max(0.0, self._again_s - (now - self._again_at) - self._max_lead_s)

    def pause(self, now: float) -> None:
        """The viewer stands still from `now` on."""
        if self._paused_at is None:
            self._paused_at = now

    def resume(self, now: float) -> None:
        """The viewer goes on: everything is due as much later as the pause was long."""
        if self._paused_at is not None and self._origin is not None:
            self._origin += now - self._paused_at
        self._paused_at = None


class Pacer:
    """A media timeline on a clock; `wait` is a session's pace."""

    def __init__(self, timeline: MediaTimeline, clock: Clock) -> None:
        self._timeline = timeline
        self._clock = clock

    async def wait(self, frame: int) -> None:
        """Return when the chunk that begins with `frame` may be asked for."""
        while (delay := self._timeline.delay(frame, self._clock.now())) > 0:
            await self._clock.sleep(delay)

    def due_s(self, frame: int) -> float | None:
        """Seconds until `frame` is due on screen; 0 before the first was sent; None without pacing, which makes the session a job.

        A viewer who has frames made again all the time is due later, or would be due at once for ever, before everybody else.
        """
        if not self._timeline.paced:
            return None
        now = self._clock.now()
        due = self._timeline.due(frame)
        return 0.0 if due is None else due - now + self._timeline.yields_s(now)

    @property
    def stalled_s(self) -> float:
        return self._timeline.stalled_s

    @property
    def blocked_s(self) -> float:
        return self._timeline.blocked_s

    def blocked(self, seconds: float) -> None:
        self._timeline.blocked(seconds)

    def sent(self, frame: int) -> float:
        return self._timeline.sent(frame, self._clock.now())

    def asked(self, frame: int, again: int = 0) -> None:
        self._timeline.asked(frame, self._clock.now(), again)

    def pause(self) -> None:
        self._timeline.pause(self._clock.now())

    def resume(self, frame: int) -> None:
        """The viewer goes on with `frame`."""
        self._timeline.resume(self._clock.now())
        self.asked(frame)
