"""Whether a device's thread still gets on with its work.

An event loop that answers says nothing about the thread beside it, which may be inside a call that never returns. So whoever waits for
the thread asks a `Watchdog` now and then, and the stage's health check does too.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from model_core.errors import StageUnavailable

T = TypeVar("T")

_TIMES = 20  # the longest piece of work so far: a busy machine or a slower clock does not make work take that long
_UNKNOWN_TIMES = 10  # `least_s`, while nothing has come to its end yet: a first prompt may take minutes on a slow processor
_LOOK_EVERY_S = 1.0


class Watchdog:
    """Knows since when a thread has been at its present piece of work, and how long that may take.

    Args:
        what: the thread's name in the error.
        least_s: no piece of work counts as stuck before that; while none is done yet, not before ten times that.
        clock: for all of it.
        look_every_s: how often who waits for the thread asks, in real time.
    """

    def __init__(
        self, what: str, least_s: float, clock: Callable[[], float] = time.perf_counter, look_every_s: float = _LOOK_EVERY_S
    ) -> None:
        self._what, self._least_s, self._clock, self._look_every_s = what, least_s, clock, look_every_s
        self._longest_s: float | None = None
        self._work: tuple[float, int] | None = None  # when it began, and its units; replaced as a whole, because others read it

    @contextmanager
    def working(self, units: int = 1) -> Iterator[None]:
        """The thread is at one piece of work, which may take `units` times as long as the longest unit of one."""
        began, units = self._clock(), max(1, units)
        self._work = began, units
        try:
            yield
        finally:
            self._work = None
            self.took((self._clock() - began) / units)

    def took(self, seconds: float) -> None:
        """A unit of work came to its end after `seconds`."""
        self._longest_s = max(self._longest_s or 0.0, seconds)

    def check(self) -> None:
        """Raise if the thread is stuck.

        Raises:
            StageUnavailable: with how long it has been, and may be, at its work.
        """
        if (work := self._work) is None:
            return
        began, units = work
        known_s = _UNKNOWN_TIMES * self._least_s if self._longest_s is None else _TIMES * self._longest_s
        elapsed_s, limit_s = self._clock() - began, units * max(self._least_s, known_s)
        if elapsed_s > limit_s:
            raise StageUnavailable(f"the {self._what} is stuck: {elapsed_s:.0f} s in one call, which may take {limit_s:.0f} s")

    async def join(self, thread: threading.Thread) -> None:
        """Wait until `thread` has ended, unless it is stuck; it must be one that does not keep the process alive."""
        while thread.is_alive():
            await asyncio.to_thread(thread.join, self._look_every_s)
            with suppress(StageUnavailable):
                self.check()
                continue
            return

    async def until(self, waiting: asyncio.Future[T], check: Callable[[], Any]) -> T:
        """What `waiting` comes to, unless `check` raises first; it is then left to itself, and cancelled with the caller."""
        try:
            while not (await asyncio.wait({waiting}, timeout=self._look_every_s))[0]:
                check()
            return waiting.result()
        finally:
            waiting.cancel()
