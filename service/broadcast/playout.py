"""When each group of a session goes out: as it is played, and once. Pure arithmetic.

A session sends frames ahead of time, and may send some anew after a prompt. Receivers of a broadcast cannot be told to forget. So groups
wait here until they are due, and only those that still wait are replaced. The time of a frame in the broadcast is its index in the session,
which is the same at every front door, on every connection, and after every resume.
"""

from __future__ import annotations

import math
from collections import deque

from model_core.access_units import Group

# Of what waits. Beyond that, what is due first goes out early.
_MOST_BYTES = 64 * 1024 * 1024
_MOST_GROUPS = 512
_AT_ONCE_S = 1e-6  # no clock sleeps for less


class Playout:
    """See the module.

    Args:
        fps: frames a second.
        hold_s: how long the first group waits. A session may then be as late, or replace as much, and nobody notices.
    """

    def __init__(self, fps: float, hold_s: float = 0.0) -> None:
        self._fps = fps
        self._hold_s = hold_s
        self._origin: float | None = None  # when frame 0 was due, or would have been
        self._waiting: deque[Group] = deque()
        self._bytes = 0
        self._next = 0
        self._stands = False
        self.stalled_s = 0.0
        self.dropped = 0

    @property
    def next_frame(self) -> int:
        """Frames before it are out, and stay as they are."""
        return self._next

    def arrived(self, group: Group, now: float) -> None:
        """`group` takes the place of those that wait from its first frame on. One that is out already is dropped, and counted."""
        self.superseded(group.first_frame)
        if group.first_frame < self._next:
            self.dropped += len(group.units)
            return
        due = self._due(group.first_frame)
        late = due is not None and due < now and not self._waiting
        if due is None or (late and self._stands):
            self._origin = now + self._hold_s - group.first_frame / self._fps
        elif late:  # it goes out at once: to hold it, too, would make the stall longer
            self.stalled_s += now - due
            self._origin = now - group.first_frame / self._fps
        self._stands = False
        self._waiting.append(group)
        self._bytes += len(group.fragment)

    def superseded(self, first_frame: int) -> None:
        """Frames from `first_frame` on come again. Those that are out already do not change."""
        while self._waiting and self._waiting[-1].first_frame >= first_frame:
            self._bytes -= len(self._waiting.pop().fragment)

    def paused(self) -> None:
        """What comes next is not late. What waits still goes out."""
        self._stands = True

    def wait_s(self, now: float) -> float | None:
        """Seconds until the next group is due, 0 for at once; None where none waits."""
        if not self._waiting:
            return None
        due = self._due(self._waiting[0].first_frame)
        return 0.0 if due is None or self._full or due - now < _AT_ONCE_S else due - now

    def due(self, now: float) -> list[Group]:
        """The groups that go out at `now`, in order. Each is handed out once."""
        found = []
        while self.wait_s(now) == 0.0:
            group = self._waiting.popleft()
            self._bytes -= len(group.fragment)
            self._next = group.end
            found.append(group)
        return found

    def replaceable(self, now: float, guard_s: float) -> int | None:
        """The first frame that is not out in `guard_s` seconds; None before anything was due."""
        return None if self._origin is None else max(self._next, math.floor((now + guard_s - self._origin) * self._fps) + 1)

    def _due(self, frame: int) -> float | None:
        return None if self._origin is None else self._origin + frame / self._fps

    @property
    def _full(self) -> bool:
        return self._bytes > _MOST_BYTES or len(self._waiting) > _MOST_GROUPS
