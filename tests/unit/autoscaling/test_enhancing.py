from __future__ import annotations

from dataclasses import replace

import pytest

from autoscaling.capacity.estimate import EnhanceReading
from autoscaling.reports import ReplicaReport, ReportError, flatten, parse
from autoscaling.scaling.enhancing import EnhanceConfig, EnhanceState, enhance_replicas
from model_core.statistics import EnhancerStatistics

CONFIG = EnhanceConfig(budget_s=0.25, slots=8, least=0, most=5, down_window_s=60.0, zero_after_s=300.0)
BUSY = [EnhanceReading(1.0, chunks=100, busy_s=5.0)]  # 50 ms a chunk: five sessions


def replicas(sessions: int, readings: list[EnhanceReading] | None = None, config: EnhanceConfig = CONFIG) -> int:
    return enhance_replicas(sessions, readings or [], config, EnhanceState(), 1000.0)[0]


def test_nobody_asks_and_there_is_none() -> None:
    assert replicas(0) == 0
    assert replicas(0, config=replace(CONFIG, least=1)) == 1


@pytest.mark.parametrize(("sessions", "wanted"), [(1, 1), (5, 1), (6, 2), (25, 5), (1000, 5)])
def test_sessions_become_replicas_by_what_a_chunk_takes(sessions: int, wanted: int) -> None:
    assert replicas(sessions, BUSY) == wanted


def test_until_a_chunk_is_measured_a_replica_holds_its_slots_and_never_more() -> None:
    assert replicas(9) == 2
    assert replicas(9, [EnhanceReading(1.0, chunks=100, busy_s=0.1)]) == 2
    assert replicas(9, [EnhanceReading(1.0, chunks=100, busy_s=0.1)], replace(CONFIG, slots=0)) == 1


def test_it_goes_down_when_the_window_is_over_and_to_none_after_a_while_without_a_session() -> None:
    state = EnhanceState()
    seen = []
    for now, sessions in ((0, 20), (10, 3), (59, 3), (61, 3), (70, 0), (200, 0), (360, 0), (362, 0)):
        wanted, state = enhance_replicas(sessions, BUSY, CONFIG, state, float(now))
        seen.append(wanted)
    assert seen == [4, 4, 4, 1, 1, 1, 1, 0]


def test_what_is_measured_follows_what_replicas_have_done_lately() -> None:
    _, state = enhance_replicas(5, BUSY, CONFIG, EnhanceState(), 0.0)
    slower = [EnhanceReading(1.0, chunks=1100, busy_s=205.0)]  # 200 ms a chunk since then
    wanted, _ = enhance_replicas(5, slower, CONFIG, state, 2.0)
    assert wanted > 1


def test_a_reading_is_of_a_replica_that_enhances() -> None:
    report = ReplicaReport(3.0, enhancer=EnhancerStatistics(sessions=2, chunks=7, busy_s=0.5))
    assert parse(ReplicaReport, flatten(report)) == report
    assert EnhanceReading.of(report) == EnhanceReading(3.0, 7, 0.5)
    with pytest.raises(ReportError, match="must report its enhancer"):
        EnhanceReading.of(ReplicaReport(3.0))
