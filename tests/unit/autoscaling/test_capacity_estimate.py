"""From the reports of replicas to a capacity."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from autoscaling.admission.decide import AdmissionConfig, Ask
from autoscaling.capacity.estimate import CapacityEstimator, DecodeReading, DenoiseReading, TextReading
from autoscaling.capacity.profile import CapacityProfile
from autoscaling.reports import ReplicaReport, ReportError
from model_core.errors import StageUnavailable
from model_core.statistics import ForwardProfile
from service.admission.capacity import CapacityMonitor
from service.admission.desk import AdmissionDesk
from tests.fakes import ManualClock, eventually
from tests.reports import DECODER, DENOISER, ENCODER

PROFILE = CapacityProfile((1, 2, 4), (0.01, 0.01, 0.01), (0.01, 0.01, 0.01))  # a chunk of 4 steps for up to four: 0.05 s


def report(busy_s: float = 0.0, expected_s: float = 0.0, sessions: int = 0, replica: float = 1.0) -> DenoiseReading:
    return DenoiseReading(replica, slots=16, sessions=sessions, profile=PROFILE, busy_s=busy_s, expected_s=expected_s)


def estimator() -> CapacityEstimator:
    return CapacityEstimator(budget_s=0.101, ceiling=64, slots=8)


def test_until_a_replica_reports_its_configured_slots_count() -> None:
    e = estimator()
    assert e.capacity.sessions(4) == 8
    assert e.observe([], [], mine=0).sessions(4) == 8
    assert e.observe([report()], [], mine=0).sessions(4) == 8  # two batches of four in 0.1 s
    assert e.observe([report(), report(replica=2.0)], [], mine=0).sessions(4) == 16


def test_slots_of_decoders_bound_the_sessions_that_run_whatever_their_speed() -> None:
    """Beyond them, a session would run and show nothing."""
    e = CapacityEstimator(budget_s=0.101, ceiling=64, slots=8, decode_slots=2)
    assert (e.capacity.slots, e.capacity.sessions(4)) == (2, 2)
    one, two = DecodeReading(5.0, 100, 0.01), DecodeReading(6.0, 100, 0.01)
    assert e.observe([report()], [one], mine=0).slots == 2
    assert e.observe([report()], [one, two], mine=0).slots == 4
    assert e.observe([report()], [], mine=0).slots == 2


def test_steps_that_take_longer_than_measured_lower_the_capacity_and_recover() -> None:
    e = estimator()
    busy = expected = 0.0
    for _ in range(20):
        busy, expected = busy + 1.6, expected + 0.8
        capacity = e.observe([report(busy, expected)], [], mine=0)
    assert capacity.replicas[0].correction == pytest.approx(2, rel=0.01)
    assert capacity.sessions(4) == 4
    for _ in range(20):
        busy, expected = busy + 0.8, expected + 0.8
        capacity = e.observe([report(busy, expected)], [], mine=0)
    assert capacity.sessions(4) == 8
    assert e.observe([report(0.0, 0.0, replica=9.0)], [], mine=0).replicas[0].correction == 1.0


def test_decoding_can_be_what_limits() -> None:
    e = estimator()
    capacity = e.observe([report()], [DecodeReading(5.0, chunks=10, busy_s=0.25)], mine=0)
    assert capacity.sessions(4) == 4
    assert e.observe([report()], [DecodeReading(5.0, 10, 0.25), DecodeReading(6.0)], mine=0).sessions(4) == 8
    assert e.observe([report()], [], mine=0).sessions(4) == 8


def test_sessions_of_others_are_those_seen_three_times() -> None:
    e = estimator()
    assert [e.observe([report(sessions=n)], [], mine=2).others for n in (5, 5, 4, 2, 5)] == [0, 0, 2, 0, 0]


def test_a_reading_is_what_capacity_needs_of_a_report() -> None:
    profile = ForwardProfile((1, 2), (0.01, 0.02), (0.005, 0.006))
    denoiser = replace(DENOISER, sessions=3, waiting=1, free_slots=13, busy_s=1.5, expected_s=1.25, profile=profile)
    report = ReplicaReport(7.0, replace(ENCODER, misses=6, service_s=0.75), denoiser, replace(DECODER, chunks=4, busy_s=0.5))
    assert DenoiseReading.of(report) == DenoiseReading(7.0, 16, 4, CapacityProfile((1, 2), (0.01, 0.02), (0.005, 0.006)), 1.5, 1.25)
    assert DecodeReading.of(report) == DecodeReading(7.0, 4, 0.5)
    assert TextReading.of(report) == TextReading(7.0, 6, 0.75)
    assert DenoiseReading.of(ReplicaReport(7.0, denoiser=replace(DENOISER, free_slots=2))).profile is None


@pytest.mark.parametrize(("reading", "stage"), [(DenoiseReading, "denoiser"), (DecodeReading, "decoder"), (TextReading, "text encoder")])
def test_a_stage_that_its_replica_does_not_report_is_an_error_and_no_zero(
    reading: type[DenoiseReading | DecodeReading | TextReading], stage: str
) -> None:
    with pytest.raises(ReportError, match=f"must report its {stage}"):
        reading.of(ReplicaReport(7.0))


async def test_the_monitor_survives_stages_that_are_away() -> None:
    answers: list[Sequence[ReplicaReport] | Exception] = [
        StageUnavailable("away"),
        [ReplicaReport(1.0)],  # whose numbers nobody here can read
        [ReplicaReport(1.0, denoiser=replace(DENOISER, free_slots=3))],
    ]

    async def denoisers() -> Sequence[ReplicaReport]:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def decoders() -> Sequence[ReplicaReport]:
        return []

    e = estimator()
    desk = AdmissionDesk(AdmissionConfig(), e.capacity, ManualClock(), lambda: 0.0)
    task = asyncio.create_task(CapacityMonitor(denoisers, decoders, e, desk, interval_s=0.0).run())
    await eventually(lambda: desk.statistics().capacity == 3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_sessions_of_others_are_not_hidden_behind_own_ones_that_pause() -> None:
    """Three run on the replica: one of ours, and two of another front door's. Our second one pauses, and is on no replica."""

    async def denoisers() -> Sequence[ReplicaReport]:
        return [ReplicaReport(1.0, denoiser=replace(DENOISER, sessions=3, free_slots=5))]

    async def decoders() -> Sequence[ReplicaReport]:
        return []

    e = estimator()
    desk = AdmissionDesk(AdmissionConfig(), e.capacity, ManualClock(), lambda: 0.0)
    monitor = CapacityMonitor(denoisers, decoders, e, desk)
    ask = Ask("default", 4, paced=True)
    with desk.enter(ask), desk.enter(ask) as paused:
        desk.pause(paused)
        for _ in range(3):
            await monitor.observe()
        assert e.capacity.others == 2
