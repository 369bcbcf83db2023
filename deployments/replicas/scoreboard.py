"""Totals of what viewers saw, out of the front door's own metrics: one count of each thing, for Prometheus and for scaling."""

from __future__ import annotations

import math

from prometheus_client import Histogram

from autoscaling.reports import ViewerTotals
from observability.catalogue import LATENESS_OBJECTIVE_S, TTFF_OBJECTIVE_S
from observability.metrics import Metrics


class Scoreboard:
    """Reads `metrics`; writes nothing."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def read(self, arrivals: int) -> ViewerTotals:
        """Now, after `arrivals` sessions, each of which has a prompt to embed."""
        chunks, late = _counted(self._metrics.chunk_lateness_seconds, LATENESS_OBJECTIVE_S)
        firsts, slow = _counted(self._metrics.ttff_seconds, TTFF_OBJECTIVE_S)
        switches, _ = _counted(self._metrics.prompt_switch_seconds, math.inf)
        return ViewerTotals(arrivals + switches, chunks, late, firsts, slow)


def _counted(histogram: Histogram, objective: float) -> tuple[float, float]:
    """Observations of all models, and those beyond `objective`, which is an edge of a bucket."""
    buckets = dict.fromkeys((objective, math.inf), 0.0)
    for family in histogram.collect():
        for sample in family.samples:
            if (edge := float(sample.labels.get("le", "nan"))) in buckets:
                buckets[edge] += sample.value
    return buckets[math.inf], buckets[math.inf] - buckets[objective]
