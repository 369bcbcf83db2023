"""Places for work, shared fairly between callers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class FairPlaces:
    """`count` places. A free one goes to the caller that holds fewest; among equals, to who has waited longest."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._held: Counter[str] = Counter()
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def place(self, caller: str) -> AsyncGenerator[None, None]:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((caller, turn))
        self._hand_out()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._free += 1
                self._held[caller] -= 1
                self._held += Counter()  # forgets those that hold none
            else:
                self._waiting.remove((caller, turn))
            self._hand_out()

    def _hand_out(self) -> None:
        while self._free and (here := [waiting for waiting in self._waiting if not waiting[1].done()]):
            caller, turn = min(here, key=lambda waiting: self._held[waiting[0]])
            self._waiting.remove((caller, turn))
            self._free -= 1
            self._held[caller] += 1
            turn.set_result(None)
