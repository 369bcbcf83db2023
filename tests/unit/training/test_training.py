"""A few steps of both training loops with tiny networks: they learn, and a killed run goes on where it was."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from model_core.config import MillraceConfig, WeightsConfig
from model_core.presets import millrace_64
from model_core.weights import load_dit, load_vae
from training import train_dit, train_vae
from training.captions import build_bank
from training.export import export
from training.run import Run, load_checkpoint
from training.train_dit import DiTTrainer, window_cache
from training.train_vae import VAETrainer

CPU = torch.device("cpu")
FULL = millrace_64()
TINY = replace(
    FULL,
    vae=replace(FULL.vae, encoder_width=24, decoder_width=24, decoder_blocks=1),
    dit=replace(FULL.dit, width=32, depth=2, heads=2, text_width=16),
)
VAE_OPTIONS = train_vae.Options(minutes=60, batch=2, lr=1e-2, scenes=50, tests=8)
DIT_OPTIONS = train_dit.Options(minutes=60, batch=2, chunks=4, pool=6, refresh=1, captions=40, tests=4)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks are slower with more, and equal sums come out equal."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def embed(texts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A token a word, its features drawn from the word."""
    tokens = np.zeros((len(texts), TINY.text.max_tokens, TINY.dit.text_width), np.float32)
    for row, text in enumerate(texts):
        for column, word in enumerate(text.split()):
            rng = random.Random(word)
            tokens[row, column] = [rng.gauss(0, 1) for _ in range(TINY.dit.text_width)]
    return tokens, (tokens != 0).any(axis=-1)


def vae_trainer(out: Path, last_step: int | None = None) -> VAETrainer:
    return VAETrainer(out, CPU, replace(VAE_OPTIONS, last_step=last_step), TINY)


def dit_trainer(out: Path, last_step: int | None = None) -> DiTTrainer:
    return DiTTrainer(out, CPU, replace(DIT_OPTIONS, last_step=last_step), TINY, embed)


@pytest.fixture
def trained_vae(tmp_path: Path) -> Path:
    vae_trainer(tmp_path).run_state.save()
    return tmp_path


def curve(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_autoencoder_learns_a_fixed_batch(tmp_path: Path) -> None:
    trainer = vae_trainer(tmp_path)
    frames = trainer.draw()
    assert frames.shape == (2, 16, 3, 64, 64)
    losses = [trainer.learn(frames)[0].item() for _ in range(12)]
    assert all(math.isfinite(loss) for loss in losses)
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


def test_the_denoiser_learns_a_fixed_batch(trained_vae: Path) -> None:
    trainer = dit_trainer(trained_vae)
    batch = trainer.pool.draw(2)
    losses = [trainer.learn(batch).item() for _ in range(24)]
    assert all(math.isfinite(loss) for loss in losses)
    assert sum(losses[-6:]) < 0.8 * sum(losses[:6])


def test_the_denoiser_needs_an_autoencoder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"vae_train\.pt is missing: run `python -m training\.train_vae"):
        dit_trainer(tmp_path)


@pytest.mark.parametrize("name", ["vae", "dit"])
def test_a_run_goes_on_where_it_was(trained_vae: Path, name: str) -> None:
    def trainer(last_step: int) -> VAETrainer | DiTTrainer:
        return vae_trainer(trained_vae, last_step) if name == "vae" else dit_trainer(trained_vae, last_step)

    trainer(3).run()
    saved = load_checkpoint(trained_vae, name, CPU)
    again = trainer(5)
    assert again.run_state.step == 3
    assert again.run_state.seconds >= saved["seconds"] > 0
    path = trained_vae / f"{name}_train.pt"
    again.run_state.save()
    kept = torch.load(path, weights_only=True)
    for part in ("modules", "optimizers"):
        torch.testing.assert_close(kept[part], saved[part], rtol=0, atol=0)
    assert kept["optimizers"][0]["state"], "the optimizer's momentum is part of the state"
    again.run()
    assert again.run_state.step == 5
    assert [row["step"] for row in curve(trained_vae / f"{name}.jsonl") if row.get("final")] == [3, 5]


def test_a_finished_schedule_does_not_start_again(tmp_path: Path) -> None:
    now = 0.0
    modules = {"model": torch.nn.Linear(2, 2)}

    def run() -> Run:
        return Run(tmp_path, "vae", modules, [], CPU, minutes=1, clock=lambda: now)

    first = run()
    assert (first.going, first.progress) == (True, 0.0)
    now = 45.0
    assert first.progress == pytest.approx(0.75)
    first.save()
    now = 1000.0
    second = run()
    now = 2000.0
    second.start()
    assert (second.going, second.seconds) == (True, 45.0)
    now = 2015.0
    assert (second.going, second.progress) == (False, 1.0)


def test_a_row_sees_the_chunks_before_it() -> None:
    from model_core.nn.causal_dit import MASKED, KeyValue

    chunks, window, tokens = 4, 3, 2
    slots = torch.arange(2 * chunks, dtype=torch.float32)[:, None, None].expand(-1, tokens, 1) + 1  # clip b, chunk j holds 4b + j + 1
    cache, mask = window_cache([KeyValue(slots, slots)], batch=2, window=window)
    seen = [
        [int(v) for v, m in zip(row.flatten(), hidden, strict=True) if m != MASKED][::tokens]
        for row, hidden in zip(cache[0].key, mask, strict=True)
    ]
    assert seen == [[], [1], [1, 2], [1, 2, 3], [], [5], [5, 6], [5, 6, 7]]


def test_a_bank_pairs_scenes_with_their_own_captions() -> None:
    bank = build_bank(60, embed, CPU)
    tokens, mask = embed(bank.texts)
    torch.testing.assert_close(bank.tokens, torch.tensor(tokens, dtype=torch.bfloat16))
    assert torch.equal(bank.mask, torch.tensor(mask))
    rng = random.Random(8)
    assert all(0 <= bank.related(i, rng) < 60 for i in range(60))


def test_exported_weights_load_as_shipped_ones_do(trained_vae: Path) -> None:
    dit_trainer(trained_vae).run_state.save()
    digests = export(trained_vae, trained_vae / TINY.name)
    config: MillraceConfig = replace(TINY, weights=WeightsConfig(vae_sha256=digests["vae"], dit_sha256=digests["dit"]))
    vae, dit = load_vae(config, trained_vae), load_dit(config, trained_vae)
    for module, name in ((vae, "vae"), (dit, "dit")):
        averaged = load_checkpoint(trained_vae, name, CPU)["modules"]["ema"]
        for key, value in module.state_dict().items():
            torch.testing.assert_close(value, averaged[key].half().float(), rtol=0, atol=0)
    assert {tensor.dtype for tensor in load_file(trained_vae / TINY.name / "dit.safetensors").values()} == {torch.float16}
    assert export(trained_vae, trained_vae) == digests
