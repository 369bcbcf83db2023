"""Where a stream's milliseconds went, from the timings that chunks carry. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.v1 import video_pb2 as wire


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds that chunks waited for a stage and were worked on in it: medians and the worst."""

    stage: str
    chunks: int
    queue_p50_s: float
    queue_max_s: float
    service_p50_s: float
    service_max_s: float


def per_stage(chunks: Sequence[wire.Frames]) -> list[Times]:
    """One row for each stage, in the order in which chunks pass them. Stages that no chunk went through are left out."""
    queue: dict[str, list[float]] = {}
    service: dict[str, list[float]] = {}
    for chunk in chunks:
        for timing in chunk.timings:
            queue.setdefault(timing.stage, []).append(timing.queue_seconds)
            service.setdefault(timing.stage, []).append(timing.service_seconds)
    return [
        Times(stage, len(waits), median(waits), max(waits), median(service[stage]), max(service[stage])) for stage, waits in queue.items()
    ]


def first_frame(ttff_s: float, chunk: wire.Frames) -> list[tuple[str, float]]:
    """The time to first frame by stage, queue and service together, and what is left: transport, hand-over, the client itself."""
    parts = [(timing.stage, timing.queue_seconds + timing.service_seconds) for timing in chunk.timings]
    return [*parts, ("rest", ttff_s - sum(seconds for _, seconds in parts))]
