"""How many sessions to have room for: arrival rates over two windows, session lengths, and Little's law run forward a little.

Sessions that come at rate λ and stay D seconds make an M/G/∞ queue. With n there now, h seconds later there are on average
n e^{-h/D} + λ D (1 - e^{-h/D}), if lengths are taken as exponential, and the number scatters by what leaves (binomial) and what comes
(Poisson). No rate is extrapolated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

# Evidence about session lengths, and about how many are usual, halves in weight in about this time.
_MEMORY_S = 600.0
# A panic needs arrivals that chance explains less often than once in a thousand.
_SURPRISE = 3.0


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


@dataclass(frozen=True, slots=True)
class Traffic:
    """What has been seen of arrivals and lengths. `usual` sessions live, over the last ten minutes."""

    samples: tuple[Sample, ...] = ()
    ended_total: float = 0.0
    ended: float = 0.0
    exposure_s: float = 0.0
    usual: float = 0.0

    def observe(self, sample: Sample, live: int, ended_total: float, window_s: float) -> Traffic:
        """At `sample.at`, with `live` sessions; samples that `window_s` no longer needs are forgotten."""
        if not self.samples:
            return Traffic((sample,), ended_total, usual=float(live))
        elapsed = max(0.0, sample.at - self.samples[-1].at)
        decay = math.exp(-elapsed / _MEMORY_S)
        kept = [s for s in self.samples if s.at > sample.at - window_s]
        older = self.samples[: len(self.samples) - len(kept)][-1:]
        return replace(
            self,
            samples=(*older, *kept, sample),
            ended_total=ended_total,
            ended=self.ended * decay + max(0.0, ended_total - self.ended_total),
            exposure_s=self.exposure_s * decay + elapsed * live,
            usual=live + (self.usual - live) * decay,
        )

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
            surprising=fast > ratio * stable and excess > _SURPRISE * math.sqrt(max(1.0, expected)),
        )

    def session_s(self, prior_s: float) -> float:
        """How long a session lasts: time lived by sessions for each that ended, with one of `prior_s` seen before all others."""
        return (prior_s + self.exposure_s) / (1.0 + self.ended)

    def _since(self, at: float) -> Sample:
        """The newest sample that is no newer than `at`, or the oldest."""
        return next((s for s in reversed(self.samples) if s.at <= at), self.samples[0])


def occupancy(present: float, rate: float, session_s: float, horizon_s: float, z: float) -> float:
    """Sessions to have room for until `horizon_s` from now: what is exceeded by `z` standard deviations at most, never below `present`."""
    stay = math.exp(-horizon_s / session_s)
    newcomers = rate * session_s * (1.0 - stay)
    mean = present * stay + newcomers
    return max(present, mean + z * math.sqrt(present * stay * (1.0 - stay) + newcomers))
