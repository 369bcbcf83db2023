"""A bounded memory of answers, each for a while. It spares the database a call for each request."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from service.clock import Clock

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """Answers by key, newest last. One event loop owns it.

    Args:
        ttl_s: how long an answer counts.
        most: answers; beyond them the oldest is forgotten.
        clock: time.
    """

    def __init__(self, ttl_s: float, most: int, clock: Clock) -> None:
        self._ttl_s, self._most, self._clock = ttl_s, most, clock
        self._answers: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: K) -> V | None:
        """None where nothing is known, or not any more."""
        known = self._answers.get(key)
        if known is None or self._clock.now() >= known[0]:
            return None
        return known[1]

    def put(self, key: K, answer: V, ttl_s: float | None = None) -> None:
        """Remember `answer` for `ttl_s`, if that is shorter than usual."""
        now = self._clock.now()
        self._answers.pop(key, None)
        self._answers[key] = (now + (self._ttl_s if ttl_s is None else min(ttl_s, self._ttl_s)), answer)
        while len(self._answers) > self._most or next(iter(self._answers.values()))[0] <= now:
            self._answers.popitem(last=False)
            if not self._answers:
                return

    def keys(self) -> list[K]:
        """Those whose answers count."""
        now = self._clock.now()
        return [key for key, (until, _) in self._answers.items() if now < until]

    def amend(self, key: K, answer: V) -> None:
        """Put `answer` in the place of the one that is known, which counts no longer for it."""
        if (known := self._answers.get(key)) is not None:
            self._answers[key] = (known[0], answer)


class Lookup(Generic[K, V]):
    """Answers from memory, or asks. All who want the same answer at the same moment share one question.

    Args:
        ask: the question. What it raises is raised to all who wait, and is not remembered.
        memory: of answers. An answer may stand for "there is none".
    """

    def __init__(self, ask: Callable[[K], Awaitable[V]], memory: Remembered[K, V]) -> None:
        self._ask, self._memory = ask, memory
        self._asked: dict[K, asyncio.Future[V]] = {}

    def known(self, key: K) -> V | None:
        """See `Remembered.get`."""
        return self._memory.get(key)

    async def get(self, key: K) -> V:
        """The answer. A caller that is cancelled takes nobody else's away."""
        known = self._memory.get(key)
        if known is not None:
            return known
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = asyncio.ensure_future(self._answer(key))
            asked.add_done_callback(_seen)
        return await asyncio.shield(asked)

    def amend(self, key: K, answer: V) -> None:
        """See `Remembered.amend`."""
        self._memory.amend(key, answer)

    async def _answer(self, key: K) -> V:
        try:
            answer = await self._ask(key)
            self._memory.put(key, answer)
            return answer
        finally:
            del self._asked[key]


def _seen(asked: asyncio.Future[V]) -> None:
    """Marks an error as seen, where everybody who waited for it was cancelled."""
    if not asked.cancelled():
        asked.exception()
