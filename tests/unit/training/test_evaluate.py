"""The statistics, the prompts, and the shipped model on a few of them."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from headrace.cli import app
from headrace.cli import evaluate as command
from model_core import weights
from model_core.config import EngineConfig
from model_core.families.millrace.parts import MillraceSampler
from model_core.families.millrace.sentence import SentenceEmbedder
from model_core.presets import millrace_64
from model_core.quality.detect import read
from model_core.quality.words import MOTIONS
from model_core.stages.denoiser import LocalDenoiser
from model_core.types import SessionContext, TextEmbedding
from model_core.weights import load_dit, load_vae
from training.evaluate import Evaluator, evaluate, held_out_scenes, opposite, shares
from training.scores import ALL, ATTRIBUTES, EXTRAS, Gate, Loss, Quantiles, Report, Row, Share
from training.sheet import contact_sheet, draw_strips
from training.world import Scene, centres_of_screen, combinations, scene_tensor, steady_clip

COUNT = 8


@pytest.fixture(scope="module")
def evaluator() -> Iterator[Evaluator]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    config = millrace_64()
    yield Evaluator(config, load_vae(config), load_dit(config), SentenceEmbedder(config.text).embed, COUNT)
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (250, 256, 0.9498, 0.9892)],
)
def test_wilson_intervals(hits: int, count: int, low: float, high: float) -> None:
    assert Share(hits, count).interval() == pytest.approx((low, high), abs=2e-4)


def test_wilson_intervals_cover_what_they_promise() -> None:
    generator = np.random.default_rng(9)
    for p in (0.8, 0.95, 0.98):
        intervals = [Share(int(h), 256).interval() for h in generator.binomial(256, p, 2000)]
        assert 0.93 < np.mean([low <= p <= high for low, high in intervals]) < 0.98


def test_a_loss_is_paired() -> None:
    same, swapped = Loss(0, 0, 100), Loss(20, 20, 100)
    assert same.value == swapped.value == 0
    assert same.interval()[1] < swapped.interval()[1]
    low, high = Loss(15, 3, 256).interval()
    assert Loss(15, 3, 256).value == pytest.approx(0.046875)
    assert low < 0.046875 < high


def report(all_after: float = 1.0, **changes: object) -> Report:
    def row(name: str, value: float = 1.0) -> Row:
        return Row(name, dict.fromkeys((*ATTRIBUTES, ALL, *EXTRAS), Share(round(100 * value), 100)))

    plain = Report(
        model="m", prompts=100, steps=4, long_frames=200,
        truth_short=row("t8"), truth=row("t40"), autoencoder=row("a"), first_chunk=row("f"), window=row("w"), last_window=row("l"),
        switch_first=row("s1"), switch_second=row("s2", all_after),
        psnr_db=(36.0, 30.0), long_loss=Loss(0, 0, 100), area_ratio=Quantiles(0.9, 1.0, 1.1), background_shift=0.1,
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "missed"),
    [
        (report(), []),
        (report(all_after=0.79), ["s2: all"]),
        (report(long_loss=Loss(5, 0, 100)), []),
        (report(long_loss=Loss(6, 0, 100)), ["200 frames: loss of all"]),
        (report(area_ratio=Quantiles(0.1, 0.79, 9)), ["200 frames: median area ratio"]),
        (report(area_ratio=Quantiles(0.1, 1.26, 9)), ["200 frames: median area ratio"]),
        (report(area_ratio=Quantiles(0.1, float("nan"), 9)), ["200 frames: median area ratio"]),
    ],
)
def test_gates(given: Report, missed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert [gate.name for gate in given.gates() if not gate.passed] == missed
    assert Gate("ends count", 0.8, at_least=0.8, at_most=0.8).passed
    command.show(given, seconds=1.0)
    printed = [line.split("  ") for line in capsys.readouterr().out.splitlines() if line.startswith(("PASS", "FAIL"))]
    assert [line[1] for line in printed if line[0] == "FAIL"] == missed
    assert len(printed) == len(given.gates())


def test_prompts_are_held_out_and_not_repeated() -> None:
    available = len(combinations(held_out=True))
    scenes = held_out_scenes(available + 5, random.Random(1))
    assert all(scene.held_out() for scene in scenes)
    assert len({scene.combination for scene in scenes[:available]}) == available
    assert all(scene.speed == 1 for scene in scenes if MOTIONS[scene.motion] == "still")
    for scene in scenes[:50]:
        after = opposite(scene, random.Random(2))
        assert after.held_out()
        assert all(a != b for a, b in zip(after.combination, scene.combination, strict=True))


def test_shares_count_each_attribute() -> None:
    scenes = [Scene(0, 0, 0, 0), Scene(2, 1, 4, 0), Scene(7, 2, 1, 1), Scene(1, 3, 5, 0)]
    reading = read(steady_clip(scene_tensor(scenes), centres_of_screen(4), 8))
    said = [scenes[0], replace(scenes[1], colour=4), replace(scenes[2], shape=5, background=4), replace(scenes[3], speed=0)]
    got = {name: (share.hits, share.count) for name, share in shares(reading, said).items()}
    assert got == {"background": (3, 4), "colour": (3, 4), "shape": (3, 4), "motion": (4, 4), "size": (4, 4), "speed": (2, 3), ALL: (2, 4)}


@pytest.mark.slow
def test_the_shipped_model_passes(evaluator: Evaluator) -> None:
    done: list[int] = []
    result = evaluate(evaluator, long_chunks=6, tick=done.append)
    assert [gate for gate in result.gates() if not gate.passed] == []
    assert done[-1] == COUNT
    assert json.loads(json.dumps(result.as_json()))["prompts"] == COUNT
    with pytest.raises(ValueError, match="long_chunks must be at least 5, got 4"):
        evaluate(evaluator, long_chunks=4)


def test_a_model_that_ignores_its_prompt_fails(evaluator: Evaluator) -> None:
    deaf = Evaluator(evaluator.config, evaluator.vae, evaluator.dit, lambda texts: embed_same(evaluator, len(texts)), COUNT)
    frames = deaf.draw(deaf.prompts, range(COUNT), chunks=1)
    assert shares(read(frames.float() / 255), deaf.scenes)[ALL].value < 0.5


def embed_same(evaluator: Evaluator, count: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    tokens, mask = SentenceEmbedder(evaluator.config.text).embed(["a red circle"])
    return np.repeat(tokens, count, 0), np.repeat(mask, count, 0)


async def test_the_denoise_stage_makes_the_same_latents(evaluator: Evaluator) -> None:
    """What is scored is what is served: four chunks, past the window, of one session."""
    config, prompt, seed = evaluator.config, evaluator.prompts[0], 5
    tokens, mask = SentenceEmbedder(config.text).embed([prompt])
    expected = evaluator.latents([prompt], [seed], chunks=5)
    denoiser = LocalDenoiser(MillraceSampler(evaluator.dit, config, (1,)), config, EngineConfig(slots=1, batch_buckets=(1,)))
    context = SessionContext("s", seed, config.num_steps, TextEmbedding(prompt, tokens[0], mask[0]), num_frames=5 * config.frames_per_chunk)
    try:
        served = [chunk.latents async for chunk in denoiser.stream(context)]
    finally:
        await denoiser.aclose()
    for ours, theirs in zip(expected, served, strict=True):
        torch.testing.assert_close(ours[0], torch.tensor(theirs), rtol=0, atol=2e-3)


def test_a_sheet_shows_every_prompt(evaluator: Evaluator, tmp_path: Path) -> None:
    strips = draw_strips(evaluator, chunks=2)
    assert [strip.text for strip in strips] == evaluator.prompts
    strips.append(replace(strips[0], text="a >> b", switched_at=8))
    sheet = contact_sheet(strips, columns=4)
    sheet.save(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        pixels = np.asarray(image)
    red = (pixels == (220, 30, 30)).all(-1)
    assert red.any()
    assert red[:, : pixels.shape[1] // 2].sum() == 0, "frames 0 and 5 are before the switch"
    assert pixels.shape[1] == 4 * 132 + 4


@pytest.mark.slow
async def test_the_command_writes_what_it_measured(tmp_path: Path) -> None:
    written, sheet = tmp_path / "new" / "report.json", tmp_path / "new" / "sheet.png"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headrace", "eval", "--prompts", "1", "--long-chunks", "5", "--json", str(written), "--sheet", str(sheet),
        stdout=pipe, stderr=pipe,
    )  # fmt: skip
    out, error = (part.decode() for part in await asyncio.wait_for(process.communicate(), 800))
    report = json.loads(written.read_text())
    missed = [gate["gate"] for gate in report["gates"] if not gate["passed"]]
    assert process.returncode == (1 if missed else 0), error
    assert [line.split("  ")[1] for line in out.splitlines() if line.startswith("FAIL")] == missed
    assert "1/1 prompts" in error
    with Image.open(sheet) as image:
        assert image.format == "PNG"


def test_the_model_card_states_what_was_measured() -> None:
    folder = Path(weights.__file__).parent / "weights" / millrace_64().name
    card, measured = (folder / "README.md").read_text(), json.loads((folder / "evaluation.json").read_text())
    assert measured["prompts"] >= 256
    for name, row in measured["shares"].items():
        for columns in (ATTRIBUTES, (ALL, *EXTRAS)):  # a table each, because one would be too wide
            cells = (row[column] for column in columns)
            line = " | ".join(f"{100 * s['share']:.1f} ({100 * s['low']:.1f}–{100 * s['high']:.1f})" for s in cells)
            assert f"| {name} | {line} |" in card
    for gate in measured["gates"]:
        verdict = "passed" if gate["passed"] else "missed"
        assert any(line.startswith(f"| {gate['gate']} | {gate['value']:.3f} |") and verdict in line for line in card.splitlines())


@pytest.mark.parametrize("arguments", [("--prompts", "0"), ("--steps", "17"), ("--long-chunks", "4"), ("--threads", "0")])
def test_bad_options_are_refused(arguments: tuple[str, str]) -> None:
    done = CliRunner().invoke(app, ["eval", *arguments])
    assert done.exit_code == 2
    assert done.output.startswith(f"error: {arguments[0]}: must be from ")
    assert done.output.rstrip().endswith(f"got {arguments[1]}")
