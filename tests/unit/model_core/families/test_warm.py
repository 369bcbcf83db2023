"""A denoiser runs every graph before the first session comes, also those that a session only comes to later."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from model_core.config import EngineConfig
from model_core.engine.engine import Engine
from model_core.families.registry import family
from model_core.runtimes import cpu
from model_core.runtimes.program import Done, HostProgram, Signature, signature
from tests import checkpoints
from tests.models import Collector

BUCKETS = (1, 2)
Runs = set[tuple[str, Signature]]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Graph and shapes of what programs on the host run."""
    seen: Runs = set()

    class Noted(HostProgram):
        def run(self, graph: str, *inputs: Any) -> Done:
            seen.add((graph, signature(inputs)))
            return super().run(graph, *inputs)

    monkeypatch.setattr(cpu, "HostProgram", Noted)
    return seen


@pytest.mark.parametrize(
    ("name", "graphs"), [("wan-2.2", {"denoise", "denoise1"}), ("anyflow-far", {"condition", "modulate", "denoise", "commit"})]
)
def test_no_session_is_the_first_to_run_a_graph_in_a_shape(name: str, graphs: set[str], ran: Runs) -> None:
    torch.set_num_threads(1)
    settings, sizes = checkpoints.config(name), EngineConfig(slots=4, batch_buckets=BUCKETS)
    engine = Engine(family(settings.family).parts.sampler(settings, sizes), settings, sizes)
    clips = [checkpoints.context(name, f"clip {seed}", seed, steps=4) for seed in range(3)]
    ran.clear()
    engine.warm_up()
    warm = set(ran)
    assert {graph for graph, _ in warm} == graphs

    ran.clear()
    collector = Collector(engine)
    for clip in clips:
        collector.open(clip)
    collector.run()
    assert {graph for graph, _ in ran} == graphs
    assert ran <= warm
