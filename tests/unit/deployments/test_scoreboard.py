from __future__ import annotations

from prometheus_client import CollectorRegistry

from autoscaling.reports import ViewerTotals
from deployments.replicas.scoreboard import Scoreboard
from observability.metrics import Metrics


def test_what_viewers_saw_is_counted_against_the_objectives() -> None:
    metrics = Metrics(CollectorRegistry())
    board = Scoreboard(metrics)
    assert board.read(0) == ViewerTotals(0, 0, 0, 0, 0)
    for lateness_s in (0.0, 0.0, 0.3):
        metrics.of("a").chunk_lateness_seconds.observe(lateness_s)
    for model, ttff_s in (("a", 0.4), ("a", 1.0), ("b", 1.2)):
        metrics.of(model).ttff_seconds.observe(ttff_s)
    metrics.of("b").prompt_switch_seconds.observe(0.2)
    assert board.read(5) == ViewerTotals(prompts=6, chunks=3, late_chunks=1, first_frames=3, late_first_frames=1)
