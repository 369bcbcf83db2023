"""Sends one session's events in order, one at a time."""

from __future__ import annotations

import asyncio

from service.clock import Clock
from service.events import Event, Send
from service.sessions.pacing import Pacer


class Outbox:
    """The way out of one session. Several tasks may post; `send` waits for nothing else.

    Args:
        send: the door's.
        pacer: is told how long the viewer blocked the session.
        clock: time.
    """

    def __init__(self, send: Send, pacer: Pacer, clock: Clock) -> None:
        self._send = send
        self._pacer = pacer
        self._clock = clock
        self.lock = asyncio.Lock()

    async def send(self, event: Event) -> None:
        """Send from the task that pulls the session. The next frame waits for this, so the pacer counts the time as the viewer's."""
        began = self._clock.now()
        await self.post(event)
        self._pacer.blocked(self._clock.now() - began)

    async def post(self, event: Event) -> None:
        """Send from a task beside it."""
        async with self.lock:
            await self._send(event)
