"""Brown-out: every session a little worse before anyone is refused. Levels of fewer steps; up at once, down slowly, one at a time.

Level 0 is what each session asked for. Level n caps it at `tiers[n - 1]` steps. Sessions whose steps are fixed keep them at every level.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from autoscaling.capacity.profile import Capacity

# Loads are sums of fractions.
_ROUNDING = 1e-9
# A model that was made for more steps than these loses its picture with fewer, and is not lowered unless somebody asks for it.
_FEW_STEPS = 8


def default_tiers(steps: int, min_steps: int = 1) -> tuple[int, ...]:
    """Levels for a model of `steps` steps: three quarters of them, then half. None for a model of many steps."""
    if steps > _FEW_STEPS:
        return ()
    least = least_tier(steps, min_steps)
    return tuple(sorted({tier for tier in (max(least, math.ceil(0.75 * steps)), least) if tier < steps}, reverse=True))


def least_tier(steps: int, min_steps: int = 1) -> int:
    """Half of a model's steps, since fewer make noise, and what the model makes at all."""
    return max(min_steps, math.ceil(steps / 2))


@dataclass(frozen=True, slots=True)
class Running:
    """Paced sessions, by the steps that they asked for.

    Attributes:
        asked: how many of those that a level may give fewer steps.
        fixed: how many of those that run with what they asked for at every level.
    """

    asked: Mapping[int, int] = field(default_factory=dict)
    fixed: Mapping[int, int] = field(default_factory=dict)

    def total(self) -> int:
        return sum(self.asked.values()) + sum(self.fixed.values())

    def joined(self, steps: int, number: int = 1, *, fixed: bool = False) -> Running:
        """With `number` more."""
        if fixed:
            return Running(self.asked, Counter(self.fixed) + Counter({steps: number}))
        return Running(Counter(self.asked) + Counter({steps: number}), self.fixed)


@dataclass(frozen=True, slots=True)
class BrownOutConfig:
    """When to lower and when to recover.

    Attributes:
        tiers: step counts of the levels from 1 on, strictly descending; empty for no brown-out.
        dwell_s: time at a level before one level is recovered.
        overload: load beyond which sessions that already run are lowered. Above 1, because the estimate of the capacity is noisy.
        recover: load below which, at the level above, that level is recovered, provided that one more session would fit it too.
        turnover: share of the sessions that run which may follow a change of level in a second.
    """

    tiers: tuple[int, ...] = (3, 2)
    dwell_s: float = 15.0
    overload: float = 1.1
    recover: float = 0.85
    turnover: float = 0.25

    def __post_init__(self) -> None:
        if list(self.tiers) != sorted(set(self.tiers), reverse=True) or any(t < 1 for t in self.tiers):
            raise ValueError(f"tiers must be strictly descending step counts of 1 or more; got {self.tiers}")
        if not self.turnover > 0.0:
            raise ValueError(f"turnover must be above 0; got {self.turnover:g}")

    @property
    def lowest(self) -> int:
        """The last level."""
        return len(self.tiers)

    def steps(self, asked: int, level: int) -> int:
        """Steps that a session which asked for `asked` gets at `level`."""
        return asked if level == 0 else min(asked, self.tiers[level - 1])

    def load(self, capacity: Capacity, running: Running, level: int) -> float:
        """Share of `capacity` that sessions take at `level`."""
        given = Counter(running.fixed)
        for steps, number in running.asked.items():
            given[self.steps(steps, level)] += number
        return capacity.load(given)

    def fits(self, capacity: Capacity, running: Running, level: int) -> bool:
        """Whether they are all in real time at `level`."""
        return self.load(capacity, running, level) <= 1 + _ROUNDING


@dataclass(frozen=True, slots=True)
class BrownOut:
    """The level, and since when."""

    level: int = 0
    since: float = -math.inf

    def raised(self, level: int, now: float) -> BrownOut:
        """At `level`, if that is further down."""
        return BrownOut(level, now) if level > self.level else self

    def observe(self, config: BrownOutConfig, capacity: Capacity, running: Running, waiting: int, now: float) -> BrownOut:
        """What the load calls for: as far down as it needs and as helps at once, or one level up after the dwell time.

        Args:
            waiting: sessions in line; while there are any, nothing is recovered.
        """
        level = self._needed(config, capacity, running)
        if level > self.level:
            return BrownOut(level, now)
        if self.level == 0 or waiting or now - self.since < config.dwell_s:
            return self
        better = self.level - 1
        one_more = running.joined(max([*running.asked, *running.fixed], default=config.tiers[0]))
        if config.load(capacity, running, better) <= config.recover and config.fits(capacity, one_more, better):
            return BrownOut(better, now)
        return self

    def _needed(self, config: BrownOutConfig, capacity: Capacity, running: Running) -> int:
        """The first level from this one down that ends an overload, or the first of those that relieve it most."""
        best, least = self.level, math.inf
        for level in range(self.level, config.lowest + 1):
            load = config.load(capacity, running, level)
            if load <= config.overload:
                return level
            if load < least:
                best, least = level, load
        return best
