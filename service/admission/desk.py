"""Admission at the edge: `autoscaling.admission.control` on a clock, with something to wait on for each caller.

Knows no wire. One event loop owns it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import replace

from autoscaling.admission.control import AdmissionControl
from autoscaling.admission.decide import AdmissionConfig, Admit, Ask, Reject, Tenant
from autoscaling.capacity.profile import Capacity
from autoscaling.reports import ControlStatistics
from model_core.errors import CapacityExceeded
from service.clock import Clock


class AdmissionTicket:
    """One session's place: in line, admitted with a number of steps, set aside while it pauses, or withdrawn."""

    def __init__(self, key: int, desk: AdmissionDesk) -> None:
        self._key = key
        self._desk = desk
        self._position = 0
        self._steps = 0
        self._withdrawn = False
        self._changed = asyncio.Event()
        self._set_steps: Callable[[int], None] | None = None
        self._end: Callable[[], None] | None = None

    @property
    def admitted(self) -> bool:
        return self._steps > 0

    @property
    def steps(self) -> int:
        """Denoise steps that it may run with now; 0 in line and aside."""
        return self._steps

    def follow(self, set_steps: Callable[[int], None], end: Callable[[], None] | None = None) -> None:
        """Call `set_steps` with the steps to run with: on admission, which may have been, and whenever they change.

        `end` is called if it pauses for longer than it can be kept.
        """
        self._set_steps, self._end = set_steps, end
        if self.admitted:
            set_steps(self._steps)

    async def positions(self) -> AsyncGenerator[int, None]:
        """Places in line as they change, 1 for the next to go; ends on admission or withdrawal. A slow reader is told the newest only."""
        told = 0
        while not (self.admitted or self._withdrawn):
            self._changed.clear()
            if self._position != told:
                told = self._position
                yield told
                continue
            await self._changed.wait()

    async def decided(self) -> bool:
        """Wait for admission, or withdrawal; True if admitted."""
        async with aclosing(self.positions()) as positions:
            async for _ in positions:
                pass
        return self.admitted

    def withdraw(self) -> None:
        """Stop waiting. No effect on a slot that is held."""
        self._withdrawn = True
        self._changed.set()

    def pause(self) -> None:
        """The viewer stands still. The session keeps its slot for a while, and is set aside then."""
        self._desk.pause(self)

    def resume(self) -> None:
        """The viewer goes on: at once, or from a place in line."""
        self._desk.resume(self)

    def level(self, steps: int) -> int:
        """The brown-out level, 1 or more, that lowers a session to `steps`."""
        return self._desk.level(steps)

    def _move(self, position: int) -> None:
        if position != self._position:
            self._position = position
            self._changed.set()

    def _set_aside(self, *, ended: bool) -> None:
        self._steps = self._position = 0
        if ended and self._end is not None:
            self._end()

    def _run(self, steps: int) -> None:
        self._steps = steps
        self._changed.set()
        if self._set_steps is not None:
            self._set_steps(steps)


class AdmissionDesk:
    """Hands out tickets.

    Args:
        config: the policy.
        capacity: until `observe` tells a newer one.
        clock: time.
        chance: numbers from 0 up to 1, to spread those who are refused over time.
        on_change: told after each change, for gauges.
    """

    def __init__(
        self,
        config: AdmissionConfig,
        capacity: Capacity,
        clock: Clock,
        chance: Callable[[], float],
        on_change: Callable[[ControlStatistics], None] | None = None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._chance = chance
        self._on_change = on_change
        self._control = AdmissionControl(config, capacity, clock.now())
        self._tickets: dict[int, AdmissionTicket] = {}
        self._keys = itertools.count()

    def set_tenants(self, tenants: Mapping[str, Tenant]) -> None:
        """Their terms from now on. Sessions that run or wait stay; those of a tenant that has gone have the default's terms."""
        self._config = replace(self._config, tenants=dict(tenants))
        self._control.config = self._config

    def tenant(self, named: str) -> str:
        """The account of a caller who names itself so; one of a fixed set."""
        return self._config.tenant_name(named)

    def level(self, steps: int) -> int:
        """The brown-out level, 1 or more, that lowers a session to `steps`."""
        tiers = self._config.brownout.tiers
        return next((level for level, tier in enumerate(tiers, 1) if tier <= steps), max(1, len(tiers)))

    def statistics(self) -> ControlStatistics:
        return self._control.statistics()

    def has_room(self, ask: Ask, beside: int = 0) -> bool:
        """Whether `ask` would run at once, and not wait, if `beside` more jobs ran already. Nothing changes by asking."""
        return self._control.has_room(ask, beside)

    @contextmanager
    def enter(self, ask: Ask, session: str = "") -> Iterator[AdmissionTicket]:
        """Take a place, to be kept for the length of the context. Leaving it, in whatever way, frees the place or the slot.

        Args:
            session: what no other session is called. One that comes again while it is here keeps what it has, and is not counted twice.

        Raises:
            CapacityExceeded: at once, if no slot is free and waiting is no use.
        """
        key = next(self._keys)
        ticket = self._tickets[key] = AdmissionTicket(key, self)
        decision = self._control.arrive(key, ask, self._clock.now(), self._chance(), session)
        if isinstance(decision, Reject):
            del self._tickets[key]
            raise CapacityExceeded(decision.reason, decision.retry_after_s)
        if isinstance(decision, Admit):
            ticket._run(decision.steps)  # noqa: SLF001 - the desk owns its tickets
        self._pass_on()
        try:
            yield ticket
        finally:
            del self._tickets[key]
            self._control.leave(key, self._clock.now())
            self._pass_on()

    def pause(self, ticket: AdmissionTicket) -> None:
        """Its viewer stands still. It keeps its slot for a while, and is set aside then."""
        self._control.pause(ticket._key, self._clock.now())  # noqa: SLF001
        self._pass_on()

    def resume(self, ticket: AdmissionTicket) -> None:
        """Its viewer goes on: at once, or from a place in line."""
        decision = self._control.resume(ticket._key, self._clock.now())  # noqa: SLF001
        if isinstance(decision, Admit):
            if decision.steps != ticket.steps:
                ticket._run(decision.steps)  # noqa: SLF001
        else:
            ticket._set_aside(ended=False)  # noqa: SLF001
        self._pass_on()

    def observe(self, capacity: Capacity) -> None:
        """The stages can do this much from now on."""
        self._control.observe(capacity, self._clock.now())
        self._pass_on()

    def _pass_on(self) -> None:
        for change in self._control.changes():
            if change.steps:
                self._tickets[change.key]._run(change.steps)  # noqa: SLF001
            else:
                self._tickets[change.key]._set_aside(ended=change.ended)  # noqa: SLF001
        for key, position in self._control.positions().items():
            self._tickets[key]._move(position)  # noqa: SLF001
        if self._on_change is not None:
            self._on_change(self._control.statistics())
