"""Whether a denoise device computes what it computed when it was warmed up: a chunk's first step, of a session that nobody asked for."""

from __future__ import annotations

import numpy as np
import torch

from model_core.config import ModelConfig
from model_core.errors import DeviceBroken
from model_core.families.interface import Sampler
from model_core.types import Latents, SessionContext

_TOLERANCE = 1e-2  # of the largest value: what is looked for is a device that fails or makes nonsense, and no other rounding


class Probe:
    """Asked when something went wrong, to tell the fault of a session from that of the device. For the engine's thread."""

    def __init__(self, sampler: Sampler, config: ModelConfig) -> None:
        self._sampler, self._config = sampler, config
        self._known: Latents | None = None

    def learn(self) -> None:
        """Remember what comes out while the device is known to be sound."""
        self._known = self._computed()

    def check(self, error: Exception) -> None:
        """Return if the device is sound, so that `error` is the fault of whoever was computed for.

        Raises:
            DeviceBroken: from `error`.
        """
        try:
            made = self._computed()
        except Exception as again:  # noqa: BLE001 - whatever it raises, it did not when it was warmed up
            raise DeviceBroken(f"{_told(error)}; and a known computation: {_told(again)}") from error
        known = made if self._known is None else self._known
        if not np.allclose(made, known, rtol=0.0, atol=_TOLERANCE * float(np.abs(np.nan_to_num(known)).max()), equal_nan=True):
            raise DeviceBroken(f"{_told(error)}; and a known computation has another result than it had") from error

    def _computed(self) -> Latents:
        with torch.inference_mode():
            leg = self._sampler.open(SessionContext("probe", 0, self._config.num_steps, self._sampler.blank()))
            self._sampler.start(leg, 0)
            self._sampler.step([leg])
            made = self._sampler.latents(leg)
            self._sampler.commit([leg])
        return made


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
