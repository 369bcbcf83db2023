"""The simulator against what queueing theory knows exactly, within 99 % confidence intervals of batch means, and against itself."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from autoscaling.admission import AdmissionConfig
from autoscaling.brownout import BrownOutConfig
from autoscaling.profile import StepProfile
from autoscaling.scaling import Stage
from autoscaling.simulator.cluster import Hardware
from autoscaling.simulator.kernel import Floats
from autoscaling.simulator.plane import StageTimes
from autoscaling.simulator.policies import Static
from autoscaling.simulator.simulation import Setting, Simulation
from autoscaling.simulator.workload import Arrivals, Lengths, Workload

# Work that takes next to nothing, so that a session's length is all that counts.
TIMES = StageTimes(
    profile=StepProfile((64,), (1e-5,), (1e-5,)), encode_s=1e-5, decode_s=1e-5, hop_s=0.0, open_s=0.0, reopen_s=0.0, chunk_s=2.0, steps=1,
    noise=0.0, slots=10, lead_s=0.01,
)  # fmt: skip
BATCHES = 20


def simulated(
    times: StageTimes, arrivals: Arrivals, lengths: Lengths, seconds: float, max_waiting: int = 10**6, replicas: int = 1
) -> Simulation:
    """After its run: nobody is impatient, nothing scales, breaks or is lowered."""
    counts = {Stage.TEXT_ENCODER: 1, Stage.DENOISER: replicas, Stage.DECODER: 1}
    admission = AdmissionConfig(BrownOutConfig(()), max_waiting=max_waiting, max_wait_s=math.inf, default_steps=1)
    x = Setting(
        times=times, hardware=Hardware(node_units=1000), admission=admission, seconds=seconds, warm_s=0.0, prewarmed=counts, tick_s=1.0,
        sample_s=10.0, observe_s=10.0,
    )  # fmt: skip
    workload = Workload("law", arrivals, lengths, switch_s=0.0, patience_s=math.inf, retries=0)
    simulation = Simulation(x, workload, Static(counts, interval_s=1e6), seed=5)
    simulation.run()
    return simulation


def within(values: Floats, expected: float) -> bool:
    """Whether `expected` is in the 99 % interval of the mean of `values`, which depend on each other, by batch means."""
    batches = np.array([b.mean() for b in np.array_split(values[values.size // 20 :], BATCHES)])
    half = 2.86 * batches.std(ddof=1) / math.sqrt(BATCHES)  # Student's t, 19 degrees of freedom
    assert half < 0.5 * expected, "an interval so wide proves nothing"
    return bool(abs(batches.mean() - expected) <= half)


def waits(simulation: Simulation) -> Floats:
    """Of those that got their first frame; the fastest had none."""
    ttff = simulation.ttff_s()
    ttff = ttff[np.isfinite(ttff)]
    return np.asarray(ttff - ttff.min())


def hold_s(lengths: Floats) -> float:
    """How long they hold a slot: the last chunk leaves when it is due."""
    return float(np.mean((np.ceil(lengths / TIMES.chunk_s) - 1) * TIMES.chunk_s))


def erlang_b(servers: int, offered: float) -> float:
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = offered * blocked / (n + offered * blocked)
    return blocked


EXPONENTIAL = Lengths(60.0, "exponential", least_s=0.01)


def test_m_m_c_and_little() -> None:
    simulation = simulated(TIMES, Arrivals(0.125), EXPONENTIAL, 200_000.0)
    visitors, servers = simulation.visitors, 10
    rate = visitors.at_s.size / 200_000.0
    offered = rate * hold_s(visitors.length_s)
    blocked = erlang_b(servers, offered)
    delayed = blocked / (1 - offered / servers * (1 - blocked))
    assert within(waits(simulation), delayed * hold_s(visitors.length_s) / (servers - offered))
    in_line = np.array(simulation.timeline.values["waiting"])
    assert in_line.mean() == pytest.approx(rate * waits(simulation).mean(), rel=0.05)


def test_m_d_1() -> None:
    """The text encoder, with one replica and one prompt a session."""
    simulation = simulated(replace(TIMES, encode_s=0.5, slots=200), Arrivals(1.2), replace(EXPONENTIAL, mean_s=10.0), 10_000.0)
    load = 1.2 * 0.5
    assert within(waits(simulation), load * 0.5 / (2 * (1 - load)))


@pytest.mark.parametrize("law", ["exponential", "constant", "lognormal", "pareto"])
def test_erlang_b_does_not_ask_how_lengths_are_distributed(law: str) -> None:
    lengths = replace(EXPONENTIAL, law=law, shape=2.5 if law == "pareto" else 1.0, most_s=1200.0)
    simulation = simulated(TIMES, Arrivals(0.13), lengths, 40_000.0, max_waiting=0)
    refused = ~np.isfinite(simulation.ttff_s())
    assert within(refused.astype(float), erlang_b(10, refused.size / 40_000.0 * hold_s(simulation.visitors.length_s)))


def test_m_g_infinity() -> None:
    """With room for everybody: Poisson, with the mean that Little's law gives, whatever the tail."""
    lengths = replace(EXPONENTIAL, law="lognormal", shape=1.0, most_s=1200.0)
    simulation = simulated(replace(TIMES, slots=200), Arrivals(0.5), lengths, 40_000.0)
    live = np.array(simulation.timeline.values["live"][50:])
    mean = hold_s(simulation.visitors.length_s)
    assert within(live, 0.5 * mean)
    assert live.var() == pytest.approx(0.5 * mean, rel=0.25)
