"""Graphs of the streaming families: each is listed once, runs on the inputs listed with it, and exports whole, with fixed shapes."""

from __future__ import annotations

import pytest
import torch

from model_core.compiler.export import export
from model_core.config import EngineConfig
from model_core.families.registry import family
from model_core.graphs import DENOISER
from tests import checkpoints


@pytest.mark.parametrize(
    ("name", "decoder", "names"),
    [
        ("causal-wan", "taehv", {"condition": 1, "modulate": 1, "denoise": 2, "commit": 2, "decode": 1}),
        ("anyflow-far", "", {"condition": 1, "modulate": 1, "denoise": 2 * 4, "commit": 2 * 3}),
    ],
)
def test_each_is_listed_once_and_runs_on_its_inputs(name: str, decoder: str, names: dict[str, int]) -> None:
    """AnyFlow's chunks are 1, 3, 3 and 2 latent frames, each behind another past; nothing is committed after the last."""
    config = checkpoints.config(name, decoder=decoder)
    graphs = family(name).parts.graphs(config, EngineConfig(batch_buckets=(1, 2)))
    assert len({spec.key for spec in graphs}) == len(graphs)
    assert {graph: sum(spec.name == graph for spec in graphs) for graph in names} == names
    with torch.inference_mode():
        for spec in graphs:
            spec.module()(*spec.inputs(torch.float32))


@pytest.mark.parametrize(("name", "decoder"), [("causal-wan", "taehv"), ("anyflow-far", "")])
def test_they_pass_the_exporters_checks(name: str, decoder: str) -> None:
    """No symbols, no complex or 64-bit floating numbers. The rest of the checks is `headrace compile`'s, which takes minutes."""
    graphs = family(name).parts.graphs(checkpoints.config(name, decoder=decoder), EngineConfig(batch_buckets=(2,)))
    own = [spec for spec in graphs if spec.stage == DENOISER or decoder == "taehv"]  # what Wan brings takes long, and is checked with Wan
    last = {spec.name: spec for spec in own}  # of AnyFlow's chunks, the one with the longest past
    for spec in last.values():
        assert [str(fault) for fault in export(spec).faults] == []
