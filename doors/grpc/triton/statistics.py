"""Counts inferences a model, for ModelStatistics. Of this front door, since its start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from doors.grpc.triton import kserve_pb2 as pb
from doors.grpc.triton.contract import VERSION
from model_core.types import FrameChunk

_NS = 1_000_000_000


@dataclass(slots=True)
class _Duration:
    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds

    def message(self) -> pb.StatisticDuration:
        return pb.StatisticDuration(count=self.count, ns=round(self.seconds * _NS))


@dataclass(slots=True)
class ModelCounts:
    """Of one model. An inference is a request, an execution is a chunk."""

    success: _Duration = field(default_factory=_Duration)
    failure: _Duration = field(default_factory=_Duration)
    queue: _Duration = field(default_factory=_Duration)
    compute: _Duration = field(default_factory=_Duration)
    last_at: float = 0.0

    def made(self, chunk: FrameChunk) -> None:
        """A chunk is made."""
        self.queue.add(sum(timing.queue_s for timing in chunk.timings))
        self.compute.add(sum(timing.service_s for timing in chunk.timings))

    def message(self, name: str) -> pb.ModelStatistics:
        return pb.ModelStatistics(
            name=name, version=VERSION, last_inference=round(1000 * self.last_at), inference_count=self.success.count,
            execution_count=self.compute.count,
            inference_stats=pb.InferStatistics(
                success=self.success.message(), fail=self.failure.message(), queue=self.queue.message(),
                compute_infer=self.compute.message(),
            ),
        )  # fmt: skip


class Statistics:
    """Of all models.

    Args:
        now: seconds since some fixed moment.
        wall: Unix time.
    """

    def __init__(self, now: Callable[[], float], wall: Callable[[], float]) -> None:
        self._now = now
        self._wall = wall
        self._models: dict[str, ModelCounts] = {}

    def of(self, model: str) -> ModelCounts:
        """`model` must be a served one's name."""
        return self._models.setdefault(model, ModelCounts())

    @contextmanager
    def inference(self, model: str) -> Iterator[ModelCounts]:
        """Count the body as an inference, which fails if the body raises."""
        counts, began = self.of(model), self._now()
        counts.last_at = self._wall()
        try:
            yield counts
        except BaseException:
            counts.failure.add(self._now() - began)
            raise
        counts.success.add(self._now() - began)
