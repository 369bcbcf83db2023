"""Every graph has static shapes: checked on each graph, and by counting what a compiler is given while sessions come and go."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import ParamSpec, TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from model_core.config import EngineConfig
from model_core.nn.causal_dit import MASKED, CausalDiT, KeyValue, Modulation, TextCondition
from model_core.nn.static_gate import static_faults
from model_core.nn.vae import VAE
from model_core.presets import millrace_64
from model_core.types import Latents
from tests.models import Collector, new_engine, random_context, random_dit, resumed, small_config

P = ParamSpec("P")
T = TypeVar("T")

CONFIG = millrace_64()
DIT = replace(CONFIG.dit, depth=2)  # the layers are alike; two show how they are joined
LATENTS = (DIT.latent_channels, DIT.latent_frames, DIT.latent_height, DIT.latent_width)
ROWS = 2


class Graph(nn.Module):
    """One entry point of a network, as the module that an exporter wants."""

    def __init__(self, network: nn.Module, call: Callable[..., object]) -> None:
        super().__init__()
        self.network = network
        self._call = call

    def forward(self, *inputs: object) -> object:
        return self._call(*inputs)


def graphs() -> dict[str, tuple[nn.Module, tuple[object, ...]]]:
    """Every graph that serves, and inputs of one of its shapes."""
    dit, vae = CausalDiT(DIT).requires_grad_(requires_grad=False), VAE(CONFIG.vae).requires_grad_(requires_grad=False)
    tokens, mask = torch.randn(1, CONFIG.text.max_tokens, DIT.text_width), torch.arange(CONFIG.text.max_tokens)[None] < 5
    latents = torch.randn(ROWS, *LATENTS)
    one = dit.condition(tokens, mask)
    words = [KeyValue(*(part.expand(ROWS, -1, -1) for part in layer)) for layer in one.layers]
    text = TextCondition(words, one.mask.expand(ROWS, -1), one.pooled)
    past = torch.randn(ROWS, DIT.window * DIT.tokens_per_chunk, DIT.width)
    cache_mask = torch.full(past.shape[:2], MASKED)
    times, pooled = torch.ones(CONFIG.max_steps), one.pooled.expand(CONFIG.max_steps, -1)
    step = dit.modulate(times[:ROWS], pooled[:ROWS])
    memory = vae.new_memory(vae.decoder, 1, CONFIG.height, CONFIG.width)
    return {
        "condition": (Graph(dit, dit.condition), (tokens, mask)),
        "modulate": (Graph(dit, dit.modulate), (times, pooled)),
        "denoise": (Graph(dit, dit.denoise), (latents, step, text, [KeyValue(past, past)] * DIT.depth, cache_mask)),
        "commit": (Graph(dit, dit.commit), (latents,)),
        "decode": (Graph(vae, vae.decode), (latents[:1], memory)),
    }


GRAPHS = graphs()


class ReadsAValue(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.sum().item()


class BranchesOnAValue(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x


class GrowsWithItsData(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x[x > 0]])


class Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.double().sin().float()


class Complex(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.view_as_real(torch.view_as_complex(x.reshape(-1, 2)) * 1j)


class Sorts(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sort().values


class Scatters(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.scatter(0, torch.zeros(2, dtype=torch.int64), 1.0)


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_that_serves_is_static(name: str) -> None:
    graph, inputs = GRAPHS[name]
    assert static_faults(graph, inputs) == []


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_that_serves_compiles_whole(name: str) -> None:
    graph, inputs = GRAPHS[name]
    compiled = torch.compile(graph, fullgraph=True, dynamic=False, backend="eager")
    with torch.inference_mode():
        torch.testing.assert_close(compiled(*inputs), graph(*inputs))


@pytest.mark.parametrize(
    ("graph", "fault"),
    [
        (ReadsAValue(), "_local_scalar_dense|item"),
        (BranchesOnAValue(), "cannot be exported"),
        (GrowsWithItsData(), "symbol"),
        (Double(), "float64"),
        (Complex(), "complex64"),
        (Sorts(), "sort"),
        (Scatters(), "scatter"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else value,
)
def test_the_check_finds_what_is_not_static(graph: nn.Module, fault: str) -> None:
    assert any(re.search(fault, line) for line in static_faults(graph, (torch.randn(4),)))


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
    warm = {"condition": 1, "modulate": 1, "denoise": len(buckets), "commit": len(buckets)}
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
