"""Does it draw what it is told? Scores a model on attribute combinations that were held out of training. `headrace eval` runs this.

Every share stands beside two ceilings read by the same detector: the ground truth, and the ground truth through the autoencoder.
Sampling is that of the server: same noise, same schedule, same graphs; a test asserts that the denoise stage gives the same latents.

The prompts: held-out combinations in random order, none twice as long as there are enough, each with a random size, speed and wording.
A prompt switch goes to another held-out combination that differs in background, colour, shape and motion: nothing is right by staying.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from model_core.config import MillraceConfig
from model_core.diffusion.flow_match import chunk_noise
from model_core.nn.causal_dit import CausalDiT, TextCondition
from model_core.nn.vae import VAE
from model_core.quality.detect import Reading, join, read
from model_core.quality.words import MOTIONS, RADII, SPEEDS
from training.captions import Embed
from training.rollout import decode, reconstruct, rollout
from training.scores import ALL, ATTRIBUTES, Loss, Quantiles, Report, Row, Share
from training.world import Scene, caption, centres_of_screen, combinations, scene_tensor, steady_clip

WINDOW_CHUNKS = 5  # 40 frames: what "first" and "last" mean in a long roll-out
SWITCH_CHUNK = 3  # index of the first chunk with the second prompt
ROWS_AT_ONCE = 16


def held_out_scenes(count: int, rng: random.Random) -> list[Scene]:
    """`count` held-out scenes; no combination comes back before all have been used."""
    scenes: list[Scene] = []
    while len(scenes) < count:
        lap = combinations(held_out=True)
        rng.shuffle(lap)
        scenes += [_with_size_and_speed(scene, rng) for scene in lap]
    return scenes[:count]


def opposite(scene: Scene, rng: random.Random) -> Scene:
    """A held-out scene that differs from `scene` in all four attributes."""
    different = [s for s in combinations(held_out=True) if all(a != b for a, b in zip(s.combination, scene.combination, strict=True))]
    return _with_size_and_speed(rng.choice(different), rng)


def _with_size_and_speed(scene: Scene, rng: random.Random) -> Scene:
    speed = scene.speed if MOTIONS[scene.motion] == "still" else rng.randrange(len(SPEEDS))
    return replace(scene, speed=speed, size=rng.randrange(len(RADII)))


class Evaluator:
    """A model and `count` pairs of prompts: what is drawn, and what it is switched to."""

    def __init__(self, config: MillraceConfig, vae: VAE, dit: CausalDiT, embed: Embed, count: int, num_steps: int | None = None) -> None:
        self.config, self.vae, self.dit, self.count = config, vae, dit, count
        self.num_steps = num_steps or config.num_steps
        rng = random.Random(2026)
        self.scenes = held_out_scenes(count, rng)
        self.next_scenes = [opposite(scene, rng) for scene in self.scenes]
        self.prompts = [caption(scene, rng) for scene in self.scenes]
        self.next_prompts = [caption(scene, rng) for scene in self.next_scenes]
        self._embed = embed

    def batches(self) -> list[range]:
        """Row numbers, in the portions that are drawn together."""
        return [range(start, min(start + ROWS_AT_ONCE, self.count)) for start in range(0, self.count, ROWS_AT_ONCE)]

    def latents(
        self, prompts: Sequence[str], seeds: Sequence[int], chunks: int, switch: int = 0, after: Sequence[str] = ()
    ) -> list[Tensor]:
        """Clean chunks `[B, C, F, h, w]` of B sessions. From chunk `switch` on, the prompts are `after`, where there are any."""
        g, text = self.config.dit, self._condition(prompts)
        second = self._condition(after) if after else text
        shape = (g.latent_channels, g.latent_frames, g.latent_height, g.latent_width)

        def noise(index: int) -> Tensor:
            return torch.stack([chunk_noise(seed, index, shape) for seed in seeds])

        return rollout(
            self.dit, lambda index: text if index < switch or not after else second, noise, chunks, self.num_steps, self.config.shift
        )

    def draw(self, prompts: Sequence[str], seeds: Sequence[int], chunks: int, switch: int = 0, after: Sequence[str] = ()) -> Tensor:
        """Frames uint8 `[B, N, 3, H, W]`; arguments as for `latents`."""
        return to_bytes(decode(self.vae, self.latents(prompts, seeds, chunks, switch, after)))

    def _condition(self, prompts: Sequence[str]) -> TextCondition:
        tokens, mask = self._embed(prompts)
        with torch.no_grad():
            return self.dit.condition(torch.tensor(tokens), torch.tensor(mask))


def to_bytes(frames: Tensor) -> Tensor:
    """Frames in [0, 1] as the uint8 a viewer gets; the detector reads these."""
    return (frames * 255).round().clamp(0, 255).to(torch.uint8)


def look(frames: Tensor) -> Reading:
    """Attributes of uint8 frames `[B, F, 3, H, W]`."""
    return read(frames.float() / 255)


def shares(reading: Reading, scenes: Sequence[Scene]) -> dict[str, Share]:
    """Shares right, by attribute."""
    table = scene_tensor(list(scenes))
    right = reading.right(table)
    right[ALL] = all_right(reading, table)
    moving = table[:, 2] != MOTIONS.index("still")
    right["speed"] = right["speed"][moving]
    return {name: Share(int(hits.sum()), max(1, len(hits))) for name, hits in right.items()}


def all_right(reading: Reading, table: Tensor) -> Tensor:
    """Booleans `[B]`: the four attributes together."""
    right = reading.right(table)
    return torch.stack([right[a] for a in ATTRIBUTES]).all(0)


def evaluate(evaluator: Evaluator, long_chunks: int = 25, tick: Callable[[int], None] = lambda _: None) -> Report:
    """The whole protocol. `tick` is called with the number of prompts that are done.

    Raises:
        ValueError: the long roll-out is shorter than one window.
    """
    if long_chunks < WINDOW_CHUNKS:
        raise ValueError(f"long_chunks must be at least {WINDOW_CHUNKS}, got {long_chunks}")
    n = evaluator.config.frames_per_chunk
    window = WINDOW_CHUNKS * n
    seen: dict[str, list[Reading]] = defaultdict(list)
    psnr: list[Tensor] = []
    for rows in evaluator.batches():
        scenes = [evaluator.scenes[i] for i in rows]
        prompts, after = ([items[i] for i in rows] for items in (evaluator.prompts, evaluator.next_prompts))
        truth = to_bytes(steady_clip(scene_tensor(scenes), centres_of_screen(len(rows)), window))
        again = to_bytes(reconstruct(evaluator.vae, truth.float() / 255, evaluator.config.dit.latent_frames))
        psnr.append(-10 * ((again.float() - truth.float()) / 255).square().mean((1, 2, 3, 4)).clamp(min=1e-10).log10())
        drawn = evaluator.draw(prompts, rows, long_chunks)
        steered = evaluator.draw(prompts, rows, SWITCH_CHUNK + 2, SWITCH_CHUNK, after)[:, SWITCH_CHUNK * n :]
        pictures = {
            "truth_short": truth[:, :n], "truth": truth, "autoencoder": again,
            "first_chunk": drawn[:, :n], "window": drawn[:, :window], "last_window": drawn[:, -window:],
            "switch_first": steered[:, :n], "switch_second": steered[:, n:],
        }  # fmt: skip
        for name, frames in pictures.items():
            seen[name].append(look(frames))
        tick(rows.stop)
    readings = {name: join(parts) for name, parts in seen.items()}
    return _report(evaluator, readings, torch.cat(psnr), long_chunks * n, window)


def _report(evaluator: Evaluator, readings: dict[str, Reading], psnr: Tensor, long_frames: int, window: int) -> Report:
    n = evaluator.config.frames_per_chunk
    names = {
        "truth_short": f"ground truth, {n} frames",
        "truth": f"ground truth, {window} frames",
        "autoencoder": f"autoencoder, {window} frames",
        "first_chunk": f"first chunk, {n} frames",
        "window": f"{window} frames",
        "last_window": f"last {window} of {long_frames} frames",
        "switch_first": "first chunk after a switch",
        "switch_second": "second chunk after a switch",
    }
    rows = {
        key: Row(name, shares(readings[key], evaluator.next_scenes if key.startswith("switch") else evaluator.scenes))
        for key, name in names.items()
    }
    first, last = readings["window"], readings["last_window"]
    table = scene_tensor(evaluator.scenes)
    before, after = all_right(first, table), all_right(last, table)
    ratio = (last.area / first.area.clamp(min=1)).quantile(torch.tensor([0.05, 0.5, 0.95])).tolist()
    return Report(
        model=evaluator.config.name, prompts=evaluator.count, steps=evaluator.num_steps, long_frames=long_frames, **rows,
        psnr_db=(float(psnr.mean()), float(psnr.min())),
        long_loss=Loss(int((before & ~after).sum()), int((after & ~before).sum()), evaluator.count),
        area_ratio=Quantiles(*ratio),
        background_shift=float((last.background_rgb - first.background_rgb).abs().mean()) * 255,
    )  # fmt: skip
