"""What a viewer would see of a stream: first frame, rate, frames that came too late. Knows no wire; time is a parameter."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], float]

# A new prompt's first chunk takes at least so long to arrive; frames that are due sooner are better left as they are.
REPLACE_GUARD_S = 0.25
_SWITCHES_REMEMBERED = 4


@dataclass(frozen=True, slots=True)
class PlayoutStats:
    """How a stream has played so far.

    Attributes:
        ttff_s: from the request to the first frame's arrival; None before it.
        frames: frames that arrived and were not superseded.
        fps: rate at which frames arrived after the first batch, pauses left out; with one batch only, frames over `wall_s`.
        late_frames: frames that arrived after the moment they were due on screen.
        max_late_s: by how much the worst of them missed it.
        max_gap_s: longest wait between two batches, pauses left out.
        wall_s: from the request to the last arrival.
    """

    ttff_s: float | None
    frames: int
    fps: float
    late_frames: int
    max_late_s: float
    max_gap_s: float
    wall_s: float


class PlayoutClock:
    """A viewer that starts to play at the first frame's arrival: frame n is due `n / fps` later, and late when it arrives after that.

    Made when the request is sent. A pause stops the media timeline; it runs on from the first frame that arrives after the pause.
    """

    def __init__(self, now: Clock) -> None:
        self._now = now
        self._requested = now()
        self._first_arrival: float | None = None
        self._last_arrival = self._requested
        self._origin: float | None = None  # when frame 0 was, or would have been, on screen
        self._frames = 0
        self._next_frame = 0
        self._fps = 1.0
        self._timed_frames = 0
        self._timed_s = 0.0
        self._late = 0
        self._max_late_s = 0.0
        self._max_gap_s = 0.0
        self._asked_at: float | None = None  # when it was said last what can be replaced
        self._awaited: int | None = None  # the first frame of the prompt that was asked for then
        self._switches_s: deque[float] = deque(maxlen=_SWITCHES_REMEMBERED)

    def arrived(self, first_frame: int, count: int, fps: float) -> float:
        """`count` frames from `first_frame` on are here. Returns the moment, on this clock, at which the first of them is due on screen."""
        now = self._now()
        if self._asked_at is not None and self._awaited == first_frame:
            self._switches_s.append(now - self._asked_at)
            self._asked_at = self._awaited = None
        if self._origin is None:
            self._origin = now - first_frame / fps
        else:
            self._timed_frames += count
            self._timed_s += now - self._last_arrival
            self._max_gap_s = max(self._max_gap_s, now - self._last_arrival)
        if self._first_arrival is None:
            self._first_arrival = now
        due = self._origin + first_frame / fps
        for n in range(count):
            late_s = now - (due + n / fps)
            # Half a microsecond of float rounding is not lateness.
            if late_s > 5e-7:
                self._late += 1
                self._max_late_s = max(self._max_late_s, late_s)
        self._frames += count
        self._next_frame = first_frame + count
        self._fps = fps
        self._last_arrival = now
        return due

    def superseded(self, first_frame: int) -> int:
        """Frames from `first_frame` on come again. Returns how many of them had arrived.

        If there were none, the new ones wait for their turn, and do not tell how soon they could have come.
        """
        count = max(0, self._next_frame - first_frame)
        self._awaited = first_frame if count else None
        if not count and self._switches_s:
            self._switches_s.popleft()
        self._frames -= count
        self._next_frame -= count
        return count

    def replaceable(self) -> int | None:
        """The first frame that is due later than a new prompt's first frames come, as far as is known; None while nothing plays.

        Call it when the prompt is sent.
        """
        if self._origin is None:
            return None
        now = self._asked_at = self._now()
        guard_s = max(REPLACE_GUARD_S, *self._switches_s, 0.0)
        return max(0, math.floor((now + guard_s - self._origin) * self._fps) + 1)

    def paused(self) -> None:
        """The stream stands still on purpose until the next frame arrives."""
        self._origin = None

    def stats(self) -> PlayoutStats:
        wall_s = self._last_arrival - self._requested
        overall = self._frames / wall_s if wall_s > 0 else 0.0
        return PlayoutStats(
            ttff_s=None if self._first_arrival is None else self._first_arrival - self._requested,
            frames=self._frames,
            fps=self._timed_frames / self._timed_s if self._timed_s > 0 else overall,
            late_frames=self._late,
            max_late_s=self._max_late_s,
            max_gap_s=self._max_gap_s,
            wall_s=wall_s,
        )
