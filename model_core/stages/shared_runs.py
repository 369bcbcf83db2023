"""Answers by key, each made once: a bounded cache in front of one device."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from model_core.stages.device import DeviceThread

Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")


@dataclass(slots=True, eq=False)
class _Flight(Generic[Answer]):
    future: asyncio.Future[Answer]
    waiters: int = 0


class SharedRuns(Generic[Key, Answer]):
    """Call `get` from one event loop; the work runs in a thread of its own, so the loop never waits.

    Concurrent equal keys share one run. Work nobody waits for any more is dropped, so what is queued is bounded by the callers.

    Attributes:
        hits, joined, misses: keys answered from the cache, by a run under way, by a run of their own.

    Args:
        size: answers kept; of those the least recently used goes first.
        max_bytes: of all of them, as `weigh` counts. The newest is kept, however large.
        device: where they are made; closed with this.
    """

    def __init__(self, size: int, max_bytes: int, weigh: Callable[[Answer], int], device: DeviceThread) -> None:
        self._size, self._max_bytes, self._weigh = size, max_bytes, weigh
        self._device = device
        self._cache: OrderedDict[Key, Answer] = OrderedDict()
        self._bytes = 0
        self._flights: dict[Key, _Flight[Answer]] = {}
        self.hits = self.joined = self.misses = 0

    @property
    def cached(self) -> int:
        return len(self._cache)

    @property
    def in_flight(self) -> int:
        return len(self._flights)

    async def get(self, key: Key, make: Callable[[], Answer]) -> tuple[Answer, bool]:
        """The answer, and whether it was there already; `make` makes it in the thread. What it raises, all who wait for it are told.

        Raises:
            StageUnavailable: the device is broken or stuck.
        """
        if key in self._cache:
            self.hits += 1
            self._cache.move_to_end(key)
            return self._cache[key], True
        flight = self._flights.get(key)
        if flight is None:
            self.misses += 1
            flight = _Flight(self._device.submit(make))
            self._flights[key] = flight
        else:
            self.joined += 1
        flight.waiters += 1
        try:
            answer = await self._device.finished(asyncio.shield(flight.future))  # one waiter's cancellation is not the others'
            self._remember(key, answer)
            return answer, False
        finally:
            flight.waiters -= 1
            if flight.waiters == 0:
                flight.future.cancel()
                if self._flights.get(key) is flight:
                    del self._flights[key]

    async def aclose(self) -> None:
        """Finish what is under way, end the thread. Safe to call twice."""
        await self._device.aclose()

    def check_health(self) -> None:
        """See `DeviceThread.check_health`."""
        self._device.check_health()

    def _remember(self, key: Key, answer: Answer) -> None:
        if key in self._cache:  # whoever else waited for it has been here
            return
        self._cache[key] = answer
        self._bytes += self._weigh(answer)
        while len(self._cache) > self._size or (self._bytes > self._max_bytes and len(self._cache) > 1):
            self._bytes -= self._weigh(self._cache.popitem(last=False)[1])
