"""Teaches the denoiser keys. `python -m training.train_world` goes on from the shipped weights; started again, it goes on where it was.

Each chunk of a clip has the keys under which its shape moves; four words, one a key, stand beside those of the prompt. They begin as what
the denoiser reads where a prompt says "moving up", so motion is there from the first step, and what is left to learn is where it stops.

Text layers stay as they are. Every chunk is a row with a time of its own, and its context is noised (as in `training.train_dit`); once the
rate falls, some contexts are chunks that the model made itself.

Before it spends time, a gate: a few steps on one small batch must make its loss fall.
"""

from __future__ import annotations

import argparse
import copy
import math
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model_core.acts import ARROWS
from model_core.config import MillraceConfig
from model_core.diffusion.flow_match import add_noise
from model_core.families.millrace.sentence import SentenceEmbedder
from model_core.nn.causal_dit import CausalDiT, TextCondition, with_keys
from model_core.nn.vae import VAE
from model_core.presets import millrace_64, millrace_64_world
from model_core.weights import load_dit, load_vae
from training.captions import CaptionBank, Embed, embedded
from training.evaluate_world import WorldEvaluator
from training.rollout import rollout, take
from training.run import Run, average
from training.train_dit import window_cache
from training.walls import caption, random_scene
from training.world_pool import WorldBatch, WorldPool

_GATE_STEPS = 12
_GATE_FALL = 0.9  # of the loss at the first step that may be left at the last one
_WORDS = tuple(f"a red circle moving {arrow} over a black background" for arrow in ARROWS)
_SAID = 5  # the token of each of these that names the direction
_LOUDNESS = 2.25  # one word alone is heard less than a sentence is
_FROZEN = ("text_in", "text_position", "text_layer", "text_norm", "pool", "text_kv")


@dataclass(frozen=True, slots=True)
class Options:
    """Defaults are those of the shipped weights. `last_step` ends the schedule of `minutes` early."""

    minutes: float = 51
    last_step: int | None = None
    batch: int = 5
    chunks: int = 6
    pool: int = 128
    refresh: int = 1
    captions: int = 600
    tests: int = 16
    lr: float = 2e-4
    hold: float = 0.4
    context_noise: float = 0.3
    own_context: float = 0.12
    evaluate_every: int = 150


def begin(config: MillraceConfig, before: CausalDiT, embed: Embed) -> CausalDiT:
    """A network with keys that begins as `before`, one without."""
    model = CausalDiT(config.dit)
    missing, unexpected = model.load_state_dict(before.state_dict(), strict=False)
    if missing != ["keys"] or unexpected:
        raise ValueError(f"weights must lack the keys alone; they lack {missing}, and have {unexpected} too many")
    tokens, mask = (torch.tensor(part) for part in embed(_WORDS))
    with torch.no_grad():
        model.keys.copy_(model.words(tokens, mask)[:, _SAID] * _LOUDNESS)
    return model


def captions(count: int, embed: Embed, device: torch.device, seed: int = 3) -> CaptionBank:
    rng = random.Random(seed)
    scenes = [random_scene(rng, held_out=False) for _ in range(count)]
    return embedded(scenes, [caption(scene, rng) for scene in scenes], embed, device)


class WorldTrainer:
    """Learning rate: a short ramp, held for the share `hold` of the schedule, then cosine to almost zero."""

    def __init__(
        self, out: Path, device: torch.device, options: Options, before: CausalDiT, vae: VAE, config: MillraceConfig, embed: Embed
    ) -> None:
        """Load what an earlier run left, embed the captions, and fill the pool."""
        self.device, self.options, self.config = device, options, config
        self.model = begin(config, before, embed).to(device)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not any(part in name for part in _FROZEN))
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(requires_grad=False)
        self._vae = vae.to(device)
        modules = {"model": self.model, "ema": self.ema}
        self.run_state = Run(out, "world", modules, _optimizers(self.model, options.lr), device, options.minutes, options.last_step)
        torch.manual_seed(self.run_state.step + 2)
        self._rng = random.Random(self.run_state.step + 6)
        self.bank = captions(options.captions, embed, device)
        self.pool = WorldPool(config, self.bank, self._vae, options.pool, options.chunks, device, seed=self.run_state.step + 11)
        self.evaluator = WorldEvaluator(config, self._vae, self.ema, embed, options.tests, chunks=6)

    def gate(self) -> tuple[float, float]:
        """The loss of one batch, at the same noise, before and after a few steps on nothing else.

        Raises:
            RuntimeError: it has hardly fallen, so there is no use in going on.
        """
        trial, batch = copy.deepcopy(self.model), self.pool.draw(2)
        optimizers, losses = _optimizers(trial, self.options.lr), []
        for _ in range(_GATE_STEPS):
            torch.manual_seed(0)
            loss = self.loss(batch, trial)
            loss.backward()
            losses.append(loss.item())
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        if not losses[-1] < _GATE_FALL * losses[0]:
            raise RuntimeError(
                f"{_GATE_STEPS} steps on one batch must bring its loss below {_GATE_FALL:.0%}; {losses[0]:.4f} became {losses[-1]:.4f}"
            )
        return losses[0], losses[-1]

    def learn(self, batch: WorldBatch) -> Tensor:
        """One step; the loss."""
        late = self.run_state.progress > self.options.hold
        own = self._made(batch) if late and self._rng.random() < self.options.own_context else None
        loss = self.loss(batch, self.model, own)
        self.run_state.apply(loss, [p for p in self.model.parameters() if p.requires_grad])
        average(self.ema, self.model, max(0.01, 1 / self.run_state.step))
        return loss.detach()

    def loss(self, batch: WorldBatch, model: CausalDiT, own: Tensor | None = None) -> Tensor:
        """Squared error of the predicted clean chunk over t², with weight on the object. `own`: a context in place of the noised truth."""
        count, chunks = batch.clean.shape[:2]
        if own is None:
            level = torch.rand(count, 1, 1, 1, 1, 1, device=self.device) * self.options.context_noise * float(self._rng.random() < 0.8)
            own = batch.clean + level * torch.randn_like(batch.clean)
        with torch.no_grad():
            cache, mask = window_cache(model.commit(own.flatten(0, 1)), count, self.config.dit.window)
        text, clean, t = self._text(model, batch, chunks), batch.clean.flatten(0, 1), self._times(count * chunks)
        x_t = add_noise(clean, torch.randn_like(clean), t)
        guess = model.denoise(x_t, model.modulate(t, text.pooled), text, cache, mask)
        deviation = (clean - clean.flatten(3).median(-1).values[..., None, None]).square().mean(1, keepdim=True).sqrt()
        weight = 1 + 4 * (deviation > 0.4).float()
        weight = weight / weight.mean()
        trained = torch.ones(count, chunks, device=self.device)
        trained[:, 0] = batch.fresh.float()  # the first chunk of a clip from mid-stream lacks its context: not trained
        error = ((guess - clean).square() * weight).mean((1, 2, 3, 4)) / t.clamp(min=0.1).square()
        return (error * trained.flatten()).sum() / trained.sum()

    def _text(self, model: CausalDiT, batch: WorldBatch, chunks: int) -> TextCondition:
        """The prompt and the keys in force, one row a chunk."""
        ids = batch.captions.flatten()
        with torch.no_grad():
            text = model.condition(self.bank.tokens[ids].float(), self.bank.mask[ids])
        part = (torch.arange(chunks, device=self.device)[None] >= batch.switch[:, None]).long()
        rows = (torch.arange(len(batch.switch), device=self.device)[:, None] * 2 + part).flatten()
        return with_keys(take(text, rows), model.hold(batch.held.flatten(0, 1)))

    def _times(self, rows: int) -> Tensor:
        """Logit-normal, with some of pure noise: there a chunk's motion is decided."""
        t = torch.sigmoid(1.2 + torch.randn(rows, device=self.device))
        t = torch.where(torch.rand(rows, device=self.device) < 0.2, torch.ones_like(t), t)
        return t.clamp(0.002, 1.0)

    @torch.no_grad()
    def _made(self, batch: WorldBatch) -> Tensor:
        """The clips as the model makes them, `[B, J, C, F, H, W]`. The first chunk of a clip from mid-stream is the true one."""
        count, chunks = batch.clean.shape[:2]
        text = self._text(self.ema, batch, chunks)
        made = rollout(
            self.ema,
            lambda chunk: take(text, torch.arange(count, device=self.device) * chunks + chunk),
            lambda _: torch.randn_like(batch.clean[:, 0]),
            chunks,
            self.config.num_steps,
            self.config.shift,
            first=batch.clean[:, 0],
        )
        return torch.stack(made, 1)

    def run(self) -> None:
        """Train to the end of the schedule, or to `last_step`."""
        run, hold = self.run_state, self.options.hold
        if not run.step:
            before, after = self.gate()
            run.record({"gate": [round(before, 4), round(after, 4)], **self.evaluator.quick()})
        run.start()
        recent: list[float] = []
        while run.going:
            decay = 0.5 * (1 + math.cos(math.pi * max(0.0, run.progress - hold) / (1 - hold)))
            run.set_rate(min(1.0, (run.step + 1) / 30) * max(decay, 0.02))
            recent.append(self.learn(self.pool.draw(self.options.batch)).item())
            self.pool.refresh(self.options.refresh)
            if run.step % 25 == 0:
                scores = self.evaluator.quick() if run.step % self.options.evaluate_every == 0 else {}
                run.record({"loss": round(sum(recent) / len(recent), 4), **scores})
                recent.clear()
            run.save_if_due()
        run.save()
        run.record({"final": True, **self.evaluator.quick()})


def _optimizers(model: CausalDiT, lr: float) -> list[torch.optim.Optimizer]:
    """AdamW, which costs little beside so small a batch; the words of the keys, which are few and new, go faster."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in trained if name != "keys"], "lr": lr, "base_lr": lr},
        {"params": [p for name, p in trained if name == "keys"], "lr": 5 * lr, "base_lr": 5 * lr},
    ]
    return [torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)]


def main() -> None:
    defaults = Options()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/training"), help="folder of the checkpoint and the curve")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=defaults.minutes, help="length of the schedule")
    parser.add_argument("--last-step", type=int, default=None, help="end the schedule early, at this step")
    parser.add_argument("--batch", type=int, default=defaults.batch)
    parser.add_argument("--lr", type=float, default=defaults.lr)
    parser.add_argument("--threads", type=int, default=1)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    options = Options(a.minutes, a.last_step, batch=a.batch, lr=a.lr)
    before, config = millrace_64(), millrace_64_world()
    embed = SentenceEmbedder(config.text).embed
    WorldTrainer(a.out, torch.device(a.device), options, load_dit(before), load_vae(before), config, embed).run()


if __name__ == "__main__":
    main()
