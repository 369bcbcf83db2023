"""What a door is, and all doors of one front door together.

A door is one way in: it listens, reads its wire into plain requests and controls, has `Intake` and `SessionRunner` serve them, and writes
plain events back. Doors know nothing of each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from model_core.tasks import cancel_and_wait
from service.health import HealthMonitor
from service.sessions.runner import SessionRunner

# Of the time to drain, what sessions get to end in order.
_ENDING_S = 1.0


class Door(Protocol):
    """One server over the service."""

    async def start(self) -> int:
        """Listen. Returns the port. Raises RuntimeError: the address cannot be bound."""
        ...

    async def stop_serving(self) -> None:
        """Report to load balancers that calls should go elsewhere. Calls that come are still answered."""
        ...

    async def stop(self, grace_s: float) -> None:
        """Take no more calls. Return when those that run have ended; cancel them after `grace_s`."""
        ...


class Doors:
    """Opens and drains the doors over one runner.

    Args:
        doors: in the order of `start`.
        runner: of all of them.
        monitor: probes the stages from the start to the end of the drain; None where no door reports health.
    """

    def __init__(self, doors: Sequence[Door], runner: SessionRunner, monitor: HealthMonitor | None = None) -> None:
        self._doors = doors
        self._runner = runner
        self._monitor = monitor
        self._probing: asyncio.Task[None] | None = None
        self._draining = asyncio.Lock()

    async def start(self) -> list[int]:
        """Listen at all doors. Returns their ports."""
        ports = [await door.start() for door in self._doors]
        if self._monitor is not None:
            self._probing = asyncio.create_task(self._monitor.run())
        return ports

    async def drain(self, grace_s: float) -> None:
        """Take no more calls, and return when those that run have ended, after `grace_s` at the latest.

        Sessions that wait or are paused end at once. Those that run play on, and end before their next chunk when there is just time left
        for that; a file that is not done by then fails, with an error that tells the caller to try again.
        """
        async with self._draining:
            if self._monitor is not None:
                self._monitor.stop_serving()
            await asyncio.gather(*(door.stop_serving() for door in self._doors))
            self._runner.drain()
            stopping = asyncio.gather(*(door.stop(grace_s) for door in self._doors))
            await asyncio.wait({stopping}, timeout=max(0.0, grace_s - _ENDING_S))
            self._runner.hand_over()
            await stopping
            self._runner.close()
            if self._probing is not None:
                await cancel_and_wait(self._probing)
