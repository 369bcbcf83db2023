"""Steps of many-step models that need no forward: EasyCache (Zhou et al., 2025, arXiv 2507.02860), decided clip by clip.

From step to step, what the network predicts changes in steady proportion to what it is given. So the change of a prediction is estimated
from that of the latents. While the estimates since the last forward add up to less than a threshold, the difference between prediction and
latents that this forward had is used again.

diffusers' own caches decide for a batch as a whole, which would make a clip's frames depend on the others; here a decision follows from
the clip's own latents.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor

_ALWAYS = 0.2  # of a clip's steps, the first ones, in which its layout comes about and the proportion is not steady


@dataclass(slots=True)
class Skipping:
    """What is known of one clip.

    Attributes:
        threshold: of the estimated relative change of the prediction since the last forward; 0: every step has its forward.
        steps: of the clip.
        group: of the network that predicted last; another one's difference is not its own.
        x_t, predicted: of the step before, in the network's layout.
        offset: prediction less latents, of the last forward.
        gain: change of the prediction for that of the latents; None where it is not known.
        drift: estimated change since the last forward.
    """

    threshold: float = 0.0
    steps: int = 0
    group: Hashable = None
    x_t: Tensor = field(default_factory=lambda: torch.empty(0))
    predicted: Tensor = field(default_factory=lambda: torch.empty(0))
    offset: Tensor = field(default_factory=lambda: torch.empty(0))
    gain: float | None = None
    drift: float = 0.0

    def guess(self, x_t: Tensor, step: int, group: Hashable) -> Tensor | None:
        """The prediction for `x_t`, or None: then a forward is needed, and `learn` must be told. The first and last steps need one."""
        if self.gain is None or group != self.group or not self.threshold or not _ALWAYS * self.steps <= step < self.steps - 1:
            return None
        self.drift += self.gain * _size(x_t - self.x_t) / _size(self.predicted)
        if not self.drift < self.threshold:  # also if it is no number
            return None
        self.x_t, self.predicted = x_t, x_t + self.offset
        return self.predicted

    def learn(self, x_t: Tensor, predicted: Tensor, group: Hashable) -> None:
        """A forward predicted `predicted` for `x_t`."""
        if not self.threshold:
            return
        known = self.x_t.shape == x_t.shape and group == self.group
        moved = _size(x_t - self.x_t) if known else 0.0
        self.gain = _size(predicted - self.predicted) / moved if moved else None
        self.group, self.x_t, self.predicted, self.drift = group, x_t, predicted.clone(), 0.0
        self.offset = predicted - x_t


def _size(x: Tensor) -> float:
    return float(x.abs().mean())
