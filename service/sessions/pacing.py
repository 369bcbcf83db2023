"""When frames may leave: the media timeline. Pure arithmetic, bound to a clock at the edge."""

from __future__ import annotations

from service.clock import Clock

SPARED = 0.25  # of the time that passes, for each kind of work; admission leaves so much free at a utilisation of 0.8
ACTED = 0.5  # of the same, for legs of a session whose viewer acts: a key every two chunks, down or up, as long as he likes
_AT_ONCE = 2  # chunks


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

    def asked(self, frame: int, now: float) -> None:
        """The viewer wants other frames, or the same ones anew, from `frame` on: it is due at `now` at the earliest.

        While he pauses, that is when the pause began: `resume` adds all of the pause.
        """
        if self._origin is not None:
            self._origin = max(self._origin, self._plays_at(now) - frame / self._fps)

    def lead_lost_s(self, frame: int, end: int, now: float) -> float:
        """How many seconds of its lead the session loses if frames from `frame` up to `end`, which were sent, come again.

        Those have to be made faster than they play. Frames that have been played do not: they take their time on the screen once more.
        """
        due = self.due(end)
        if due is None:
            return 0.0
        return max(0.0, min((end - frame) / self._fps, due - self._plays_at(now)))

    def pause(self, now: float) -> None:
        """The viewer stands still from `now` on."""
        if self._paused_at is None:
            self._paused_at = now

    def resume(self, now: float) -> None:
        """The viewer goes on: everything is due as much later as the pause was long."""
        if self._paused_at is not None and self._origin is not None:
            self._origin += now - self._paused_at
        self._paused_at = None

    def _plays_at(self, now: float) -> float:
        """The time at which the viewer stands: his own stands still during a pause."""
        return now if self._paused_at is None else self._paused_at


class Allowance:
    """What may be taken beyond what was granted: it grows by `per_s` a second, up to `most`.

    Any t seconds give `most + t * per_s` at most, and one taking more: the last one may leave less than nothing.
    """

    def __init__(self, most: float, per_s: float) -> None:
        self._most = self._left = most
        self._per_s = per_s
        self._at = 0.0

    def take(self, amount: float, now: float) -> None:
        """Ask `wait_s` first."""
        self._left, self._at = self._now_left(now) - amount, now

    def wait_s(self, now: float) -> float:
        """Seconds until something may be taken; 0 for at once."""
        return max(0.0, -self._now_left(now) / self._per_s)

    def _now_left(self, now: float) -> float:
        return min(self._most, self._left + self._per_s * (now - self._at))


class Pacer:
    """A media timeline on a clock; it is a session's pace.

    Args:
        timeline: of the viewer.
        clock: real time.
        chunk_s: a chunk's playing time. To begin a leg counts as a chunk: its caches are made again, and what the leg before it had made
            beyond the last chunk is lost.
        legs: share of the time that may go into new legs.

    A session was admitted for a chunk in each chunk's time. For legs it may take `legs` more, and for frames that are made again another
    quarter.
    """

    def __init__(self, timeline: MediaTimeline, clock: Clock, chunk_s: float, legs: float = SPARED) -> None:
        self._timeline = timeline
        self._clock = clock
        self._leg_s = chunk_s
        self._legs, self._again = (Allowance(_AT_ONCE * chunk_s, share) for share in (legs, SPARED))

    async def wait(self, frame: int) -> None:
        """Return when the chunk that begins with `frame` may be asked for."""
        while (delay := self._timeline.delay(frame, self._clock.now())) > 0:
            await self._clock.sleep(delay)

    def due_s(self, frame: int) -> float | None:
        """Seconds until `frame` is due on screen; 0 before the first was sent; None without pacing, which makes the session a job."""
        if not self._timeline.paced:
            return None
        due = self._timeline.due(frame)
        return 0.0 if due is None else due - self._clock.now()

    def may_begin(self) -> bool:
        """See `Pace.may_begin`."""
        return self._legs.wait_s(self._clock.now()) <= 0

    async def begin(self) -> None:
        """See `Pace.begin`."""
        if (delay := self._legs.wait_s(self._clock.now())) > 0:
            await self._clock.sleep(delay)
        self._legs.take(self._leg_s, self._clock.now())

    def may_replace(self) -> bool:
        """See `Pace.may_replace`. A job has no deadline: it takes only what others leave."""
        return not self._timeline.paced or self._again.wait_s(self._clock.now()) <= 0

    def replaced(self, frame: int, end: int) -> None:
        """See `Pace.replaced`."""
        now = self._clock.now()
        self._again.take(self._timeline.lead_lost_s(frame, end, now), now)

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

    def asked(self, frame: int) -> None:
        self._timeline.asked(frame, self._clock.now())

    def pause(self) -> None:
        self._timeline.pause(self._clock.now())

    def resume(self, frame: int) -> None:
        """The viewer goes on with `frame`."""
        self._timeline.resume(self._clock.now())
        self.asked(frame)
