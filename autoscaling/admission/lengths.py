"""How long a session is expected to last, from those that have ended and the time that all have run."""

from __future__ import annotations

import math

# Until sessions have been seen to end: how long one is taken to last.
_PRIOR_SESSION_S = 30.0
# What has been seen of lengths halves in weight in this time.
_MEMORY_S = 600.0


class Lengths:
    """It has one owner and knows no clock: the owner tells it the time."""

    def __init__(self) -> None:
        self._ended = 1.0
        self._exposure_s = _PRIOR_SESSION_S

    def passed(self, elapsed_s: float, running: int) -> None:
        """`elapsed_s` have passed, in which `running` sessions ran."""
        decay = math.exp(-elapsed_s / _MEMORY_S)
        # The prior stays: without it one early end would count for everything.
        self._ended = 1 + (self._ended - 1) * decay
        self._exposure_s = _PRIOR_SESSION_S + (self._exposure_s - _PRIOR_SESSION_S) * decay + elapsed_s * running

    def one_ended(self) -> None:
        self._ended += 1

    @property
    def session_s(self) -> float:
        """How long a session lasts. Lengths count as exponential, so one that runs goes on for as long."""
        return self._exposure_s / self._ended
