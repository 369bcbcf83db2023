"""Asks the stages, again and again, whether they can serve. All doors report what it finds, each in its own way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

Probe = Callable[[], Awaitable[object]]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StageHealth:
    """Of one stage: whether it can serve, and whether a replica of it is there. A stage may be able to serve without one."""

    serving: bool = False
    present: bool = False


@dataclass(frozen=True, slots=True)
class Health:
    """Of all stages, by name. `ready`: every one can serve, and the front door takes calls."""

    ready: bool = False
    stages: Mapping[str, StageHealth] = field(default_factory=dict)


Listener = Callable[[Health], Awaitable[None]]


class HealthMonitor:
    """Probes stages. Nothing is ready before the first round.

    Args:
        probes: by stage name; one that returns within the timeout says the stage can serve, one that raises says it cannot. False says
            that it can although no replica is there.
        interval_s: between two rounds.
        timeout_s: for one answer.
    """

    def __init__(self, probes: Mapping[str, Probe], interval_s: float = 1.0, timeout_s: float = 5.0) -> None:
        self._probes = probes
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._stopping = False
        self._listeners: list[Listener] = []
        self._asked: set[str] = set()
        self._health = Health(stages=dict.fromkeys(probes, StageHealth()))

    @property
    def health(self) -> Health:
        """As of the last round."""
        return self._health

    def tell(self, listener: Listener) -> None:
        """Call `listener` after each round."""
        self._listeners.append(listener)

    async def run(self) -> None:
        """Probe until cancelled."""
        while True:
            await self.probe()
            await asyncio.sleep(self._interval_s)

    async def probe(self) -> bool:
        """One round, all stages at once. True if every one answers."""
        stages = list(self._probes)
        answers = dict(zip(stages, await asyncio.gather(*(self._answers(stage) for stage in stages)), strict=True))
        self._asked.update(stages)
        answering = all(stage.serving for stage in answers.values())
        self._health = Health(answering and not self._stopping, answers)
        for listener in self._listeners:
            await listener(self._health)
        return answering

    def stop_serving(self) -> None:
        """Not ready from now on, whatever the stages answer."""
        self._stopping = True
        self._health = Health(ready=False, stages=self._health.stages)

    async def _answers(self, stage: str) -> StageHealth:
        try:
            async with asyncio.timeout(self._timeout_s):
                return StageHealth(serving=True, present=await self._probes[stage]() is not False)
        except Exception as error:  # noqa: BLE001 - a probe may fail in any way; each means the same
            if self._health.stages[stage].serving or stage not in self._asked:
                log.warning("stage %s does not answer: %r", stage, error)
            return StageHealth()
