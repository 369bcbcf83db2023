"""A bank of (scene, caption) pairs with their text features, so that training never waits for the text encoder."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.world import Scene, caption, random_scene, scene_tensor, short_caption

# Texts → tokens `[N, T, D]` and mask `[N, T]`, as `LocalTextEncoder.embed`.
Embed = Callable[[Sequence[str]], tuple[NDArray[np.float32], NDArray[np.bool_]]]

_CHANGING = ("colour", "shape", "motion", "background")
_TEXTS_AT_ONCE = 1024


class CaptionBank:
    """`scenes` `[S, 6]`, `tokens` bf16 `[S, T, D]`, `mask` `[S, T]`; rows of one index belong together."""

    def __init__(self, scenes: list[Scene], texts: list[str], tokens: Tensor, mask: Tensor) -> None:
        self.scenes = scene_tensor(scenes).to(tokens.device)
        self.texts = texts
        self.tokens = tokens
        self.mask = mask
        self._by_scene: dict[Scene, list[int]] = {}
        self._list = scenes
        for index, scene in enumerate(scenes):
            self._by_scene.setdefault(scene, []).append(index)

    def related(self, index: int, rng: random.Random) -> int:
        """Another row: for half of the calls a scene that differs in one or two attributes, else any."""
        if rng.random() < 0.5:
            for _ in range(4):
                here, other = self._list[index], self._list[rng.randrange(len(self._list))]
                changed = rng.sample(_CHANGING, rng.choice((1, 2)))
                found = self._by_scene.get(replace(here, **{name: getattr(other, name) for name in changed}))
                if found:
                    return rng.choice(found)
        return rng.randrange(len(self._list))


def build_bank(count: int, embed: Embed, device: torch.device, seed: int = 3, *, held_out: bool = False) -> CaptionBank:
    """Draw `count` pairs and embed them. One caption in ten is a short one, but for held-out scenes, which are always said in full."""
    rng = random.Random(seed)
    scenes, texts = [], []
    for _ in range(count):
        if not held_out and rng.random() < 0.1:
            scene, text = short_caption(rng)
        else:
            scene = random_scene(rng, held_out)
            text = caption(scene, rng)
        scenes.append(scene)
        texts.append(text)
    return embedded(scenes, texts, embed, device)


def embedded(scenes: list[Scene], texts: list[str], embed: Embed, device: torch.device) -> CaptionBank:
    """A bank of these pairs."""
    tokens, masks = [], []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        features, mask = embed(texts[start : start + _TEXTS_AT_ONCE])
        tokens.append(torch.tensor(features, dtype=torch.bfloat16, device=device))
        masks.append(torch.tensor(mask, device=device))
    return CaptionBank(scenes, texts, torch.cat(tokens), torch.cat(masks))
