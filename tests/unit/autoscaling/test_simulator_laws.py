"""The simulator against what queueing theory knows exactly, within 99 % confidence intervals of batch means, and against itself.

The intervals are narrow by a control variate: the same visitors go through a few lines of recursion, whose mean theory knows as well, and
what the simulator differs from them by is all that scatters. Each test shows besides that a law a few percent off is outside its interval.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from autoscaling.admission.brownout import BrownOutConfig
from autoscaling.admission.decide import AdmissionConfig
from autoscaling.capacity.profile import CapacityProfile
from autoscaling.simulator.arrays import Floats
from autoscaling.simulator.cluster import Hardware
from autoscaling.simulator.plane import StageTimes
from autoscaling.simulator.policies import Static
from autoscaling.simulator.simulation import Setting, Simulation
from autoscaling.simulator.workload import Arrivals, Lengths, Workload
from model_core.stage import Stage

# Work that takes next to nothing, so that a session's length is all that counts.
SERVERS = 40
TIMES = StageTimes(
    profile=CapacityProfile((64,), (1e-5,), (1e-5,)),
    encode_s=1e-5, decode_s=1e-5, hop_s=0.0, open_s=0.0, reopen_s=0.0, chunk_s=2.0, steps=1,
    noise=0.0, slots=SERVERS, lead_s=0.01,
)  # fmt: skip
TICK_S = 0.25
BATCHES = 20
EXPONENTIAL = Lengths(60.0, "exponential", least_s=0.01)


def simulated(
    times: StageTimes, arrivals: Arrivals, lengths: Lengths, seconds: float, max_waiting: int = 10**6, tick_s: float = TICK_S
) -> Simulation:
    """After its run: one replica of each stage, nobody is impatient, nothing scales, breaks or is lowered."""
    counts = dict.fromkeys(Stage, 1)
    admission = AdmissionConfig(BrownOutConfig(()), max_waiting=max_waiting, max_wait_s=math.inf, default_steps=1)
    x = Setting(
        times=times, hardware=Hardware(node_units=1000), admission=admission, seconds=seconds, warm_s=0.0, prewarmed=counts, tick_s=tick_s,
        sample_s=10.0,
    )  # fmt: skip
    workload = Workload("law", arrivals, lengths, switch_s=0.0, patience_s=math.inf, retries=0)
    simulation = Simulation(x, workload, Static(counts, interval_s=1e6), seed=5)
    simulation.run()
    return simulation


@dataclass(frozen=True)
class Interval:
    """99 %, of a mean; `slack` is what the simulator's ticks may add."""

    middle: float
    half: float
    slack: float = 0.0

    def has(self, value: float) -> bool:
        return abs(self.middle - value) <= self.half + self.slack


def controlled(values: Floats, path: Floats, exact: float, slack: float = 0.0) -> Interval:
    """Of the mean of `values`, whose control variate `path` has the mean `exact`; both begin empty, so that the first tenth is left out."""
    differences = (values - path)[values.size // 10 :]
    batches = np.array([b.mean() for b in np.array_split(differences, BATCHES)])
    half = 2.86 * batches.std(ddof=1) / math.sqrt(BATCHES)  # Student's t, 19 degrees of freedom
    assert not exact or half < 0.05 * exact, (
        "a simulator that does what the recursion does scatters less; so wide an interval proves nothing"
    )
    return Interval(exact + float(batches.mean()), half, slack)


def plain(values: Floats) -> Interval:
    """Without a control variate."""
    return controlled(values, np.zeros_like(values), 0.0)


def waits(simulation: Simulation) -> Floats:
    """Of those that got their first frame, in the order in which they came; work itself takes next to nothing."""
    ttff = simulation.ttff_s()
    return np.asarray(ttff[np.isfinite(ttff)])


def holds_s(simulation: Simulation) -> Floats:
    """How long each holds a slot: the last chunk leaves when it is due."""
    chunk_s = TIMES.chunk_s
    return np.asarray((np.maximum(1, np.ceil(simulation.visitors.length_s / chunk_s - 1e-9)) - 1) * chunk_s)


def queued(at: Floats, hold: Floats, servers: int) -> Floats:
    """Waits, first come first served (Kiefer and Wolfowitz)."""
    free, waited = [0.0] * servers, np.empty(at.size)
    for n, (t, s) in enumerate(zip(at.tolist(), hold.tolist(), strict=True)):
        start = max(t, free[0])
        heapq.heapreplace(free, start + s)
        waited[n] = start - t
    return waited


def lost(at: Floats, hold: Floats, servers: int) -> Floats:
    """1 for who finds every server taken."""
    ends: list[float] = []
    refused = np.zeros(at.size)
    for n, (t, s) in enumerate(zip(at.tolist(), hold.tolist(), strict=True)):
        while ends and ends[0] <= t:
            heapq.heappop(ends)
        if len(ends) < servers:
            heapq.heappush(ends, t + s)
        else:
            refused[n] = 1.0
    return refused


def erlang_b(servers: int, offered: float) -> float:
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = offered * blocked / (n + offered * blocked)
    return blocked


def m_m_c_wait(servers: int, offered: float, hold_s: float) -> float:
    blocked = erlang_b(servers, offered)
    return blocked / (1 - offered / servers * (1 - blocked)) * hold_s / (servers - offered)


# A length in whole chunks, of which the last one takes no time, is geometric: its mean, and the law below, follow from that of a chunk.
GEOMETRIC_S = TIMES.chunk_s / math.expm1(TIMES.chunk_s / EXPONENTIAL.mean_s)


def test_the_recursions_obey_the_laws() -> None:
    """Far more customers than the simulator could serve: the controls have the means that they are taken to have."""
    rng, n, servers, offered = np.random.default_rng(1), 800_000, 10, 8.0
    at, hold = np.cumsum(rng.exponential(1 / offered, n)), rng.exponential(1.0, n)
    mean_wait, blocked = plain(queued(at, hold, servers)), plain(lost(at, hold, servers))
    assert mean_wait.has(m_m_c_wait(servers, offered, 1.0))
    assert not mean_wait.has(1.2 * m_m_c_wait(servers, offered, 1.0))
    assert blocked.has(erlang_b(servers, offered))
    assert not blocked.has(1.03 * erlang_b(servers, offered))


def test_m_m_c_and_little() -> None:
    rate = 0.9 * SERVERS / GEOMETRIC_S
    simulation = simulated(TIMES, Arrivals(rate), EXPONENTIAL, 20_000.0)
    waited = waits(simulation)
    path = queued(simulation.visitors.at_s, holds_s(simulation), SERVERS)[: waited.size]
    exact = m_m_c_wait(SERVERS, rate * GEOMETRIC_S, GEOMETRIC_S)
    # A slot is known to be free up to a tick late, which makes every session as much longer.
    late = m_m_c_wait(SERVERS, rate * (GEOMETRIC_S + TICK_S), GEOMETRIC_S + TICK_S) - exact
    interval = controlled(waited, path, exact, late + TICK_S)
    assert interval.has(exact)
    assert not interval.has(m_m_c_wait(SERVERS, 0.98 * rate * GEOMETRIC_S, GEOMETRIC_S))
    assert not interval.has(m_m_c_wait(SERVERS + 1, rate * GEOMETRIC_S, GEOMETRIC_S))
    in_line = np.array(simulation.timeline.values["waiting"])
    assert in_line.mean() == pytest.approx(rate * waited.mean(), rel=0.05)


def test_m_d_1() -> None:
    """The text encoder, with one replica and one prompt a session."""
    rate, encode_s = 1.6, 0.5
    simulation = simulated(replace(TIMES, encode_s=encode_s, slots=400), Arrivals(rate), replace(EXPONENTIAL, mean_s=10.0), 12_000.0)
    waited = waits(simulation) - encode_s
    path = queued(simulation.visitors.at_s, np.full(simulation.visitors.at_s.size, encode_s), 1)[: waited.size]
    load = rate * encode_s
    exact = load * encode_s / (2 * (1 - load))
    interval = controlled(waited, path, exact, 0.001)
    assert interval.has(exact)
    assert not interval.has(1.02 * exact)
    assert not interval.has(0.98 * exact)


@pytest.mark.parametrize("law", ["exponential", "constant", "lognormal", "pareto"])
def test_erlang_b_does_not_ask_how_lengths_are_distributed(law: str) -> None:
    lengths = replace(EXPONENTIAL, law=law, shape=2.5 if law == "pareto" else 1.0, most_s=1200.0)
    simulation = simulated(TIMES, Arrivals(0.65), lengths, 8_000.0, max_waiting=0)
    refused = (~np.isfinite(simulation.ttff_s())).astype(float)
    hold, seconds = holds_s(simulation), 8_000.0
    offered = refused.size / seconds * float(hold.mean())
    longer = refused.size / seconds * (float(hold.mean()) + TICK_S)
    exact = erlang_b(SERVERS, offered)
    interval = controlled(refused, lost(simulation.visitors.at_s, hold, SERVERS), exact, erlang_b(SERVERS, longer) - exact)
    assert interval.has(exact)
    assert not interval.has(erlang_b(SERVERS, 1.03 * offered))
    assert not interval.has(erlang_b(SERVERS - 1, offered))


def test_m_g_infinity() -> None:
    """With room for everybody: Poisson, with the mean that Little's law gives, whatever the tail."""
    rate, lengths = 0.5, replace(EXPONENTIAL, law="lognormal", shape=1.0, most_s=1200.0)
    simulation = simulated(replace(TIMES, slots=200), Arrivals(rate), lengths, 20_000.0, tick_s=1.0)
    at, hold = simulation.visitors.at_s, holds_s(simulation)
    times = np.array(simulation.timeline.at_s)
    live = np.array(simulation.timeline.values["live"], dtype=float)
    path = np.searchsorted(at, times) - np.searchsorted(np.sort(at + hold), times)
    exact = rate * float(hold.mean())
    interval = controlled(live, path.astype(float), exact, rate * 1.0)  # a tick late
    assert interval.has(exact)
    assert not interval.has(1.03 * exact)
    assert live[200:].var() == pytest.approx(exact, rel=0.2)
