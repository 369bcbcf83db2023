"""Trains the enhancer on fresh renders. `python -m training.train_enhancer --minutes 10`; started again, it goes on where it was.

Half of what it sees are renders, half are renders that went through the embedded model's autoencoder, as what is served does. The frame
between two of those is, half the time, itself a decoded one: what is shown beside it looks like that. Larger frames are always the
world's own, rendered at that size, so the network learns sharp outlines and to forgive what the decoder gets wrong.

`--overfit` trains on one batch for a few hundred steps and says what is left of the error: ask it before spending minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor

from model_core.nn.enhancer import SIZES, Enhancer
from model_core.presets import millrace_64
from model_core.quality.words import SIZE
from model_core.weights import load_vae
from training.optim import make_optimizers
from training.rollout import decode
from training.run import Run, average, load_checkpoint
from training.world import Scene, random_scene, render, scene_tensor, trajectory

FRAMES = 8  # of a clip in the pool: one chunk
_LATENT_NOISE = 0.1  # deviations, at most: what the denoiser leaves


@dataclass(frozen=True, slots=True)
class Options:
    """`minutes` are of processor time, so that waiting costs no part of the schedule. `only`: `between` or `larger`, the other stays."""

    minutes: float = 10
    last_step: int | None = None
    batch: int = 8
    lr: float = 8e-3
    pool: int = 200
    only: str = ""


class Clips(NamedTuple):
    """Steady clips: scenes `[B, 2, 6]`, centres `[B, 2F, 2]` every half frame, and frames uint8 `[B, F, 3, H, W]` as they were decoded."""

    scenes: Tensor
    centres: Tensor
    decoded: Tensor


def half_steps(scenes: Tensor, start: Tensor, frames: int, phase: Tensor) -> Tensor:
    """Centres `[B, 2F, 2]` of scenes `[B, 2, 6]`, every half frame, the first at `start` `[B, 2]`."""
    never = torch.full((len(scenes),), 4 * frames)
    whole = trajectory(scenes, start, frames + 1, never, phase)
    return torch.stack((whole[:, :-1], (whole[:, :-1] + whole[:, 1:]) / 2), 2).flatten(1, 2)


def draw_scenes(rng: random.Random, count: int, *, held_out: bool) -> Tensor:
    """`[B, 2, 6]`: scenes that do not change."""
    scenes: list[Scene] = [random_scene(rng, held_out=held_out) for _ in range(count)]
    return scene_tensor(scenes)[:, None].expand(-1, 2, -1)


def make_clips(count: int, seed: int, *, held_out: bool, noise: float = 0.0, rows: int = 24) -> Clips:
    """Clips, and what the autoencoder of the embedded model makes of them, with noise of up to `noise` deviations on the latents.

    Two chunks are coded and the second is kept, because that is what sessions are made of: what follows something.
    """
    config = millrace_64()
    vae, latent_frames = load_vae(config), config.dit.latent_frames
    generator = torch.Generator().manual_seed(seed)
    scenes = draw_scenes(random.Random(seed), count, held_out=held_out)
    start, phase = torch.rand(count, 2, generator=generator) * SIZE, torch.rand(count, generator=generator) * 2 * math.pi
    centres = half_steps(scenes, start, 2 * FRAMES, phase)
    never = torch.full((count,), 8 * FRAMES)
    decoded = []
    with torch.inference_mode():
        for part in range(0, count, rows):
            one = slice(part, part + rows)
            frames = render(scenes[one], centres[one, ::2], never[one])
            latents = vae.encode(frames)
            sigma = torch.rand(len(latents), 1, 1, 1, 1, generator=generator) * noise
            latents = latents + sigma * torch.randn(latents.shape, generator=generator)
            decoded.append((decode(vae, latents.split(latent_frames, 2))[:, FRAMES:] * 255).round().to(torch.uint8))
    return Clips(scenes, centres[:, 2 * FRAMES :], torch.cat(decoded))


class EnhancerTrainer:
    """Learning rate: a short ramp, held for three tenths of the schedule, then cosine to almost zero."""

    def __init__(self, out: Path, options: Options) -> None:
        self.options = options
        torch.manual_seed(1)
        self.network, self.ema = Enhancer(), Enhancer()
        self.ema.load_state_dict(self.network.state_dict())
        self.ema.eval().requires_grad_(requires_grad=False)
        optimizers = make_optimizers(self.network, options.lr)
        modules = {"model": self.network, "ema": self.ema}
        self.run_state = Run(
            out, "enhancer", modules, optimizers, torch.device("cpu"), options.minutes, options.last_step, time.process_time
        )
        self._generator = torch.Generator().manual_seed(self.run_state.step + 7)
        self._clips = make_clips(options.pool, self.run_state.step + 11, held_out=False, noise=_LATENT_NOISE)

    def _pick(self, high: int, count: int) -> Tensor:
        return torch.randint(high, (count,), generator=self._generator)

    def _frames(self, clips: Tensor, half_frames: Tensor, scale: int = 1) -> Tensor:
        """The world at these half frames `[B]` of these clips `[B]`: `[B, 3, S·H, S·W]`."""
        centres = self._clips.centres[clips, half_frames][:, None]
        return render(self._clips.scenes[clips], centres, torch.full((len(clips),), 9), scale)[:, 0]

    def _decoded(self, clips: Tensor, frames: Tensor) -> Tensor:
        return self._clips.decoded[clips, frames].float() / 255

    def draw_between(self) -> tuple[Tensor, Tensor, Tensor]:
        """Frames before, frames after, and those between, `[B, 3, H, W]`: renders and decoded ones, one frame apart or two."""
        count = self.options.batch // 2
        clips, at, apart = self._pick(self.options.pool, count), self._pick(FRAMES - 2, count) * 2, 1 + self._pick(2, count)
        plain = [self._frames(clips, at + step) for step in (torch.zeros_like(apart), 2 * apart, apart)]
        clips, frame = self._pick(self.options.pool, count), self._pick(FRAMES - 2, count)
        far = self._pick(2, count)
        wanted = torch.where((far == 1)[:, None, None, None], self._decoded(clips, frame + 1), self._frames(clips, 2 * frame + 1))
        coded = [self._decoded(clips, frame), self._decoded(clips, frame + 1 + far), wanted]
        before, after, between = (torch.cat(pair) for pair in zip(plain, coded, strict=True))
        return before, after, between

    def draw_larger(self) -> tuple[Tensor, dict[int, Tensor]]:
        """Frames `[B, 3, H, W]`, renders and decoded ones, and the world at each size."""
        count = self.options.batch // 2
        clips, frame = self._pick(self.options.pool, 2 * count), self._pick(FRAMES, 2 * count)
        plain, coded = self._frames(clips[:count], 2 * frame[:count]), self._decoded(clips[count:], frame[count:])
        return torch.cat((plain, coded)), {size: self._frames(clips, 2 * frame, size) for size in SIZES}

    def learn(self, given: tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, dict[int, Tensor]]]) -> dict[str, float]:
        """One step of both networks; PSNR in dB of what they made before it."""
        (before, after, between), (frames, larger) = given
        run, errors = self.run_state, dict[str, tuple[Tensor, float]]()
        if self.options.only != "larger":
            errors["between"] = _error(self.network.between(before, after), between)
        if self.options.only != "between":
            features = self.network.larger.trunk(frames)
            errors |= {f"x{size}": _error(self.network.larger.enlarged(frames, features, size), larger[size]) for size in SIZES}
        run.apply(torch.stack([loss for loss, _ in errors.values()]).sum(), [*self.network.parameters()])
        average(self.ema, self.network, min(0.01, 10 / (run.step + 10)) if run.step > 201 else 1.0)
        return {f"{name}_psnr": -10 * math.log10(max(squared, 1e-10)) for name, (_, squared) in errors.items()}

    def draw(self) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, dict[int, Tensor]]]:
        return self.draw_between(), self.draw_larger()

    def overfit(self, steps: int) -> dict[str, float]:
        """PSNR after so many steps on one batch."""
        batch, told = self.draw(), dict[str, float]()
        for _ in range(steps):
            told = self.learn(batch)
        return told

    def run(self) -> None:
        """Train to the end of the schedule, or to `last_step`."""
        run = self.run_state
        run.start()
        while run.going:
            progress = run.progress
            decay = 1.0 if progress < 0.3 else 0.5 * (1 + math.cos(math.pi * (progress - 0.3) / 0.7))
            run.set_rate(min(1.0, (run.step + 1) / 100) * max(decay, 0.005))
            told = self.learn(self.draw())
            if run.step % 100 == 0:
                run.record({name: round(value, 2) for name, value in told.items()})
            run.save_if_due()
        run.save()


def _error(made: Tensor, wanted: Tensor) -> tuple[Tensor, float]:
    """The loss, and the plain squared error. Errors are at outlines alone, so nothing is weighed."""
    error = made - wanted
    squared = error.square().mean()
    return 100 * squared + error.abs().mean(), squared.item()


def export(out: Path, to: Path) -> str:
    """The averaged weights in `out` as float16 `enhancer.safetensors` in `to`; its sha256, to pin in `model_core/presets.py`."""
    state = load_checkpoint(out, "enhancer", torch.device("cpu"))["modules"]["ema"]
    data = save({key: value.to(torch.float16).contiguous() for key, value in state.items()}, metadata={"format": "pt"})
    to.mkdir(parents=True, exist_ok=True)
    (to / "enhancer.safetensors").write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def main() -> None:
    defaults = Options()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/training"), help="folder of the checkpoint and the curve")
    parser.add_argument("--minutes", type=float, default=defaults.minutes, help="length of the schedule, of processor time")
    parser.add_argument("--last-step", type=int, default=None, help="end the schedule early, at this step")
    parser.add_argument("--batch", type=int, default=defaults.batch)
    parser.add_argument("--pool", type=int, default=defaults.pool, help="clips that are rendered and coded at the start")
    parser.add_argument("--lr", type=float, default=defaults.lr)
    parser.add_argument("--only", choices=("", "between", "larger"), default="", help="train one network, and leave the other as it is")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--overfit", type=int, default=0, metavar="STEPS", help="train on one batch, say what is left, and save nothing")
    parser.add_argument("--export", type=Path, default=None, metavar="FOLDER", help="write the weights there, and print their digest")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    if a.export is not None:
        print(f'enhancer_sha256="{export(a.out, a.export)}",')
        return
    trainer = EnhancerTrainer(a.out, Options(a.minutes, a.last_step, a.batch, a.lr, a.pool, a.only))
    if a.overfit:
        print(trainer.overfit(a.overfit))
    else:
        trainer.run()


if __name__ == "__main__":
    main()
