"""What the stages can serve now: every replica's own statistics, asked for again and again, for the admission desk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from autoscaling.capacity.estimate import CapacityEstimator, DecodeReading, DenoiseReading
from autoscaling.reports import ReplicaReport
from service.admission.desk import AdmissionDesk

Poll = Callable[[], Awaitable[Sequence[ReplicaReport]]]

log = logging.getLogger(__name__)


class CapacityMonitor:
    """Polls stages, and tells the desk.

    Args:
        denoisers, decoders: return the report of each replica that answers.
        estimator: turns them into a capacity.
        desk: is told.
        interval_s: between two rounds.
    """

    def __init__(self, denoisers: Poll, decoders: Poll, estimator: CapacityEstimator, desk: AdmissionDesk, interval_s: float = 1.0) -> None:
        self._denoisers = denoisers
        self._decoders = decoders
        self._estimator = estimator
        self._desk = desk
        self._interval_s = interval_s
        self._answering = True

    async def run(self) -> None:
        """Poll until cancelled. A round that fails changes nothing."""
        while True:
            try:
                await self.observe()
                self._answering = True
            except Exception as error:  # noqa: BLE001 - a stage that is away may fail in any way; health tells of it
                if self._answering:
                    log.warning("no statistics of the stages, the capacity known last stands: %r", error)
                self._answering = False
            await asyncio.sleep(self._interval_s)

    async def observe(self) -> None:
        """One round."""
        before = self._playing()
        denoise, decode = await asyncio.gather(self._denoisers(), self._decoders())
        capacity = self._estimator.observe(
            [DenoiseReading.of(report) for report in denoise],
            [DecodeReading.of(report) for report in decode],
            max(before, self._playing()),
        )
        self._desk.observe(capacity)

    def _playing(self) -> int:
        """Those that the replicas know of: who pauses has a slot in admission, and none on a replica."""
        statistics = self._desk.statistics()
        return statistics.live - statistics.paused
