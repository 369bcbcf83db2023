"""A known computation. After an error it shows whether the session or the device is at fault; it also shows which devices round alike."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_core.errors import DeviceBroken

_DIGITS = 16  # of a digest
_TOLERANCE = 1e-2  # of the largest value: finds a device that fails or makes nonsense, and allows for rounding


class Probe:
    """For the device's thread. `compute` does a small piece of the stage's work for no session, and gives the same numbers each time."""

    def __init__(self, compute: Callable[[], NDArray[Any]]) -> None:
        self._compute = compute
        self._known: NDArray[Any] | None = None

    def learn(self) -> None:
        """Remember what comes out while the device is known to be sound. Until then any finite numbers are right."""
        self._known = self._compute()

    @property
    def numerics(self) -> str:
        """A digest of every bit that came out when it was learned: equal on devices that round alike. Empty before that."""
        return "" if self._known is None else hashlib.sha256(np.ascontiguousarray(self._known).data).hexdigest()[:_DIGITS]

    def check(self, error: Exception) -> None:
        """Return if the device is sound, so that `error` is the fault of whoever was computed for.

        Raises:
            DeviceBroken: from `error`.
        """
        try:
            made = self._compute()
        except Exception as again:  # noqa: BLE001 - whatever it raises, it did not raise before
            raise DeviceBroken(f"{_told(error)}; and a known computation: {_told(again)}") from error
        known = np.nan_to_num(made) if self._known is None else self._known
        if not np.allclose(made, known, rtol=0.0, atol=_TOLERANCE * float(np.abs(np.nan_to_num(known)).max(initial=0.0)), equal_nan=True):
            raise DeviceBroken(f"{_told(error)}; and a known computation has another result than it had") from error


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
