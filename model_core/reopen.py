"""How often, and after how long, something is tried again after a stage died. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReopenPolicy:
    """How a session keeps trying after a stage died.

    The first retry is immediate, because a spare replica may be running. Then delays double from `backoff_s` to `max_backoff_s`; each is
    shortened at random by up to a half, so that the sessions of a dead replica do not come back in step.

    Attributes:
        attempts: in a row without result, after which the session fails.
        backoff_s, max_backoff_s: first and longest delay.
        give_up_after_s: how long the text encoder may be away, counted from the first failure, until a prompt or footage is not tried
            again. An attempt may wait for a replica that starts, so attempts alone would be no bound.
    """

    attempts: int = 20
    backoff_s: float = 0.05
    max_backoff_s: float = 1.0
    give_up_after_s: float = 60.0

    def delay(self, failures: int, chance: float) -> float:
        """Seconds to wait after `failures` in a row, 1 or more; `chance` is a random number from 0 to 1."""
        if failures <= 1:
            return 0.0
        longest = min(self.max_backoff_s, self.backoff_s * 2.0 ** min(failures - 2, 60))
        return longest * (1.0 - chance / 2)

    def gives_up(self, failures: int, away_s: float) -> bool:
        """Whether text that failed to be encoded `failures` times, `away_s` seconds after the first of them, is not tried again."""
        return failures >= self.attempts or away_s >= self.give_up_after_s
