"""Who comes, and for how long: arrivals, lengths, changes of mind. Drawn before a run, so that every policy meets the same visitors.

Each stream of random numbers (arrivals, lengths, behaviour, failures) has a generator of its own: another draw in one does not move
the others.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autoscaling.simulator.arrays import Floats

Rng = np.random.Generator
STREAMS = ("arrivals", "lengths", "behaviour", "failures", "starts", "routing")
_TYPING_S = 3.0
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0  # its multiples fill the unit interval evenly (Weyl)


def streams(seed: int) -> dict[str, Rng]:
    """Independent generators by name."""
    return {name: np.random.default_rng(np.random.SeedSequence([seed, k])) for k, name in enumerate(STREAMS)}


@dataclass(frozen=True, slots=True)
class Arrivals:
    """A point process of `rate` arrivals a second on average, unless `rate_factor` says otherwise.

    Attributes:
        cv: coefficient of variation of the time between two, at constant rate: Gamma renewals; 1 is Poisson.
        swing, period_s: amplitude of a sine, as a share of the rate; 0 for none.
        flash, flash_at_s, flash_rise_s, flash_hold_s: the rate goes up to `flash` times, linearly, stays, and comes down.
        mmpp, mmpp_dwell_s: factors of a Markov-modulated rate, and how long one lasts on average; empty for none.
    """

    rate: float
    cv: float = 1.0
    swing: float = 0.0
    period_s: float = 1200.0
    flash: float = 1.0
    flash_at_s: float = 900.0
    flash_rise_s: float = 30.0
    flash_hold_s: float = 120.0
    mmpp: tuple[float, ...] = ()
    mmpp_dwell_s: float = 120.0

    def rate_factor(self, t: Floats) -> Floats:
        """Of the deterministic part, at times `t`."""
        wave = 1 - self.swing * np.cos(2 * math.pi * t / self.period_s)
        since = t - self.flash_at_s
        edge = np.minimum(since / self.flash_rise_s, (2 * self.flash_rise_s + self.flash_hold_s - since) / self.flash_rise_s)
        return np.asarray(wave * (1 + (self.flash - 1) * np.clip(edge, 0.0, 1.0)))

    def draw(self, rng: Rng, seconds: float) -> Floats:
        """Times from 0 to `seconds`, ascending: renewals in operational time, moved to real time by the integral of the rate."""
        grid = np.linspace(0.0, seconds, max(2, int(seconds)) + 1)
        factor = self.rate_factor(grid) * (self._modulation(rng, grid) if self.mmpp else 1.0)
        done = np.concatenate([[0.0], np.cumsum((factor[1:] + factor[:-1]) / 2 * np.diff(grid))]) * self.rate
        shape = 1 / self.cv**2
        gaps: list[Floats] = []
        total = 0.0
        while total < done[-1]:
            block = rng.gamma(shape, 1 / shape, max(16, int(done[-1] * 1.1)))
            gaps.append(block)
            total += float(block.sum())
        at = np.cumsum(np.concatenate(gaps)) if gaps else np.empty(0)
        return np.asarray(np.interp(at[at < done[-1]], done, grid))

    def _modulation(self, rng: Rng, grid: Floats) -> Floats:
        levels = np.array(self.mmpp) / np.mean(self.mmpp)
        ends = np.cumsum(rng.exponential(self.mmpp_dwell_s, int(grid[-1] / self.mmpp_dwell_s * 3) + 20))
        states = rng.integers(0, levels.size, ends.size)
        return np.asarray(levels[states[np.minimum(np.searchsorted(ends, grid, "right"), ends.size - 1)]])


@dataclass(frozen=True, slots=True)
class Lengths:
    """Seconds that visitors stay, `mean_s` on average before the bounds cut it: exponential, constant, lognormal or pareto.

    Attributes:
        shape: sigma of a lognormal, exponent of a Pareto distribution.
        least_s, most_s: bounds.
    """

    mean_s: float
    law: str = "lognormal"
    shape: float = 1.0
    least_s: float = 4.0
    most_s: float = 3600.0

    def draw(self, rng: Rng, n: int) -> Floats:
        m, a = self.mean_s, self.shape
        laws: dict[str, Callable[[], Floats]] = {
            "exponential": lambda: rng.exponential(m, n),
            "constant": lambda: np.full(n, m),
            "lognormal": lambda: rng.lognormal(math.log(m) - a * a / 2, a, n),
            "pareto": lambda: m * (a - 1) / a * (1 + rng.pareto(a, n)),
        }
        if self.law not in laws:
            raise ValueError(f"law must be one of {', '.join(laws)}; got {self.law}")
        return np.clip(laws[self.law](), self.least_s, self.most_s)


@dataclass(frozen=True, slots=True)
class Faults:
    """What breaks, in mean seconds between two events over the whole cluster; 0 for never.

    Attributes:
        crash_s: a denoise replica dies.
        spot_s: a node is taken back, `notice_s` after it was announced.
    """

    crash_s: float = 0.0
    spot_s: float = 0.0
    notice_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Workload:
    """Visitors and faults.

    Attributes:
        arrivals: None for a trace, which is then `trace`.
        switch_s: mean time between two prompt changes of a session; 0 for none.
        patience_s: a visitor in line goes away after so long.
        retries, retry_share: who is refused comes back after the time that was advised, so often, with that probability.
        fixed_share: of the visitors, how many may not be lowered, as those who have a source restyled.
        trace: (arrival, length) pairs in seconds.
    """

    name: str
    arrivals: Arrivals | None
    lengths: Lengths
    faults: Faults = Faults()
    switch_s: float = 60.0
    patience_s: float = 10.0
    retries: int = 2
    retry_share: float = 0.7
    fixed_share: float = 0.0
    trace: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Visitors:
    """By session: when, for how many seconds; `luck` is a uniform number that decides on retries and prompt changes.

    Attributes:
        fixed: who may not be lowered.
    """

    at_s: Floats
    length_s: Floats
    switch_s: float
    luck: Floats
    fixed: frozenset[int] = frozenset()

    def next_switch_s(self, session: int, switches: int) -> float:
        """Until its next prompt change after `switches` of them: exponential, at least as long as it takes to type one."""
        u = (self.luck.item(session) + (switches + 1) * _GOLDEN) % 1.0
        return max(_TYPING_S, -self.switch_s * math.log1p(-u))


def draw(workload: Workload, seed: int, seconds: float) -> Visitors:
    """Everybody of one run. The same seed gives the same visitors, whatever serves them."""
    rng = streams(seed)
    if workload.arrivals is None:
        kept = [pair for pair in workload.trace if pair[0] < seconds]
        at, length = np.array([p[0] for p in kept]), np.array([p[1] for p in kept])
    else:
        at = workload.arrivals.draw(rng["arrivals"], seconds)
        length = workload.lengths.draw(rng["lengths"], at.size)
    luck, lot = rng["behaviour"].random((2, at.size))
    return Visitors(at, length, workload.switch_s, luck, frozenset(np.flatnonzero(lot < workload.fixed_share).tolist()))


def fault_times(mean_s: float, rng: Rng, seconds: float) -> Iterator[tuple[float, float]]:
    """Moments of faults, each with a uniform number that says whom it hits."""
    now = 0.0
    while mean_s > 0 and (now := now + rng.exponential(mean_s)) < seconds:
        yield now, rng.random()


def from_csv(path: Path) -> Workload:
    """A trace of lines `arrival_s,length_s`, ascending, with that header.

    Raises:
        ValueError: naming the line and what is wrong with it.
    """
    trace: list[tuple[float, float]] = []
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if not {"arrival_s", "length_s"} <= set(reader.fieldnames or ()):
            raise ValueError(f"{path} must have the columns arrival_s and length_s; got {', '.join(reader.fieldnames or ()) or 'none'}")
        for row in reader:
            try:
                at, length = float(row["arrival_s"]), float(row["length_s"])
            except (TypeError, ValueError):
                raise ValueError(f"{path}, line {reader.line_num}: two numbers expected; got {row}") from None
            if not (0 <= at < math.inf and 0 < length < math.inf) or (trace and at < trace[-1][0]):
                raise ValueError(
                    f"{path}, line {reader.line_num}: arrivals must ascend from 0 and lengths be above 0; got {at:g}, {length:g}"
                )
            trace.append((at, length))
    return Workload(path.stem, None, Lengths(1.0), trace=tuple(trace))


def workloads(sessions: float, mean_s: float = 180.0) -> dict[str, Workload]:
    """Named workloads with `sessions` visitors at once on average, apart from flash crowds. All are synthetic.

    The second six are of the same kinds as the first, with other numbers: what is tuned on some can be judged on others.
    """
    rate = sessions / mean_s
    lengths = Lengths(mean_s, most_s=20 * mean_s)
    pareto = replace(lengths, law="pareto", shape=1.5)
    named: dict[str, tuple[Arrivals, Lengths, Faults]] = {
        "poisson": (Arrivals(rate), lengths, Faults()),
        "gamma": (Arrivals(rate, cv=4.0, swing=0.4, period_s=1500.0), lengths, Faults()),
        "mmpp": (Arrivals(rate, mmpp=(0.4, 0.8, 1.8)), lengths, Faults()),
        "flash": (Arrivals(rate * 0.7, flash=6.0, flash_hold_s=60.0), lengths, Faults()),
        "pareto": (Arrivals(rate, swing=0.5, period_s=900.0), pareto, Faults()),
        "spot": (Arrivals(rate, swing=0.5), lengths, Faults(crash_s=300.0, spot_s=400.0)),
        "diurnal": (Arrivals(rate, swing=0.7), lengths, Faults()),
        "step": (Arrivals(rate * 0.6, flash=3.0, flash_rise_s=1.0, flash_hold_s=1e9), lengths, Faults()),
        "clumps": (Arrivals(rate, cv=3.0), lengths, Faults()),
        "tides": (Arrivals(rate, mmpp=(0.5, 1.5), mmpp_dwell_s=200.0), pareto, Faults()),
        "rush": (Arrivals(rate * 0.7, flash=5.0, flash_at_s=1000.0, flash_rise_s=60.0, flash_hold_s=60.0), lengths, Faults()),
        "outage": (Arrivals(rate), lengths, Faults(crash_s=200.0, spot_s=900.0)),
    }
    return {name: Workload(name, arrivals, law, faults) for name, (arrivals, law, faults) in named.items()}
