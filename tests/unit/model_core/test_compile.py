from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from autoscaling.capacity.profile import CapacityProfile
from deployments.cluster.local import STAGED_CONFIG
from headrace.cli import app
from model_core.compiler.stablehlo import difference
from model_core.roofline import BANDS, CHIPS, Work, seconds
from tests.rounding import usual_error

RUNNER = CliRunner()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The shipped application around three small graphs."""
    document: dict[str, Any] = yaml.safe_load(STAGED_CONFIG.read_text())
    args = document["applications"][0]["args"]
    args["stages"] = "tests.graphs_to_check"
    args["engine"] = {"batch_buckets": [1, 2], "runtime": {"compiled": True, "cache": str(tmp_path / "cache"), "require_warm": True}}
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_dry_run_checks_every_graph_and_leaves_a_manifest_that_starts_nothing(config: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = RUNNER.invoke(app, ["compile", "--config", str(config), "--dry-run", "--stage", "denoiser", "--json", str(report)])
    assert done.exit_code == 0, done.output
    assert "4 of 4 graphs passed" in done.output
    assert "estimate, one chip" in done.output
    assert done.output.rstrip().endswith("NOT COMPILED FOR NEURON")

    data = json.loads(report.read_text())
    rounding = 5 * usual_error(1.0, terms=8, sums=4)  # four products of 8 numbers, or 4 of a softmax
    assert all(graph["passed"] and graph["difference"] < rounding and len(graph["stablehlo_sha256"]) == 64 for graph in data["graphs"])
    commit = next(graph for graph in data["graphs"] if graph["name"] == "commit" and graph["rows"] == 2)
    assert commit["work"]["linear_flops"] == 2 * (2 * 4) * 8 * 8
    assert commit["work"]["attention_flops"] == 2 * 2 * 2 * 4 * 4 * 8
    assert commit["work"]["values"] == (8 * 8 + 8) + 2 * 4 * 8 * 2
    for chip in ("trn1", "trn2", "trn3", "h100"):
        for band in ("low", "typical", "tuned"):
            profile = CapacityProfile(**{name: tuple(values) for name, values in data["profiles"][chip][band].items()})
            assert profile.buckets == (1, 2)

    (manifest,) = (tmp_path / "cache").rglob("denoiser.json")
    written = json.loads(manifest.read_text())
    assert [graph["compile_s"] for graph in written["graphs"]] == [None] * 4
    assert written["versions"]["torch"]


def test_a_graph_that_lowers_to_a_scatter_fails_with_its_line(config: Path) -> None:
    done = RUNNER.invoke(app, ["compile", "--config", str(config), "--dry-run", "--stage", "decoder"])
    assert done.exit_code == 1
    assert "FAIL  decoder/decode/rows1" in done.output
    line = 1 + (Path(__file__).parents[2] / "graphs_to_check.py").read_text().splitlines().index(
        "        y[:, 1:3] = 0  # a write into a slice"
    )
    assert f"graphs_to_check.py:{line}: is forbidden" in done.output
    assert "scatter" in done.output
    assert "NOT COMPILED" not in done.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config", "nowhere.yaml"], "--config: must be a file that exists; got 'nowhere.yaml'"),
        (["--stage", "vae"], "--stage: must be one of: text_encoder, denoiser, decoder, enhancer; got 'vae'"),
    ],
)
def test_bad_input_is_named(arguments: list[str], sentence: str) -> None:
    done = RUNNER.invoke(app, ["compile", "--dry-run", *arguments])
    assert done.exit_code == 2
    assert sentence in done.output


def test_outputs_are_compared_each_by_its_own_size_and_pictures_but_for_rounding() -> None:
    small, picture = torch.tensor([0.5, 1.0]), torch.tensor([7, 200], dtype=torch.uint8)
    assert difference((np.array([0.5, 1.0]), np.array([8, 199])), [small, picture]) == 0
    assert difference((np.array([0.5, 1.1]), np.array([7, 200])), [small, picture]) == pytest.approx(0.1)
    assert difference((np.array([0.5, 1.0]), np.array([7, 210])), [small, picture]) == pytest.approx(9 / 200)


def test_tiny_families_are_for_dry_runs() -> None:
    done = RUNNER.invoke(app, ["compile", "--tiny-families"])
    assert done.exit_code == 2
    assert "--tiny-families: needs --dry-run" in done.output


def test_a_roofline_is_the_slower_of_arithmetic_and_memory() -> None:
    chip, band = CHIPS["trn2"], BANDS["typical"]
    busy = Work(linear_flops=667e12 * 0.65, attention_flops=0.0, values=1.0)
    assert seconds(busy, chip, band) == pytest.approx(1.0)
    attending = Work(linear_flops=0.0, attention_flops=667e12 * 0.25, values=1.0)
    assert seconds(attending, chip, band) == pytest.approx(1.0)
    moving = Work(linear_flops=1.0, attention_flops=0.0, values=2.9e12 * 0.75 / 2)
    assert seconds(moving, chip, band, launch_s=0.5) == pytest.approx(1.5)
