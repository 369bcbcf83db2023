"""`grpc.health.v1`, driven by asking the stages. The whole is SERVING only while every stage answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

from model_core.tasks import cancel_and_wait

Probe = Callable[[], Awaitable[object]]

OVERALL = ""
STAGE_PREFIX = "stage/"
REPLICA_PREFIX = "replica/"  # SERVING while a replica of the stage answers; a stage may count as able to serve without one

_LAST_CHANGE_S = 0.2

log = logging.getLogger(__name__)


class _Servicer(health_aio.HealthServicer):  # type: ignore[misc]  # carries no types
    """The standard servicer, but that its watches end."""

    def __init__(self) -> None:
        super().__init__()
        self._over = asyncio.Event()

    def end_watches(self) -> None:
        self._over.set()

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: N802 - the contract's name
        watching = asyncio.create_task(super().Watch(request, context))
        over = asyncio.create_task(self._over.wait())
        try:
            await asyncio.wait({watching, over}, return_when=asyncio.FIRST_COMPLETED)
            # For the last change to be written.
            await asyncio.wait({watching}, timeout=_LAST_CHANGE_S)
        finally:
            await cancel_and_wait(watching, over)


class HealthMonitor:
    """Probes stages again and again, and tells the health servicer.

    Args:
        probes: by stage name; one that returns within the timeout says the stage can serve, one that raises says it cannot. False says
            that it can although no replica is there.
        services: names, besides the overall "", that stand for the whole.
        interval_s: between two rounds.
        timeout_s: for one answer.
    """

    def __init__(self, probes: Mapping[str, Probe], services: tuple[str, ...], interval_s: float = 1.0, timeout_s: float = 5.0) -> None:
        self.servicer = _Servicer()
        self._probes = probes
        self._whole = (OVERALL, *services)
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._last: dict[str, bool] = {}
        self._stopping = False

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that can be checked."""
        return (*self._whole, *(prefix + name for prefix in (STAGE_PREFIX, REPLICA_PREFIX) for name in self._probes))

    @property
    def serving(self) -> bool:
        """Whether the whole serves, as of the last round."""
        return self._last.get(OVERALL, False) and not self._stopping

    async def begin(self) -> None:
        """NOT_SERVING for all, until a round of probes says otherwise."""
        for name in self.names:
            await self.servicer.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)

    async def run(self) -> None:
        """Probe until cancelled."""
        while True:
            await self.probe()
            await asyncio.sleep(self._interval_s)

    async def probe(self) -> bool:
        """One round, all stages at once. True if every one answers."""
        stages = list(self._probes)
        answers = dict(zip(stages, await asyncio.gather(*(self._answers(stage) for stage in stages)), strict=True))
        for stage, (serving, present) in answers.items():
            await self._tell(STAGE_PREFIX + stage, serving)
            await self._tell(REPLICA_PREFIX + stage, present)
        ready = all(serving for serving, _ in answers.values())
        for name in self._whole:
            await self._tell(name, ready)
        return ready

    async def stop_serving(self) -> None:
        """NOT_SERVING for all, for good. Who watches is told, and its watch ends: it must not hold up the server's stop."""
        self._stopping = True
        await self.servicer.enter_graceful_shutdown()
        self.servicer.end_watches()

    async def _answers(self, stage: str) -> tuple[bool, bool]:
        """Whether it can serve, and whether a replica of it is there."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return True, await self._probes[stage]() is not False
        except Exception as error:  # noqa: BLE001 - a probe may fail in any way; each means the same
            if self._last.get(STAGE_PREFIX + stage, True):
                log.warning("stage %s does not answer: %r", stage, error)
            return False, False

    async def _tell(self, name: str, serving: bool) -> None:
        if self._last.get(name) != serving:
            self._last[name] = serving
            state = health_pb2.HealthCheckResponse
            await self.servicer.set(name, state.SERVING if serving else state.NOT_SERVING)
