from __future__ import annotations

from prometheus_client import CollectorRegistry

from deployments.replicas.scoreboard import Score, Scoreboard
from observability.metrics import Metrics


def test_what_viewers_saw_is_counted_against_the_objectives() -> None:
    metrics = Metrics(CollectorRegistry())
    board = Scoreboard(metrics)
    assert board.read(0) == Score(0, 0, 0, 0, 0)
    for lateness_s in (0.0, 0.0, 0.3):
        metrics.chunk_lateness_seconds.observe(lateness_s)
    for ttff_s in (0.4, 1.0, 1.2):
        metrics.ttff_seconds.observe(ttff_s)
    metrics.prompt_switch_seconds.observe(0.2)
    assert board.read(5) == Score(prompts=6, chunks=3, late_chunks=1, first_frames=3, late_first_frames=1)
