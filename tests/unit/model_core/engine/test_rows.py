"""A session's bits do not depend on who is beside it, whatever the widths and whatever the processor does with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from diffusers import CogVideoXTransformer3DModel, LTXVideoTransformer3DModel, WanTransformer3DModel
from torch import Tensor, nn

from model_core.config import EngineConfig
from model_core.engine.engine import Engine
from model_core.families.causal_wan.parts import CausalWanSampler
from model_core.families.cogvideox.parts import CogVideoXGraph, CogVideoXSampler
from model_core.families.interface import Sampler
from model_core.families.ltx.parts import LTXGraph, LTXSampler
from model_core.families.wan.parts import WanGraph, WanSampler
from model_core.graphs import DENOISER, Bucket, GraphSpec
from model_core.nn.causal_dit import KeyValue
from model_core.runtimes.rows import RowsApart, apart
from tests import checkpoints
from tests.models import SMALL_DIT, Collector, make, new_engine, random_context, random_dit, small_config

BUCKETS = (1, 2, 3, 4, 8)


class Counted:
    """A graph of two inputs; notes how many rows each run has. Where `odd`, it rounds a row by how many there are."""

    def __init__(self, *, odd: bool) -> None:
        self.odd, self.runs = odd, list[int]()

    def __call__(self, pair: KeyValue, shared: Tensor) -> list[Tensor]:
        self.runs.append(len(pair.key))
        return [pair.key * shared + pair.value, pair.key + (len(pair.key) * 1e-6 if self.odd else 0.0)]


def test_rows_that_a_batch_would_change_run_one_after_the_other_and_all_others_together() -> None:
    for odd, expected in ((False, [1, 1, 1, 3, 3, 3]), (True, [1, 1, 1, 3, 1, 1, 1, 1, 1, 1])):
        graph = Counted(odd=odd)
        call = RowsApart(graph)
        pair, shared = KeyValue(torch.arange(6.0).view(3, 2), torch.ones(3, 2)), torch.tensor([[2.0, 3.0]])
        alone = [Counted(odd=odd)(KeyValue(pair.key[i : i + 1], pair.value[i : i + 1]), shared) for i in range(3)]
        for _ in range(3):
            for made, parts in zip(call(pair, shared), zip(*alone, strict=True), strict=True):
                assert torch.equal(made, torch.cat(parts))
        assert graph.runs == expected


def test_each_shape_is_judged_by_itself_and_one_row_runs_as_it_is() -> None:
    graph = Counted(odd=True)
    call, shared = RowsApart(graph), torch.ones(1, 2)
    for rows in (1, 2, 2, 3, 1):
        call(KeyValue(torch.ones(rows, 2), torch.ones(rows, 2)), shared)
    assert graph.runs == [1, 1, 1, 2, 1, 1, 1, 1, 1, 3, 1]


def test_only_graphs_that_sessions_share_are_watched() -> None:
    class Network(nn.Module):
        def one(self, x: Tensor) -> Tensor:
            return x

        def many(self, x: Tensor) -> Tensor:
            return x

    network = Network()
    wrap = apart([
        GraphSpec(DENOISER, "one", Bucket(4), network, "one", lambda _: (torch.ones(4),)),
        GraphSpec(DENOISER, "many", Bucket(4), network, "many", lambda _: (torch.ones(4),), shared=True),
    ])  # fmt: skip
    assert wrap(network.one) == network.one
    assert isinstance(wrap(network.many), RowsApart)


@pytest.mark.parametrize(("threads", "tokens", "together"), [(1, 1024, True), (2, 256, True), (2, 1024, False)])
def test_rows_that_several_threads_would_cut_up_run_one_after_the_other(threads: int, tokens: int, together: bool) -> None:
    """What a thread ends with may fill no whole vector, and where threads meet depends on how many rows there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        runs: list[int] = []

        def graph(x: Tensor) -> Tensor:
            runs.append(len(x))
            return F.silu(x)

        call, x = RowsApart(graph), torch.randn(2, tokens, 64)
        call(x)
        runs.clear()
        call(x)
        assert runs == ([2] if together else [1, 1])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("width", [20, 33, 36, 63, 64])
@pytest.mark.parametrize("tokens", [1, 9, 32])
def test_layers_of_any_width_give_a_row_the_bits_that_it_has_alone(width: int, tokens: int) -> None:
    """Alone, and at every place of every batch: a matrix product, each activation that a network here has, attention and norms."""
    draw = torch.Generator().manual_seed(1)
    first, last = (torch.randn(*shape, generator=draw) for shape in ((3 * width, width), (width, 3 * width)))

    def graph(x: Tensor) -> Tensor:
        h = F.linear(F.layer_norm(x, x.shape[-1:]), first)
        parts = [f(h) for f in (F.silu, F.gelu, lambda y: F.gelu(y, approximate="tanh"), torch.sigmoid, torch.tanh, F.softplus, torch.exp)]
        q = F.linear(torch.stack(parts).mean(0), last)[:, None]
        return F.rms_norm(F.scaled_dot_product_attention(q, q.flip(-1), q)[:, 0], (width,))

    rows = torch.randn(max(BUCKETS), tokens, width, generator=draw)
    call = RowsApart(graph)
    alone = [graph(row.clone()[None]) for row in rows]
    for batch in BUCKETS[1:]:
        for _ in range(2):  # the first one is computed both ways
            made = call(rows[-batch:])
            assert [torch.equal(made[i], alone[i - batch][0]) for i in range(batch)] == [True] * batch


def test_the_embedded_network_at_widths_that_vectors_do_not_divide() -> None:
    """15 tokens of 36, and 108 within: neither fills whole vectors of 8 or 16."""
    dit = replace(SMALL_DIT, latent_frames=1, latent_height=6, latent_width=10, width=36, heads=2, mlp_ratio=3)
    config = replace(small_config(), dit=dit)
    network = random_dit(dit)
    contexts = [random_context(f"session {i}", config, chunks=3, num_steps=1 + i % 3, seed=i) for i in range(8)]
    company_keeps_bits(lambda: new_engine(network, config, EngineConfig(batch_buckets=BUCKETS)), contexts)


def wan() -> tuple[str, Sampler]:
    config, _, served = checkpoints.parts("wan")
    transformer = odd(WanTransformer3DModel, served, ffn_dim=36, num_attention_heads=1, attention_head_dim=18)
    return "wan", WanSampler(config, BUCKETS, cast("Any", served)._schedule, [WanGraph(transformer, config)], None)  # noqa: SLF001


def causal_wan() -> tuple[str, Sampler]:
    config, _, _ = checkpoints.parts("causal-wan")
    _, _, plain = checkpoints.parts("wan")
    transformer = odd(WanTransformer3DModel, plain, ffn_dim=36, num_attention_heads=1, attention_head_dim=18)
    return "causal-wan", CausalWanSampler(transformer, config, BUCKETS)


def ltx() -> tuple[str, Sampler]:
    config, _, served = checkpoints.parts("ltx")
    transformer = odd(LTXVideoTransformer3DModel, served, num_attention_heads=1, attention_head_dim=18, cross_attention_dim=18)
    return "ltx", LTXSampler(config, BUCKETS, cast("Any", served)._schedule, LTXGraph(transformer, config))  # noqa: SLF001


def cogvideox() -> tuple[str, Sampler]:
    config, _, served = checkpoints.parts("cogvideox")
    transformer = odd(CogVideoXTransformer3DModel, served, num_attention_heads=1, attention_head_dim=16, time_embed_dim=12)
    return "cogvideox", CogVideoXSampler(config, BUCKETS, cast("Any", served)._schedule, CogVideoXGraph(transformer, config))  # noqa: SLF001


def odd(network: Any, like: Sampler, **sizes: int) -> Any:
    """A network as the one that `like` runs, of other sizes, with random weights."""
    calls = cast("Any", like)._program._calls  # noqa: SLF001 - the way to the network that a sampler was made with
    settings = dict(calls["denoise"]._call.__self__.transformer.config)  # noqa: SLF001
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return network.from_config(settings | sizes).eval().requires_grad_(requires_grad=False)


@pytest.mark.parametrize("family", [wan, causal_wan, ltx, cogvideox])
def test_a_family_at_widths_that_vectors_do_not_divide(family: Callable[[], tuple[str, Sampler]]) -> None:
    name, sampler = family()
    config = checkpoints.parts(name)[0]
    contexts = [checkpoints.context(name, f"clip {i}" * i, seed=i, steps=2 + i % 2) for i in range(5)]
    if config.grid.chunks is None:
        contexts = [replace(context, num_frames=config.grid.first_frame(3)) for context in contexts]
    company_keeps_bits(lambda: Engine(sampler, config, EngineConfig(batch_buckets=BUCKETS)), contexts)


def company_keeps_bits(engine: Callable[[], Engine], contexts: list[Any]) -> None:
    """Sessions that come one after the other, so that they stand at other steps, against each of them alone."""
    collector = Collector(engine())
    sessions = []
    for context in contexts:
        sessions.append(collector.open(context))
        collector.step()
    collector.run()
    for session, context in zip(sessions, contexts, strict=True):
        alone = make(engine(), context)
        assert len(alone) > 0
        assert [a.tobytes() for a in collector.latents(session)] == [b.tobytes() for b in alone]
