"""How long a session is expected to last, from those that have ended and the time that all have run."""

from __future__ import annotations

import math

# Until sessions have been seen to end: how long one is taken to last.
_PRIOR_SESSION_S = 30.0
# What has been seen of lengths halves in weight in this time.
_MEMORY_S = 600.0


class Lengths:
    """One owner; knows no clock: time is told."""

    def __init__(self) -> None:
        self._ended = 1.0
        self._exposure_s = _PRIOR_SESSION_S

    def passed(self, elapsed_s: float, running: int) -> None:
        """So much time, in which so many ran."""
        decay = math.exp(-elapsed_s / _MEMORY_S)
        # The prior stays: without it one early end would count for everything.
        self._ended = 1 + (self._ended - 1) * decay
        self._exposure_s = _PRIOR_SESSION_S + (self._exposure_s - _PRIOR_SESSION_S) * decay + elapsed_s * running

    def one_ended(self) -> None:
        self._ended += 1

    @property
    def session_s(self) -> float:
        """What one lasts, and, lengths taken as exponential, goes on to last."""
        return self._exposure_s / self._ended
