"""Who goes first, as pure decisions."""

from __future__ import annotations

import pytest

from service.jobs.job import JobStatus
from service.jobs.table.claims import Waiting, after_loss, turns


def test_the_tenant_with_the_fewest_running_jobs_goes_first() -> None:
    waiting = [Waiting("many", 1.0), Waiting("few", 9.0)]
    assert turns(waiting, {"many": 3}, 1) == {"few": 1}
    assert turns(waiting, {"many": 3}, 3) == {"few": 3}
    assert turns(waiting, {"many": 3}, 4) == {"few": 3, "many": 1}  # which has waited for longer
    assert turns(waiting, {"many": 3}, 5) == {"few": 4, "many": 1}


def test_of_equals_the_one_that_waits_longest_goes_first() -> None:
    assert list(turns([Waiting("late", 2.0), Waiting("early", 1.0)], {}, 2)) == ["early", "late"]
    assert turns([Waiting("late", 2.0), Waiting("early", 1.0)], {}, 1) == {"early": 1}


def test_places_are_shared_out_evenly() -> None:
    assert turns([Waiting(f"t{n}", float(n)) for n in range(3)], {}, 9) == {"t0": 3, "t1": 3, "t2": 3}


def test_nobody_waits() -> None:
    assert turns([], {"busy": 3}, 4) == {}
    assert turns([Waiting("one", 1.0)], {}, 0) == {}


@pytest.mark.parametrize(
    ("cancelling", "lost", "becomes"),
    [(False, 1, JobStatus.QUEUED), (False, 2, JobStatus.QUEUED), (False, 3, JobStatus.FAILED), (True, 1, JobStatus.CANCELLED)],
)
def test_what_becomes_of_a_job_whose_worker_is_gone(cancelling: bool, lost: int, becomes: JobStatus) -> None:
    assert after_loss(cancelling=cancelling, lost=lost, max_lost=3) is becomes
