"""Every graph has static shapes: checked on each graph, and by counting what a compiler is given while sessions come and go."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from bench.models import gate
from model_core.compiler.export import export
from model_core.config import EngineConfig
from model_core.graphs import GraphSpec
from model_core.nn.causal_dit import CausalDiT, KeyValue, Modulation, TextCondition
from model_core.nn.enhancer import Enhancer
from model_core.nn.graphs import causal_denoiser_graphs, decoder_graphs, enhancer_graphs
from model_core.nn.vae import VAE
from model_core.presets import millrace_64
from model_core.types import Latents
from tests.models import Collector, new_engine, random_context, random_dit, resumed, small_config

P = ParamSpec("P")
T = TypeVar("T")

ROOT = Path(__file__).parents[3]
CONFIG = millrace_64()
DIT = replace(CONFIG.dit, depth=2)  # the layers are alike; two show how they are joined
ROWS = 2


def graphs() -> dict[str, GraphSpec]:
    """Every graph of the embedded model's own networks, in one bucket each; the text encoder's has a test where it stands."""
    config = replace(CONFIG, dit=DIT)
    denoiser = causal_denoiser_graphs(random_dit(DIT), config, (ROWS,))
    decoder = decoder_graphs(VAE(CONFIG.vae).requires_grad_(requires_grad=False), config)
    enhancer = enhancer_graphs(Enhancer().requires_grad_(requires_grad=False), config)
    return {spec.name: spec for spec in (*denoiser, *decoder, *enhancer)}


GRAPHS = graphs()


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_that_serves_is_static(name: str) -> None:
    assert export(GRAPHS[name]).faults == ()


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_that_serves_compiles_whole(name: str) -> None:
    graph, inputs = GRAPHS[name].module(), GRAPHS[name].inputs(torch.float32)
    compiled = torch.compile(graph, fullgraph=True, dynamic=False, backend="eager")
    with torch.inference_mode():
        torch.testing.assert_close(compiled(*inputs), graph(*inputs))


@pytest.mark.parametrize(
    ("network", "operator", "why"),
    [
        (gate.ReadsAValue(), "item", "reads a value back to the host"),
        (gate.BranchesOnAValue(), "gt", "cannot be exported: Data-dependent branching"),
        (gate.GrowsWithItsData(), "index", "symbolic shape"),
        (gate.GrowsABuffer(), "cat", "grows buffer network.cache from (2,) to (6,)"),
        (gate.GrowsItsInput(), "cat", "returns its input"),
        (gate.CopiesByIndex(), "index_copy", "becomes a scatter"),
        (gate.Double(), "to", "float64"),
        (gate.Complex(), "view_as_complex", "complex"),
        (gate.Sorts(), "sort", "is a sort"),
        (gate.Scatters(), "scatter", "is a scatter"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_is_not_static_is_named_with_its_line(network: nn.Module, operator: str, why: str) -> None:
    faults = [fault for fault in export(gate.bad_graph(network)).faults if operator in fault.operator and why in str(fault)]
    assert faults
    path, _, line = faults[0].where.rpartition(":")
    assert path == gate.__file__
    assert "x" in Path(path).read_text().splitlines()[int(line) - 1]


@pytest.mark.timeout(900)
def test_the_demonstration_shows_every_kind_refused_with_its_operator_and_its_line() -> None:
    """In a process of its own, as JAX wants it."""
    done = subprocess.run([sys.executable, "-m", "bench.models.gate"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(gate.BAD)} of {len(gate.BAD)} bad graphs refused" in done.stdout
    refused = done.stdout.split("refused  ")[1:]
    assert len(refused) == len(gate.BAD)
    assert all(re.search(r"\n    \S.* at \S+gate\.py:\d+: .+\n        \S", part) for part in refused), done.stdout


# -- while serving ------------------------------------------------------------------------------------------------------------


class Counting(CausalDiT):
    """The network with each graph compiled, whole and for fixed shapes; `compiled` counts the compilations."""

    def __init__(self) -> None:
        reference = random_dit()
        super().__init__(reference.config)
        self.load_state_dict(reference.state_dict())
        self.requires_grad_(requires_grad=False)
        self.compiled: Counter[str] = Counter()
        self._condition = self._compile("condition", super().condition)
        self._modulate = self._compile("modulate", super().modulate)
        self._denoise = self._compile("denoise", super().denoise)
        self._commit = self._compile("commit", super().commit)

    def condition(self, tokens: Tensor, mask: Tensor) -> TextCondition:
        return self._condition(tokens, mask)

    def modulate(self, t: Tensor, pooled: Tensor) -> Modulation:
        return self._modulate(t, pooled)

    def denoise(self, x_t: Tensor, step: Modulation, text: TextCondition, cache: list[KeyValue], cache_mask: Tensor | None) -> Tensor:
        return self._denoise(x_t, step, text, cache, cache_mask)

    def commit(self, x_0: Tensor) -> list[KeyValue]:
        return self._commit(x_0)

    def _compile(self, name: str, graph: Callable[P, T]) -> Callable[P, T]:
        def backend(module: GraphModule, _: list[Tensor]) -> Callable[..., object]:
            self.compiled[name] += 1
            return module.forward

        return torch.compile(graph, fullgraph=True, dynamic=False, backend=backend)


def test_sessions_that_come_and_go_need_no_graph_that_was_not_warm() -> None:
    """Any number of sessions, steps and chunks in the past: one graph a bucket for `denoise` and `commit`, one for the others."""
    config, model, buckets = small_config(), Counting(), (1, 3)
    engine = new_engine(model, config, EngineConfig(batch_buckets=buckets))
    engine.warm_up()
    # The rows that `modulate` is warmed with lie one behind the other; a session's are one row, spread. An eager program takes both.
    warm = {"condition": 1, "modulate": 2, "denoise": len(buckets), "commit": len(buckets)}
    assert model.compiled == warm

    collector = Collector(engine)
    past: list[Latents] = []
    for steps in (1, 2, 3, 5, 16):
        session = collector.open(resumed(random_context(f"{steps} steps", config, chunks=len(past) + steps % 4, num_steps=steps), past, 3))
        collector.step()
        past += collector.latents(session)
    collector.run()
    assert engine.statistics().chunks > 5
    assert model.compiled == warm


def test_a_cache_that_grows_is_compiled_again_and_again() -> None:
    """The count above can tell: the usual cache, which grows by concatenation, needs a new graph for every chunk."""
    compiled = 0

    def backend(module: GraphModule, _: list[Tensor]) -> Callable[..., object]:
        nonlocal compiled
        compiled += 1
        return module.forward

    grow = torch.compile(lambda cache, chunk: torch.cat([cache, chunk], 1), fullgraph=True, dynamic=False, backend=backend)
    cache = torch.zeros(1, 0, 8)
    for _ in range(4):
        cache = grow(cache, torch.ones(1, 2, 8))
    assert compiled == 4
