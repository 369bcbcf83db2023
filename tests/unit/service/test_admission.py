"""The desk: tickets, lines and their release. What it decides is tested with the policy."""

import asyncio
from contextlib import ExitStack, aclosing
from dataclasses import replace

import pytest

from autoscaling.admission.brownout import BrownOutConfig
from autoscaling.admission.decide import AdmissionConfig, Ask, Tenant
from autoscaling.capacity.profile import Capacity, CapacityProfile, DenoiseReplica
from autoscaling.reports import ControlStatistics
from model_core.errors import CapacityExceeded
from service.admission.desk import AdmissionDesk
from tests.fakes import ManualClock

ASK = Ask("default", steps=4, paced=True)
PATIENT = AdmissionConfig(BrownOutConfig(()), max_waiting=2, max_wait_s=1e9)


def slots(count: int) -> Capacity:
    return Capacity((DenoiseReplica(count),), budget_s=0.3, ceiling=count)


def desk(count: int, config: AdmissionConfig = PATIENT) -> AdmissionDesk:
    return AdmissionDesk(config, slots(count), ManualClock(), chance=lambda: 0.0)


def counts(of: AdmissionDesk) -> tuple[int, int]:
    statistics = of.statistics()
    return statistics.live, statistics.waiting


def test_slots_then_line_then_refusal() -> None:
    one = desk(1, replace(PATIENT, max_waiting=1))
    with one.enter(ASK) as first, one.enter(ASK) as second:
        assert (first.steps, second.steps) == (4, 0)
        assert counts(one) == (1, 1)
        with pytest.raises(CapacityExceeded, match="1 of at most 1 sessions wait") as refused, one.enter(ASK):
            pass
        assert refused.value.retry_after_s == pytest.approx(30)
        assert counts(one) == (1, 1)
    assert counts(one) == (0, 0)


def test_no_line_at_all() -> None:
    one = desk(1, replace(PATIENT, max_waiting=0))
    with one.enter(ASK) as first:
        assert first.admitted
        with pytest.raises(CapacityExceeded), one.enter(ASK):
            pass


async def test_positions_count_down_to_admission() -> None:
    one = desk(1)
    first, second = ExitStack(), ExitStack()
    first.enter_context(one.enter(ASK))
    second.enter_context(one.enter(ASK))
    with one.enter(ASK) as third:
        async with aclosing(third.positions()) as positions:
            assert await anext(positions) == 2
            first.close()
            assert await anext(positions) == 1
            second.close()
            assert [p async for p in positions] == []
        assert third.admitted


async def test_a_slow_reader_of_positions_is_told_only_the_newest() -> None:
    one = desk(1, replace(PATIENT, max_waiting=5))
    with ExitStack() as others:
        for _ in range(3):
            others.enter_context(one.enter(ASK))
        with one.enter(ASK) as last:
            async with aclosing(last.positions()) as positions:
                assert await anext(positions) == 3
                others.close()
                assert [p async for p in positions] == []


async def test_one_who_gives_up_leaves_the_line_to_the_next() -> None:
    one = desk(1)
    with one.enter(ASK):
        leaver = ExitStack()
        gone = leaver.enter_context(one.enter(ASK))
        with one.enter(ASK) as patient:
            async with aclosing(patient.positions()) as positions:
                assert await anext(positions) == 2
                gone.withdraw()
                assert not await gone.decided()
                leaver.close()
                assert await anext(positions) == 1


async def test_a_waiting_task_that_is_cancelled_frees_its_place() -> None:
    one = desk(1)

    async def wait() -> None:
        with one.enter(ASK) as ticket:
            await ticket.decided()

    with one.enter(ASK):
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        assert counts(one) == (1, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert counts(one) == (1, 0)


def test_changes_are_told() -> None:
    told: list[ControlStatistics] = []
    one = AdmissionDesk(PATIENT, slots(1), ManualClock(), lambda: 0.0, told.append)
    with one.enter(ASK), one.enter(ASK):
        pass
    assert [(s.live, s.waiting) for s in told] == [(1, 0), (1, 1), (1, 0), (0, 0)]


def test_more_capacity_lets_the_line_in() -> None:
    one = desk(1)
    with one.enter(ASK), one.enter(ASK) as second:
        assert not second.admitted
        one.observe(slots(2))
        assert second.admitted


async def test_steps_are_followed_from_admission_on() -> None:
    clock = ManualClock()
    buckets = tuple(range(1, 17))
    profile = CapacityProfile(buckets, tuple(0.01 * b for b in buckets), tuple(1e-9 * b for b in buckets))
    capacity = Capacity((DenoiseReplica(16, profile),), budget_s=0.0401, ceiling=16)  # one session of 4 steps, or two of 2
    one = AdmissionDesk(AdmissionConfig(BrownOutConfig((3, 2), dwell_s=5), max_wait_s=1e9), capacity, clock, lambda: 0.0)
    seen: dict[str, list[int]] = {"first": [], "second": [], "third": []}
    with one.enter(ASK) as first, ExitStack() as rest:
        first.follow(seen["first"].append)
        rest.enter_context(one.enter(ASK)).follow(seen["second"].append)
        rest.enter_context(one.enter(ASK)).follow(seen["third"].append)
        assert seen == {"first": [4, 2], "second": [2], "third": []}
        assert one.statistics().degraded == 2
        rest.close()
        for _ in range(12):
            await clock.advance(1)
            one.observe(capacity)
        assert seen["first"] == [4, 2]  # one more at a better level would not fit
        one.observe(replace(capacity, budget_s=0.0901, _known={}))
        await clock.advance(6)
        one.observe(replace(capacity, budget_s=0.0901, _known={}))
    assert seen["first"] == [4, 2, 3, 4]
    assert seen["third"] == []  # gave up in line


JOB = Ask("", steps=4, paced=False)


def test_a_job_has_room_where_it_would_run_at_once_and_asking_changes_nothing() -> None:
    three = desk(3)
    with three.enter(ASK):
        before = three.statistics()
        assert [three.has_room(JOB, beside) for beside in range(4)] == [True, True, False, False]
        assert three.statistics() == before
        with three.enter(JOB), three.enter(JOB), three.enter(ASK) as waiting:
            assert not waiting.admitted
            assert not three.has_room(JOB)
    assert three.has_room(JOB, 2)


def test_no_job_passes_one_that_waits_and_a_tenants_limit_holds() -> None:
    measured = CapacityProfile((1, 2, 4), (0.01, 0.01, 0.01), (0.01, 0.01, 0.01))
    limited = desk(3, replace(PATIENT, tenants={"acme": Tenant(max_sessions=1)}))
    with limited.enter(replace(JOB, tenant="acme")):
        assert limited.has_room(JOB)
        assert not limited.has_room(replace(JOB, tenant="acme"))
    few = AdmissionDesk(PATIENT, Capacity((DenoiseReplica(3, measured),), budget_s=0.3, ceiling=3), ManualClock(), chance=lambda: 0.0)
    assert not few.has_room(JOB, 1)  # the rest is kept for viewers
    with few.enter(JOB), few.enter(JOB) as waiting:
        assert not waiting.admitted
        assert not few.has_room(JOB)
