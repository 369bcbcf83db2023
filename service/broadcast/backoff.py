"""How long a lost output waits before it is tried again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits grow with each failure in a row, and differ by chance, so that many outputs do not come back together.

    Attributes:
        first_s, most_s: the first wait, and the longest.
        steady_s: an output that has run for so long has not failed before.
    """

    first_s: float = 0.5
    most_s: float = 30.0
    steady_s: float = 10.0

    def delay(self, failures: int, chance: float) -> float:
        """Seconds to wait after `failures` in a row, 1 or more. `chance` is from 0 to 1: it takes away up to half."""
        doubled = min(failures - 1, 32)  # beyond that, the longest wait is reached, and a power would only grow
        return min(self.most_s, self.first_s * 2.0**doubled) * (1.0 - chance / 2.0)
