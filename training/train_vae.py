"""Trains the autoencoder on fresh renders. `python -m training.train_vae --minutes 3`; started again, it goes on where it was.

The latent is batch-normalised without scale, and noise of up to `--noise` of its deviation is added before decoding: that bounds
its information (no KL weight to tune) and makes the decoder forgive small errors of the denoiser.
"""

from __future__ import annotations

import argparse
import math
import random
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from model_core.config import MillraceConfig
from model_core.nn.vae import VAE
from model_core.presets import millrace_64
from model_core.quality.detect import read
from model_core.quality.words import SIZE
from training.optim import make_optimizers
from training.rollout import reconstruct
from training.run import Run, average
from training.world import clip, random_scene, scene_tensor, steady_clip

FRAMES = 16  # of a training clip


@dataclass(frozen=True, slots=True)
class Options:
    """Defaults are those of the shipped weights. `last_step` ends the schedule of `minutes` early."""

    minutes: float = 3
    last_step: int | None = None
    batch: int = 64
    noise: float = 0.25
    lr: float = 2e-3
    scenes: int = 20_000
    tests: int = 256


class VAETrainer:
    """Learning rate: a short ramp, held for three tenths of the schedule, then cosine to almost zero."""

    def __init__(self, out: Path, device: torch.device, options: Options, config: MillraceConfig) -> None:
        self.device, self.options, self.config = device, options, config
        torch.manual_seed(1)
        self.vae = VAE(config.vae).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload] # missing from torch's stubs
        self.ema = VAE(config.vae).to(device).eval().requires_grad_(requires_grad=False)
        self.ema.load_state_dict(self.vae.state_dict())
        optimizers = make_optimizers(self.vae, options.lr)
        self.run_state = Run(out, "vae", {"model": self.vae, "ema": self.ema}, optimizers, device, options.minutes, options.last_step)
        seed = self.run_state.step + 7
        rng = random.Random(seed)
        self._generator = torch.Generator(device=device).manual_seed(seed)
        self._scenes = scene_tensor([random_scene(rng, held_out=False) for _ in range(options.scenes)]).to(device)
        fast = device.type == "cuda"
        self._encode = torch.compile(self.vae.encoder) if fast else self.vae.encoder
        self._decode = torch.compile(self.vae.decoder) if fast else self.vae.decoder
        self._half = torch.autocast(device.type, torch.bfloat16, enabled=fast)

    def draw(self) -> Tensor:
        """Clips `[B, F, 3, H, W]` of training scenes at uniform positions, half of them switching to another scene half-way."""
        count, generator, device = self.options.batch, self._generator, self.device
        scenes = self._scenes[torch.randint(len(self._scenes), (count, 2), generator=generator, device=device)]
        start = torch.rand(count, 2, generator=generator, device=device) * SIZE
        switch = torch.where(torch.rand(count, generator=generator, device=device) < 0.5, FRAMES // 2, FRAMES)
        return clip(scenes, start, FRAMES, switch)

    def learn(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """One step on frames in [0, 1]; the weighted loss and the plain squared error (of pixels in [0, 1])."""
        count, run, generator = len(frames), self.run_state, self._generator
        target = frames * 2 - 1
        with self._half:
            raw = self._encode(target, self.vae.new_memory(self.vae.encoder, count, SIZE, SIZE))[0].float()
            mean, std = raw.mean((0, 1, 3, 4)), raw.std((0, 1, 3, 4)) + 1e-4
            latents = (raw - mean[:, None, None]) / std[:, None, None]
            sigma = torch.rand(count, 1, 1, 1, 1, generator=generator, device=self.device) * self.options.noise
            noisy = latents + sigma * torch.randn(latents.shape, generator=generator, device=self.device)
            again = self._decode(noisy, self.vae.new_memory(self.vae.decoder, count, SIZE, SIZE))[0].float()
        # The object counts more than the ground it covers.
        weight = 1 + 3 * ((target - target.median(dim=-1, keepdim=True).values).abs().amax(2, keepdim=True) > 0.1).float()
        error = again - target
        loss = (weight * (error.square() + 0.1 * error.abs())).mean() + 1e-4 * raw.square().mean()
        run.apply(loss, [*self.vae.parameters()])
        average(self.ema, self.vae, min(0.01, 10 / (run.step + 10)) if run.step > 201 else 1.0)
        with torch.no_grad():
            self.ema.latent_mean.lerp_(mean, 0.02)
            self.ema.latent_std.lerp_(std, 0.02)
        return loss.detach(), F.mse_loss(again / 2, target / 2).detach()

    def evaluate(self) -> dict[str, float]:
        """PSNR in dB and attributes read back on held-out combinations."""
        count = self.options.tests
        rng = random.Random(99)
        scenes = scene_tensor([random_scene(rng, held_out=True) for _ in range(count)]).to(self.device)
        generator = torch.Generator(device=self.device).manual_seed(5)
        frames = steady_clip(scenes, torch.rand(count, 2, generator=generator, device=self.device) * SIZE, FRAMES)
        again = reconstruct(self.ema, frames, self.config.dit.latent_frames)
        psnr = -10 * (again - frames).square().mean((1, 2, 3, 4)).log10()
        right = read(again).right(scenes)
        report = {f"recon_{k}": right[k].float().mean().item() for k in ("background", "colour", "shape", "motion")}
        return report | {"psnr_mean": psnr.mean().item(), "psnr_min": psnr.min().item()}

    def run(self) -> None:
        """Train to the end of the schedule, or to `last_step`."""
        run = self.run_state
        run.start()
        while run.going:
            progress = run.progress
            decay = 1.0 if progress < 0.3 else 0.5 * (1 + math.cos(math.pi * (progress - 0.3) / 0.7))
            run.set_rate(min(1.0, (run.step + 1) / 100) * max(decay, 0.005))
            loss, error = self.learn(self.draw())
            if run.step % 250 == 0:
                run.record({"loss": loss.item(), "psnr": -10 * error.log10().item()})
            run.save_if_due()
        run.save()
        run.record({"final": True, **self.evaluate()})


def main() -> None:
    defaults = Options()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/training"), help="folder of the checkpoint and the curve")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=defaults.minutes, help="length of the schedule")
    parser.add_argument("--last-step", type=int, default=None, help="end the schedule early, at this step")
    parser.add_argument("--batch", type=int, default=defaults.batch)
    parser.add_argument("--noise", type=float, default=defaults.noise)
    parser.add_argument("--lr", type=float, default=defaults.lr)
    a = parser.parse_args()
    options = Options(a.minutes, a.last_step, a.batch, a.noise, a.lr)
    VAETrainer(a.out, torch.device(a.device), options, millrace_64()).run()


if __name__ == "__main__":
    main()
