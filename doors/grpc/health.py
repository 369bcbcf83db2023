"""`grpc.health.v1`, from what the stages answer. The whole is SERVING only while every stage answers."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

from model_core.tasks import cancel_and_wait
from service.health import Health, HealthMonitor

OVERALL = ""
STAGE_PREFIX = "stage/"
REPLICA_PREFIX = "replica/"  # SERVING while a replica of the stage answers; a stage may count as able to serve without one

_LAST_CHANGE_S = 0.2


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


class HealthReporter:
    """Tells the health servicer what the monitor finds.

    Args:
        monitor: probes the stages.
        services: names, besides the overall "", that stand for the whole.
    """

    def __init__(self, monitor: HealthMonitor, services: tuple[str, ...]) -> None:
        self.servicer = _Servicer()
        self._whole = (OVERALL, *services)
        self._stages = tuple(monitor.health.stages)
        self._last: dict[str, bool] = {}
        monitor.tell(self._tell)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that can be checked."""
        return (*self._whole, *(prefix + name for prefix in (STAGE_PREFIX, REPLICA_PREFIX) for name in self._stages))

    @property
    def serving(self) -> bool:
        """Whether the whole serves, as of the last round."""
        return self._last.get(OVERALL, False) and not self._stopping

    async def begin(self) -> None:
        """NOT_SERVING for all, until a round of probes says otherwise."""
        for name in self.names:
            await self._set(name, serving=False)

    async def stop_serving(self) -> None:
        """NOT_SERVING for all, for good. Who watches is told, and its watch ends: it must not hold up the server's stop."""
        self._stopping = True
        await self.servicer.enter_graceful_shutdown()
        self.servicer.end_watches()

    async def _tell(self, health: Health) -> None:
        for name, stage in health.stages.items():
            await self._set(STAGE_PREFIX + name, serving=stage.serving)
            await self._set(REPLICA_PREFIX + name, serving=stage.present)
        for name in self._whole:
            await self._set(name, serving=health.ready)

    async def _set(self, name: str, *, serving: bool) -> None:
        if self._last.get(name) != serving:
            self._last[name] = serving
            state = health_pb2.HealthCheckResponse
            await self.servicer.set(name, state.SERVING if serving else state.NOT_SERVING)
