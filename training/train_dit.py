"""Trains the denoiser. `python -m training.train_dit`, after the autoencoder; started again, it goes on where it was.

Every chunk of a clip is a row: its noisy version attends to the committed keys and values of up to `window` earlier chunks. These are the
very graphs that serve. The context is corrupted with noise of up to `--context-noise`, a new level for each clip, so that the
model forgives the small errors of its own earlier chunks.
"""

from __future__ import annotations

import argparse
import copy
import math
import random
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from model_core.config import MillraceConfig
from model_core.diffusion.flow_match import add_noise
from model_core.families.millrace.sentence import SentenceEmbedder
from model_core.nn.causal_dit import MASKED, CausalDiT, KeyValue, TextCondition
from model_core.nn.vae import VAE
from model_core.presets import millrace_64
from model_core.quality.detect import read
from training.captions import Embed, build_bank
from training.optim import make_optimizers
from training.pool import Batch, Pool
from training.rollout import decode, rollout, take
from training.run import Run, average, load_checkpoint

EVALUATE_EVERY_STEPS = 1000
_TEST_CHUNKS = 5


@dataclass(frozen=True, slots=True)
class Options:
    """Defaults are those of the shipped weights. `last_step` ends the schedule of `minutes` early."""

    minutes: float = 20
    last_step: int | None = None
    batch: int = 128
    chunks: int = 8
    pool: int = 16_384
    refresh: int = 32
    captions: int = 40_000
    tests: int = 128
    lr: float = 2.5e-3
    hold: float = 0.5
    context_noise: float = 0.4


def window_cache(slots: list[KeyValue], batch: int, window: int) -> tuple[list[KeyValue], Tensor]:
    """Slots of all chunks (rows b*J+j) → for each row the slots of the chunks before it, left-padded, and the mask."""

    def gather(x: Tensor) -> Tensor:
        y = x.unflatten(0, (batch, -1))
        padded = F.pad(y, (0, 0, 0, 0, window, 0))
        views = [padded[:, i : i + y.shape[1]] for i in range(window)]
        return torch.cat(views, 2).flatten(0, 1)

    device, chunks, tokens = slots[0].key.device, slots[0].key.shape[0] // batch, slots[0].key.shape[1]
    position = torch.arange(chunks, device=device)[:, None] - torch.arange(window, 0, -1, device=device)[None]
    mask = torch.where(position < 0, MASKED, 0.0).repeat_interleave(tokens, 1).repeat(batch, 1)
    return [KeyValue(gather(k), gather(v)) for k, v in slots], mask


class DiTTrainer:
    """Learning rate: a short ramp, held for the share `hold` of the schedule, then cosine to almost zero."""

    def __init__(self, out: Path, device: torch.device, options: Options, config: MillraceConfig, embed: Embed) -> None:
        """Load what an earlier run left, embed the captions, and fill the pool.

        Raises:
            FileNotFoundError: no autoencoder has been trained in `out`.
        """
        self.device, self.options, self.config = device, options, config
        self.vae = VAE(config.vae).to(device).eval().requires_grad_(requires_grad=False)
        self.vae.load_state_dict(load_checkpoint(out, "vae", device)["modules"]["ema"])
        torch.manual_seed(2)
        self.model = CausalDiT(config.dit).to(device)
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(requires_grad=False)
        optimizers = make_optimizers(self.model, options.lr)
        self.run_state = Run(out, "dit", {"model": self.model, "ema": self.ema}, optimizers, device, options.minutes, options.last_step)
        torch.manual_seed(self.run_state.step + 2)
        self._rng = random.Random(self.run_state.step + 6)
        self.bank = build_bank(options.captions, embed, device)
        self.test = build_bank(options.tests, embed, device, seed=17, held_out=True)
        self.pool = Pool(config, self.bank, self.vae, options.pool, options.chunks, device, seed=self.run_state.step + 11)
        fast = device.type == "cuda"
        self._denoise = torch.compile(self.model.denoise) if fast else self.model.denoise
        self._commit = torch.compile(self.model.commit) if fast else self.model.commit
        self._half = torch.autocast(device.type, torch.bfloat16, enabled=fast)

    def learn(self, batch: Batch) -> Tensor:
        """One step; the loss."""
        loss = self.loss(batch)
        self.run_state.apply(loss, [*self.model.parameters()])
        step = self.run_state.step
        average(self.ema, self.model, max(1e-3, 1 / step) if step <= 1000 else 1e-3)
        return loss.detach()

    def loss(self, batch: Batch) -> Tensor:
        """Squared error of the predicted clean chunk over t², with weight on the object and on the first chunk of a session."""
        count, chunks = batch.clean.shape[:2]
        with self._half:
            text = self._text(batch, chunks)
            noisy = self._rng.random() < 0.8
            level = torch.rand(count, 1, 1, 1, 1, 1, device=self.device) * self.options.context_noise * float(noisy)
            context = batch.clean + level * torch.randn_like(batch.clean)
            cache, mask = window_cache(self._commit(context.flatten(0, 1)), count, self.config.dit.window)
            clean, t = batch.clean.flatten(0, 1), self._times(batch)
            x_t = add_noise(clean, torch.randn_like(clean), t)
            guess = self._denoise(x_t, self.model.modulate(t, text.pooled), text, cache, mask).float()
        deviation = (clean - clean.flatten(3).median(-1).values[..., None, None]).square().mean(1, keepdim=True).sqrt()
        weight = 1 + 4 * (deviation > 0.4).float()
        weight = weight / weight.mean()
        trained = torch.ones(count, chunks, device=self.device)
        trained[:, 0] = batch.fresh.float() * 2  # the first chunk of a clip from mid-stream lacks its context: not trained
        error = ((guess - clean).square() * weight).mean((1, 2, 3, 4)) / t.clamp(min=0.1).square()
        return (error * trained.flatten()).sum() / trained.sum()

    def _text(self, batch: Batch, chunks: int) -> TextCondition:
        """The prompt in force, one row a chunk."""
        ids = batch.captions.flatten()
        text = self.model.condition(self.bank.tokens[ids].float(), self.bank.mask[ids])
        part = (torch.arange(chunks, device=self.device)[None] >= batch.switch[:, None]).long()
        return take(text, (torch.arange(len(batch.switch), device=self.device)[:, None] * 2 + part).flatten())

    def _times(self, batch: Batch) -> Tensor:
        """Logit-normal, noisier for chunks whose layout is still open: the first one, and the first of a new prompt."""
        count, chunks = batch.clean.shape[:2]
        mu = torch.full((count, chunks), 1.0, device=self.device)
        mu[:, 0] = 1.8
        at_switch = torch.arange(chunks, device=self.device)[None] == batch.switch[:, None]
        mu = torch.where(at_switch, 1.5, mu)
        t = torch.sigmoid(mu + torch.randn(count, chunks, device=self.device))
        t = torch.where(torch.rand(count, chunks, device=self.device) < 0.1, torch.rand(count, chunks, device=self.device), t)
        t = torch.where(torch.rand(count, chunks, device=self.device) < 0.1, torch.ones_like(t), t)
        return t.clamp(0.002, 1.0).flatten()

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Shares right on held-out prompts: in the first chunk, and in the chunks after it."""
        text = self.ema.condition(self.test.tokens.float(), self.test.mask)
        generator = torch.Generator(device=self.device).manual_seed(4)
        g = self.config.dit
        shape = (len(self.test.texts), g.latent_channels, g.latent_frames, g.latent_height, g.latent_width)

        def noise(_: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=self.device)

        made = rollout(self.ema, lambda _: text, noise, _TEST_CHUNKS, self.config.num_steps, self.config.shift)
        frames, n = decode(self.vae, made), self.config.frames_per_chunk
        report: dict[str, float] = {}
        for name, part in (("first", frames[:, :n]), ("rest", frames[:, n:])):
            right = read(part).right(self.test.scenes)
            report |= {f"{name}_{k}": round(right[k].float().mean().item(), 3) for k in ("background", "colour", "shape", "motion")}
        return report

    def run(self) -> None:
        """Train to the end of the schedule, or to `last_step`."""
        run, hold = self.run_state, self.options.hold
        run.start()
        while run.going:
            decay = 0.5 * (1 + math.cos(math.pi * max(0.0, run.progress - hold) / (1 - hold)))
            run.set_rate(min(1.0, (run.step + 1) / 200) * max(decay, 0.01))
            loss = self.learn(self.pool.draw(self.options.batch))
            self.pool.refresh(self.options.refresh)
            if run.step % EVALUATE_EVERY_STEPS == 0:
                run.record({"loss": round(loss.item(), 4), **self.evaluate()})
            elif run.step % 100 == 0:
                run.record({"loss": round(loss.item(), 4)})
            run.save_if_due()
        run.save()
        run.record({"final": True, **self.evaluate()})


def main() -> None:
    defaults = Options()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("out/training"), help="folder with the trained autoencoder; checkpoint and curve go there"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=defaults.minutes, help="length of the schedule")
    parser.add_argument("--last-step", type=int, default=None, help="end the schedule early, at this step")
    parser.add_argument("--batch", type=int, default=defaults.batch)
    parser.add_argument("--lr", type=float, default=defaults.lr)
    parser.add_argument("--hold", type=float, default=defaults.hold, help="share of the schedule at full learning rate")
    parser.add_argument("--context-noise", type=float, default=defaults.context_noise)
    a = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    options = Options(a.minutes, a.last_step, batch=a.batch, lr=a.lr, hold=a.hold, context_noise=a.context_noise)
    config = millrace_64()
    DiTTrainer(a.out, torch.device(a.device), options, config, SentenceEmbedder(config.text).embed).run()


if __name__ == "__main__":
    main()
