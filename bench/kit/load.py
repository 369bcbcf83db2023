"""Open-loop load: when who comes is decided before anything is sent, and goes on whether the server keeps up or not.

A schedule is a list of arrivals: pure, and the same for the same seed. `offer` plays one against a server. Every time is counted from
the moment at which an arrival was meant to be sent, so that a server, or a client, that falls behind cannot hide what its callers wait
(coordinated omission).

    poisson   a constant rate
    burst     a constant rate, and a higher one for a part of every period
    ramp      from one rate to another
    together  so many at once, spread over a moment
    replay    a recorded trace: CSV with the columns at_s, kind, seconds, seed
"""

from __future__ import annotations

import asyncio
import csv
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

Kind = Literal["live", "job", "idle"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PROMPT = "a large yellow star moving right on a navy background"

_COLUMNS = ("at_s", "kind", "seconds", "seed")
_SEED_BITS = 32


@dataclass(frozen=True, slots=True)
class Arrival:
    """One caller.

    Attributes:
        at_s: when the call is meant to be sent, in seconds from the start of the schedule.
        kind: `live` is watched while it is made, a `job` is made as fast as may be, `idle` is open and asks for nothing.
        seconds: of video; of an idle one, how long it stays.
        seed: of the video.
    """

    at_s: float
    kind: Kind
    seconds: float
    seed: int


@dataclass(frozen=True, slots=True)
class Mix:
    """Who comes: parts of each kind, and exponential lengths of `mean_s` on average, at least `least_s` and at most four times the mean."""

    live: float = 1.0
    job: float = 0.0
    idle: float = 0.0
    mean_s: float = 10.0
    least_s: float = 2.0

    def draw(self, rng: random.Random, at_s: float) -> Arrival:
        length = self.least_s
        if self.mean_s > self.least_s:
            length += rng.expovariate(1.0 / (self.mean_s - self.least_s))
        kind = rng.choices(KINDS, (self.live, self.job, self.idle))[0]
        return Arrival(at_s, kind, min(length, 4 * self.mean_s), rng.getrandbits(_SEED_BITS))


def poisson(seed: int, seconds: float, per_s: float, mix: Mix) -> list[Arrival]:
    return _thinned(seed, seconds, lambda _: per_s, per_s, mix)


def burst(seed: int, seconds: float, per_s: float, burst_per_s: float, period_s: float, burst_s: float, mix: Mix) -> list[Arrival]:
    """`per_s`, but `burst_per_s` for the last `burst_s` of every `period_s`."""
    quiet_s = period_s - burst_s
    return _thinned(seed, seconds, lambda t: burst_per_s if t % period_s >= quiet_s else per_s, max(per_s, burst_per_s), mix)


def ramp(seed: int, seconds: float, from_per_s: float, to_per_s: float, mix: Mix) -> list[Arrival]:
    return _thinned(seed, seconds, lambda t: from_per_s + (to_per_s - from_per_s) * t / seconds, max(from_per_s, to_per_s), mix)


def together(count: int, seconds: float, kind: Kind = "live", spread_s: float = 0.0) -> list[Arrival]:
    """`count` of equal length, evenly spread over `spread_s`; seeds count from 0."""
    return [Arrival(n * spread_s / count, kind, seconds, n) for n in range(count)]


def _thinned(seed: int, seconds: float, per_s: Callable[[float], float], peak_per_s: float, mix: Mix) -> list[Arrival]:
    """A Poisson process of varying rate: arrivals at the peak rate, each kept with the chance `rate / peak` (Lewis and Shedler, 1979)."""
    rng = random.Random(seed)
    arrivals: list[Arrival] = []
    at_s = rng.expovariate(peak_per_s) if peak_per_s > 0 else math.inf
    while at_s < seconds:
        if rng.random() * peak_per_s < per_s(at_s):
            arrivals.append(mix.draw(rng, at_s))
        at_s += rng.expovariate(peak_per_s)
    return arrivals


def replay(path: Path) -> list[Arrival]:
    """The trace in a file, in order of time.

    Raises:
        ValueError: a row is wrong; names the line, the column, what it must be and what it is.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if tuple(rows.fieldnames or ()) != _COLUMNS:
            raise ValueError(f"{path}:1: columns must be {','.join(_COLUMNS)}; got {','.join(rows.fieldnames or ())[:64]!r}")
        arrivals = [_row(row, f"{path}:{number}") for number, row in enumerate(rows, 2)]
    return sorted(arrivals, key=lambda arrival: arrival.at_s)


def record(arrivals: Sequence[Arrival], path: Path) -> None:
    """Write a trace that `replay` reads."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(_COLUMNS)
        rows.writerows((f"{a.at_s:.6f}", a.kind, f"{a.seconds:.3f}", a.seed) for a in arrivals)


def _row(row: dict[str, str], where: str) -> Arrival:
    kind = next((kind for kind in KINDS if kind == row["kind"]), None)
    if kind is None:
        raise ValueError(f"{where}: kind must be one of {', '.join(KINDS)}; got {row['kind']!r}")
    seed = row["seed"] or ""
    if not seed.isdecimal():
        raise ValueError(f"{where}: seed must be a whole number, 0 or more; got {seed!r}")
    return Arrival(_number(row, "at_s", where), kind, _number(row, "seconds", where), int(seed))


def _number(row: dict[str, str], column: str, where: str) -> float:
    try:
        value = float(row[column])
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"{where}: {column} must be a number, 0 or more; got {row[column]!r}")
    return value


# -- what callers meet ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk's arrival: seconds after the intended send time, its frames, and what its stages took on their devices."""

    at_s: float
    first_frame: int
    frames: int
    compute_s: float = 0.0
    degraded: bool = False


@dataclass(slots=True)
class Heard:
    """What one caller met. Times are in seconds from the intended send time `intended`, a reading of `clock`."""

    arrival: Arrival
    intended: float
    clock: Callable[[], float]
    result: str = "cut off"  # by the end of the run; else completed, refused, hung or an error
    behind_s: float = 0.0  # sent so much later than intended
    waited: bool = False
    refused_after_s: float = 0.0
    retry_after_s: float | None = None
    changes: int = 0
    chunks: list[Chunk] = field(default_factory=list)

    def now(self) -> float:
        return self.clock() - self.intended

    def add(self, first_frame: int, frames: int, compute_s: float, *, degraded: bool = False) -> None:
        """A chunk came."""
        self.chunks.append(Chunk(self.now(), first_frame, frames, compute_s, degraded))

    @property
    def ttff_s(self) -> float | None:
        return self.chunks[0].at_s if self.chunks else None


Play = Callable[[Heard], Awaitable[None]]


async def offer(arrivals: Sequence[Arrival], play: Play, grace_s: float, clock: Callable[[], float] = time.monotonic) -> list[Heard]:
    """Send every arrival at its time and let `play` follow it; what still runs `grace_s` after the last one is cut off.

    `play` fills what it is given and sets `result`; what it raises becomes the result.
    """
    began = clock()
    heard = [Heard(arrival, began + arrival.at_s, clock) for arrival in arrivals]

    async def one(caller: Heard) -> None:
        caller.behind_s = max(0.0, caller.now())
        try:
            await play(caller)
        except Exception as error:  # noqa: BLE001 - whatever a server does is a result
            caller.result = f"{type(error).__name__}: {error}"

    tasks: list[asyncio.Task[None]] = []
    for caller in heard:
        await asyncio.sleep(max(0.0, caller.intended - clock()))
        tasks.append(asyncio.create_task(one(caller)))
    if tasks:
        _, running = await asyncio.wait(tasks, timeout=grace_s)
        for task in running:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return heard
