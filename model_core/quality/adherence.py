"""Whether frames show what the prompt names, where a detector can tell: in the world of the embedded model.

The detector has no learned parts. It knows plain backgrounds, one shape and its motion; of other videos its answer means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image

from model_core.media import Frames
from model_core.quality.detect import Reading, read
from model_core.quality.values import Adherence
from model_core.quality.words import DETECTOR, SIZE

WINDOW = 40  # frames that are looked at together
_LEAST = 8  # that the detector needs


class Judge:
    """Takes the frames of one video as they come, and keeps one window of them, reduced.

    Args:
        asked: see `model_core.quality.words.asked_for`; one attribute at least.
    """

    def __init__(self, asked: Mapping[str, int]) -> None:
        self._asked = dict(asked)
        self._window: list[Frames] = []
        self._windows = self._whole = 0
        self._right = dict.fromkeys(self._asked, 0)

    def add(self, frame: Frames) -> None:
        """The next frame `[H, W, 3]`, of any size: the square in its middle is looked at."""
        self._window.append(reduced(frame))
        if len(self._window) == WINDOW:
            self.cut()

    def cut(self) -> None:
        """What comes next does not follow what came last. What is left of a window counts if it is long enough."""
        if len(self._window) >= _LEAST:
            self._look(np.stack(self._window))
        self._window.clear()

    def adherence(self) -> Adherence | None:
        """Of all frames so far, of which no more may come; None where they are too few."""
        self.cut()
        if not self._windows:
            return None
        shares = {name: hits / self._windows for name, hits in self._right.items()}
        return Adherence(detector=DETECTOR, windows=self._windows, score=self._whole / self._windows, shares=shares)

    def _look(self, frames: Frames) -> None:
        seen = _read(frames)
        shown = {"background": seen.background, "colour": seen.colour, "shape": seen.shape, "motion": seen.motion}
        right = {name: int(shown[name].item()) == index for name, index in self._asked.items()}
        self._windows += 1
        self._whole += all(right.values())
        for name, hit in right.items():
            self._right[name] += hit


def reduced(frame: Frames) -> Frames:
    """The square in the middle of `frame` `[H, W, 3]`, at the size of the detector: a model's square picture, whatever borders it has."""
    height, width = frame.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = frame[top : top + side, left : left + side]
    if side == SIZE:
        return square.copy()
    return np.asarray(Image.fromarray(square).resize((SIZE, SIZE), Image.Resampling.BOX), np.uint8)


def _read(frames: Frames) -> Reading:
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)[None]
    return read(pixels.float() / 255)
