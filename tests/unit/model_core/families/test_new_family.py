"""A new family is a folder and a line: `tests/toy_family/` is one, and the line is in its `stages.py`."""

from __future__ import annotations

import importlib
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import torch

from model_core.compiler.walk import check_model
from model_core.config import EngineConfig
from model_core.errors import WeightsError
from model_core.families.checkpoints.checkpoint import Checkpoint
from model_core.families.common.config import CheckpointConfig
from model_core.families.common.solvers import SOLVERS
from model_core.families.described import Choice, describe
from model_core.families.registry import FAMILIES, families, family, networks, tiny_checkpoints
from model_core.families.tiny import make_tiny
from model_core.fingerprint import model_fingerprint
from model_core.local import LocalPipeline
from tests import toy_family
from tests.toy_family.stages import FOLDERS


@cache
def folder() -> Path:
    path = Path(mkdtemp(prefix="headrace-test-")) / "toy"
    make_tiny("toy", path, FOLDERS)
    return path


def config() -> CheckpointConfig:
    return describe(Choice(checkpoint=Checkpoint(folder=str(folder()))), FOLDERS)


def test_a_new_family_is_listed_wherever_families_are() -> None:
    assert set(families(FOLDERS)) == {*families(), "toy"}
    assert set(tiny_checkpoints(FOLDERS)) == {*tiny_checkpoints(), "toy"}
    assert set(networks(FOLDERS)) == {*networks(), "ToyTransformer"}
    assert {Path(path).resolve().name for path in toy_family.__path__} == {"toy_family"}


def test_a_new_family_is_described() -> None:
    described = config()
    assert (described.family, described.height, described.width, described.grid.max_frames) == ("toy", 32, 48, 9)
    assert model_fingerprint(described) == model_fingerprint(config())


def test_a_checkpoint_of_a_family_that_is_not_registered_is_refused() -> None:
    with pytest.raises(WeightsError, match="a checkpoint of 'ToyPipeline', which is not any of anyflow-far, causal-wan"):
        describe(Choice(checkpoint=Checkpoint(folder=str(folder()))))


def test_settings_and_weights_of_a_new_family_are_checked(tmp_path: Path) -> None:
    make_tiny("toy", tmp_path / "toy", FOLDERS)
    (tmp_path / "toy/SHA256SUMS").unlink()
    path = tmp_path / "toy/transformer/config.json"
    path.write_text(path.read_text().replace('"out_channels": 4', '"out_channels": 4, "heads": 2'))
    with pytest.raises(WeightsError, match="has heads, a setting that ToyTransformer does not know"):
        describe(Choice(checkpoint=Checkpoint(folder=str(tmp_path / "toy"))), FOLDERS)


@pytest.mark.parametrize("stage", ["denoiser", "decoder"])
def test_every_graph_of_a_new_family_passes_the_gate(stage: str) -> None:
    """Its text encoder is that of the other families."""
    reports = check_model("tests.toy_family.stages", config(), EngineConfig(batch_buckets=(1, 2)), stage)
    assert {report.stage for report in reports} == {stage}
    assert [(report.key, report.faults) for report in reports if not report.passed] == []


def test_a_new_family_is_served_in_process() -> None:
    torch.set_num_threads(1)
    pipeline = LocalPipeline(config(), EngineConfig(batch_buckets=(1, 2)), FOLDERS)
    clip = pipeline.generate("a red circle", seed=7)
    assert clip.shape == (9, 32, 48, 3)
    np.testing.assert_array_equal(pipeline.generate("a red circle", seed=7), clip)
    assert np.any(pipeline.generate("a red circle", seed=8) != clip)
    assert np.any(pipeline.generate("a dog", seed=7) != clip)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_family_says_what_is_so(folder: str) -> None:
    made = families((folder,))
    (described,) = made.values()
    assert described.package == folder
    assert callable(described.parts.sampler)
    if described.kind is not None:
        assert callable(importlib.import_module(f"{folder}.tiny").make)
        assert described.name in {tiny.name for tiny in described.tiny}
        solved = described.kind.solved
        assert solved is None or not solved.predicts or set(solved.names) <= set(SOLVERS)


def test_all_that_is_registered_is_described_without_torch() -> None:
    code = "import sys; from model_core.families.registry import families; assert len(families()) > 5; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_names_of_families_are_not_taken_twice() -> None:
    assert len(families()) == len(FAMILIES)
    assert family("wan").name == "wan"
    assert len(tiny_checkpoints()) == sum(len(each.tiny) for each in families().values())
