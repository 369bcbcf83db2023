"""An event loop whose time stands still while the machine gives the process none.

Both ends of most connections of a test are in one process. Where that process stands still, a server would take its caller for one that is
slow, and a test of what happens to slow callers would say something about the machine. On this loop a second is a second in which whoever
was ready to do something could have done it.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable

# What one round of the loop, or one wait for something to happen, counts for at most.
MOST_S = 0.01


class PatientSelector(selectors.DefaultSelector):
    """Waits in small parts, and counts none of them for more than it was to take.

    Attributes:
        now: seconds that have passed, from any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen = self.now = clock()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """See `selectors.BaseSelector`."""
        self._count()
        while True:
            events = super().select(MOST_S if timeout is None else min(timeout, MOST_S))
            passed_s = self._count()
            timeout = None if timeout is None else timeout - passed_s
            if events or (timeout is not None and timeout <= 0):
                return events

    def _count(self) -> float:
        seen = self._clock()
        passed_s, self._seen = min(seen - self._seen, MOST_S), seen
        self.now += passed_s
        return passed_s


class PatientLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._patient = PatientSelector()
        super().__init__(self._patient)

    def time(self) -> float:
        """See `asyncio.AbstractEventLoop`; it is that of the round."""
        return self._patient.now
