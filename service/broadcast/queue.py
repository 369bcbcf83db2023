"""Groups on their way to one receiver, within bounds. A receiver that is too slow goes on at a later key picture."""

from __future__ import annotations

import asyncio
from collections import deque

from model_core.access_units import Group


class GroupQueue:
    """One task puts and one gets. Whoever puts never waits.

    Args:
        most_groups, most_bytes: the bound. The oldest are dropped beyond it; at least one stays.
    """

    def __init__(self, most_groups: int = 32, most_bytes: int = 16 * 1024 * 1024) -> None:
        self._most_groups, self._most_bytes = most_groups, most_bytes
        self._groups: deque[Group] = deque()
        self._bytes = 0
        self._news = asyncio.Event()
        self._closed = asyncio.Event()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._groups)

    def put(self, group: Group) -> None:
        """Frames that fall out are counted in `dropped`. After `close` nothing is taken."""
        if self._closed.is_set():
            return
        self._groups.append(group)
        self._bytes += len(group.fragment)
        while len(self._groups) > 1 and (len(self._groups) > self._most_groups or self._bytes > self._most_bytes):
            self._drop()
        self._news.set()

    def skip(self) -> None:
        """Forget all but the newest group: whoever was away begins with that."""
        while len(self._groups) > 1:
            self._drop()

    def close(self) -> None:
        """Nothing follows what is in it."""
        self._closed.set()
        self._news.set()

    @property
    def ended(self) -> bool:
        """Nothing is in it, and nothing follows."""
        return self._closed.is_set() and not self._groups

    @property
    def closing(self) -> bool:
        """Nothing follows what is in it."""
        return self._closed.is_set()

    async def closed(self) -> None:
        """Once nothing follows what is in it."""
        await self._closed.wait()

    async def get(self) -> Group | None:
        """The next group, once there is one; None at the end."""
        while not self._groups:
            if self._closed.is_set():
                return None
            self._news.clear()
            await self._news.wait()
        group = self._groups.popleft()
        self._bytes -= len(group.fragment)
        return group

    def _drop(self) -> None:
        group = self._groups.popleft()
        self._bytes -= len(group.fragment)
        self.dropped += len(group.units)
