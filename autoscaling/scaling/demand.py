"""How many sessions to have room for: arrival rates over two windows, session lengths, and Little's law run forward a little.

Sessions that come at rate λ and stay D seconds make an M/G/∞ queue. With n there now, h seconds later there are on average
n e^{-h/D} + λ D (1 - e^{-h/D}), if lengths are taken as exponential, and the number scatters by what leaves (binomial) and what comes:
a Poisson number, or, where arrivals come in clumps, one with so many times its variance. No rate is extrapolated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

# Evidence about session lengths, and about how evenly they come, halves in weight in about this time.
_MEMORY_S = 600.0
# A panic needs arrivals that chance explains less often than once in a thousand.
_SURPRISE = 3.0
# As many arrivals are taken to have come as evenly as Poisson's before any were seen.
_EVEN = 20.0


@dataclass(frozen=True, slots=True)
class Sample:
    """Totals at one time."""

    at: float
    arrivals: float
    prompts: float


@dataclass(frozen=True, slots=True)
class Rates:
    """Arrivals, and prompts to embed, a second. `surprising`: the fast arrival rate is above what chance makes of the stable one."""

    arrivals: float
    prompts: float
    fast_arrivals: float
    surprising: bool

    def over(self, horizon_s: float, fast_s: float) -> float:
        """Arrivals a second to expect on average: a surprise goes on for as long as it was seen, `fast_s`; the stable rate follows."""
        if not self.surprising:
            return self.arrivals
        return self.arrivals + (self.fast_arrivals - self.arrivals) * fast_s / max(horizon_s, fast_s)


@dataclass(frozen=True, slots=True)
class Clumping:
    """How unevenly arrivals come: the variance of their number in a period over its mean (the index of dispersion), 1 for Poisson.

    By the differences of successive periods (von Neumann's), which a rate that drifts moves little.

    Attributes:
        since, arrivals, before: when the present period began, the total then, and how many came in the one before it.
        squares, counted: sums over pairs of periods, newer ones with more weight, of half the squared difference and of the mean.
    """

    since: float = -math.inf
    arrivals: float = 0.0
    before: float | None = None
    squares: float = 0.0
    counted: float = 0.0

    def observe(self, sample: Sample, period_s: float) -> Clumping:
        """At `sample.at`; nothing is concluded before the period is over."""
        elapsed = sample.at - self.since
        if elapsed < period_s:
            return self
        if math.isinf(elapsed):
            return Clumping(sample.at, sample.arrivals)
        came = (sample.arrivals - self.arrivals) * period_s / elapsed
        if self.before is None:
            return Clumping(sample.at, sample.arrivals, came)
        decay = math.exp(-elapsed / _MEMORY_S)
        squares = self.squares * decay + (came - self.before) ** 2 / 2
        return Clumping(sample.at, sample.arrivals, came, squares, self.counted * decay + (came + self.before) / 2)

    @property
    def dispersion(self) -> float:
        """Never below 1."""
        return max(1.0, (_EVEN + self.squares) / (_EVEN + self.counted))


@dataclass(frozen=True, slots=True)
class Traffic:
    """What has been seen of arrivals and lengths.

    Attributes:
        lived_s, observed_s: session-seconds and seconds, those of the stable window with most weight; their ratio is what is usual.
    """

    samples: tuple[Sample, ...] = ()
    ended_total: float = 0.0
    ended: float = 0.0
    exposure_s: float = 0.0
    lived_s: float = 0.0
    observed_s: float = 0.0
    clumping: Clumping = Clumping()

    def observe(self, sample: Sample, live: int, ended_total: float, fast_s: float, stable_s: float) -> Traffic:
        """At `sample.at`, with `live` sessions; samples that `stable_s` no longer needs are forgotten."""
        clumping = self.clumping.observe(sample, fast_s)
        if not self.samples:
            # As if what is there had been there for a second: a new controller does not begin with an empty house.
            return Traffic((sample,), ended_total, lived_s=float(live), observed_s=1.0, clumping=clumping)
        elapsed = max(0.0, sample.at - self.samples[-1].at)
        decay, fading = math.exp(-elapsed / _MEMORY_S), math.exp(-elapsed / stable_s)
        kept = [s for s in self.samples if s.at > sample.at - stable_s]
        older = self.samples[: len(self.samples) - len(kept)][-1:]
        return replace(
            self,
            samples=(*older, *kept, sample),
            ended_total=ended_total,
            ended=self.ended * decay + max(0.0, ended_total - self.ended_total),
            exposure_s=self.exposure_s * decay + elapsed * live,
            lived_s=self.lived_s * fading + elapsed * live,
            observed_s=self.observed_s * fading + elapsed,
            clumping=clumping,
        )

    @property
    def usual(self) -> float:
        """Sessions live, on average over about the stable window, or as long as there was something to see."""
        return self.lived_s / self.observed_s if self.observed_s else 0.0

    def rates(self, fast_s: float, stable_s: float, ratio: float) -> Rates:
        """Over both windows; a window that is not full yet counts as no shorter than the fast one."""
        now = self.samples[-1]
        fast_from, stable_from = self._since(now.at - fast_s), self._since(now.at - stable_s)
        fast_over, stable_over = (max(fast_s, now.at - first.at) for first in (fast_from, stable_from))
        stable = (now.arrivals - stable_from.arrivals) / stable_over
        fast = (now.arrivals - fast_from.arrivals) / fast_over
        expected = stable * fast_over
        excess = now.arrivals - fast_from.arrivals - expected
        return Rates(
            arrivals=stable,
            prompts=max((now.prompts - first.prompts) / over for first, over in ((fast_from, fast_over), (stable_from, stable_over))),
            fast_arrivals=fast,
            surprising=fast > ratio * stable and excess > _SURPRISE * math.sqrt(max(1.0, self.clumping.dispersion * expected)),
        )

    def session_s(self, prior_s: float) -> float:
        """How long a session lasts: time lived by sessions for each that ended, with one of `prior_s` seen before all others."""
        return (prior_s + self.exposure_s) / (1.0 + self.ended)

    def _since(self, at: float) -> Sample:
        """The newest sample that is no newer than `at`, or the oldest."""
        return next((s for s in reversed(self.samples) if s.at <= at), self.samples[0])


def occupancy(present: float, rate: float, session_s: float, horizon_s: float, z: float, dispersion: float = 1.0) -> float:
    """Sessions to have room for until `horizon_s` from now: what is exceeded by `z` standard deviations at most, never below `present`.

    Args:
        dispersion: of arrivals; see `Clumping`.
    """
    stay = math.exp(-horizon_s / session_s)
    newcomers = rate * session_s * (1.0 - stay)
    mean = present * stay + newcomers
    return max(present, mean + z * math.sqrt(present * stay * (1.0 - stay) + dispersion * newcomers))
