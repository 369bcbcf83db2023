"""Does the world answer keys? `python -m training.evaluate_world` scores a model on keys and scenes that were held out of training.

A session is a held-out scene and a random sequence of keys, and every chunk of it is judged alone. It begins where the detector finds the
shape at the end of the chunk before. From there the rule of the world says where the shape must be at the end of this one. The chunk is
right if the shape is found there, within `TOLERANCE_PX`. So drift over a session is neither hidden nor counted twice.

A chunk is of one of three kinds. *Free*: keys are held, and no wall is in the way. *Walls*: a wall cuts the way short, or lets the shape
not move at all. *Rest*: no key is held. The first chunk of a session shows its start, so its way is one frame shorter.

The same is read from frames that the world's own renderer drew, and from those through the autoencoder: what a perfect model could reach.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from model_core.config import MillraceConfig
from model_core.diffusion.flow_match import chunk_noise
from model_core.families.millrace.sentence import SentenceEmbedder
from model_core.nn.causal_dit import CausalDiT, TextCondition, with_keys
from model_core.nn.vae import VAE
from model_core.presets import millrace_64_world
from model_core.quality.detect import apart, read, track
from model_core.quality.words import SIZE
from model_core.weights import load_dit, load_vae
from training.captions import Embed
from training.evaluate import to_bytes
from training.rollout import decode, reconstruct, rollout
from training.run import load_checkpoint
from training.scores import Share
from training.walls import PACE, caption, film, headings_of, key_sequence, multi_hot, random_scene, room, walk
from training.world import centres_of_screen, scene_tensor

TOLERANCE_PX = 2.0  # a fifth of the way of a free chunk
KINDS = ("free", "walls", "rest")
ROWS_AT_ONCE = 16
_SEED = 2027
_TOUCH_PX = 0.5  # a wall that costs less of the way is none


class WorldEvaluator:
    """A model, and `count` sessions of `chunks` chunks: held-out scenes, and keys that no training clip has."""

    def __init__(self, config: MillraceConfig, vae: VAE, dit: CausalDiT, embed: Embed, count: int, chunks: int = 6) -> None:
        self.config, self.count, self.chunks = config, count, chunks
        self._vae, self._dit, self._embed = vae, dit, embed
        rng = random.Random(_SEED)
        self.scenes = [random_scene(rng, held_out=True) for _ in range(count)]
        self.prompts = [caption(scene, rng) for scene in self.scenes]
        self.keys = [key_sequence(chunks, rng) for _ in range(count)]

    def draw(self, rows: Sequence[int]) -> Tensor:
        """Frames uint8 `[B, N, 3, H, W]` of these sessions, sampled as the server does."""
        device = next(self._dit.parameters()).device
        tokens, mask = self._embed([self.prompts[i] for i in rows])
        held = multi_hot([self.keys[i] for i in rows]).to(device)
        with torch.no_grad():
            text = self._dit.condition(torch.tensor(tokens, device=device), torch.tensor(mask, device=device))

        def told(chunk: int) -> TextCondition:
            with torch.no_grad():
                return with_keys(text, self._dit.hold(held[:, chunk]))

        def noise(chunk: int) -> Tensor:
            return torch.stack([chunk_noise(seed, chunk, self.config.latent_shape(chunk)) for seed in rows]).to(device)

        return to_bytes(decode(self._vae, rollout(self._dit, told, noise, self.chunks, self.config.num_steps, self.config.shift)))

    def truth(self, rows: Sequence[int]) -> Tensor:
        """Frames of the world's own renderer."""
        scenes = scene_tensor([self.scenes[i] for i in rows])
        headings = headings_of([self.keys[i] for i in rows])
        centres = walk(scenes[:, None].expand(-1, self.chunks, -1), centres_of_screen(len(rows)), headings, self.config.frames_per_chunk)
        return to_bytes(film(scenes, centres))

    def judge(self, frames: Tensor, rows: Sequence[int]) -> dict[str, Tensor]:
        """Booleans: for each kind its chunks, whether they are right; and `looks`, whether a session still shows its scene at the end."""
        n = self.config.frames_per_chunk
        scenes = scene_tensor([self.scenes[i] for i in rows])
        seen = track(frames.float() / 255).cpu().remainder(SIZE)
        start = torch.cat((seen[:, :1], seen[:, n - 1 :: n][:, :-1]), 1)  # [B,J,2]: the first frame, then the last one of each chunk before
        end = seen[:, n - 1 :: n]
        headings = headings_of([self.keys[i] for i in rows])
        steps = torch.tensor([n - 1] + [n] * (self.chunks - 1))[None, :, None]
        way = headings * steps * PACE
        lean = _lean(scenes)[:, None]  # centroids are not centres: a triangle's lies lower
        low, high = (side[:, None] + lean for side in room(scenes))
        goal = torch.minimum(torch.maximum(start + way, low), high)
        right = apart(goal, end) <= TOLERANCE_PX
        cut = ((goal - start - way).abs() > _TOUCH_PX).any(-1)
        told = (headings != 0).any(-1)
        reading = read(frames[:, -n:].float() / 255)
        same = reading.right(scenes)
        return {"free": right[told & ~cut], "walls": right[told & cut], "rest": right[~told], "looks": same["colour"] & same["shape"]}

    def quick(self) -> dict[str, float]:
        """Shares right, for a training curve."""
        return {kind: round(share.value, 3) for kind, share in self.shares(self.draw).items()}

    def shares(self, draw: Callable[[Sequence[int]], Tensor], tick: Callable[[int], None] = lambda _: None) -> dict[str, Share]:
        """Of what `draw` draws; `tick` is called with the number of sessions that are done."""
        seen: dict[str, list[Tensor]] = defaultdict(list)
        for first in range(0, self.count, ROWS_AT_ONCE):
            rows = range(first, min(first + ROWS_AT_ONCE, self.count))
            for kind, right in self.judge(draw(rows), rows).items():
                seen[kind].append(right)
            tick(rows.stop)
        joined = {kind: torch.cat(parts) for kind, parts in seen.items()}
        return {kind: Share(int(right.sum()), max(1, len(right))) for kind, right in joined.items()}

    def again(self, rows: Sequence[int]) -> Tensor:
        """As `truth`, through the autoencoder."""
        return to_bytes(reconstruct(self._vae, self.truth(rows).float() / 255, self.config.dit.latent_frames))


def _lean(scenes: Tensor) -> Tensor:
    """`[B, 2]`: where the detector finds a shape, less where its centre is."""
    middle = centres_of_screen(len(scenes))
    found = track(film(scenes, middle[:, None].expand(-1, 8, -1)))[:, 0]
    return (found - middle + SIZE / 2).remainder(SIZE) - SIZE / 2


def report(evaluator: WorldEvaluator, tick: Callable[[int], None] = lambda _: None) -> dict[str, object]:
    """The whole protocol, as JSON."""
    rows = {"model": evaluator.draw, "renderer": evaluator.truth, "renderer through the autoencoder": evaluator.again}
    shares = {name: evaluator.shares(draw, tick) for name, draw in rows.items()}
    model = shares["model"]
    gates = [{"gate": kind, "at_least": 0.95, "value": round(model[kind].value, 4), "passed": model[kind].value >= 0.95} for kind in KINDS]
    return {
        "model": evaluator.config.name, "sessions": evaluator.count, "chunks": evaluator.chunks, "steps": evaluator.config.num_steps,
        "tolerance_px": TOLERANCE_PX,
        "shares": {name: {kind: share.as_json() for kind, share in row.items()} for name, row in shares.items()}, "gates": gates,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--training", type=Path, default=None, help="folder of `training.train_world`; else the shipped weights")
    parser.add_argument("--sessions", type=int, default=256)
    parser.add_argument("--chunks", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    config = millrace_64_world()
    if a.training is None:
        dit = load_dit(config)
    else:
        dit = CausalDiT(config.dit).eval()
        dit.load_state_dict(load_checkpoint(a.training, "world", torch.device("cpu"))["modules"]["ema"])
    evaluator = WorldEvaluator(config, load_vae(config), dit, SentenceEmbedder(config.text).embed, a.sessions, a.chunks)
    print(json.dumps(report(evaluator, lambda done: print(f"{done} of {a.sessions} sessions", flush=True)), indent=2))


if __name__ == "__main__":
    main()
