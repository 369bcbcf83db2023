"""Reports of remote replicas, and what routers read of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from autoscaling.reports import FrontDoorReport, ReplicaReport, ReportError, Terms, flatten
from deployments.links.remote import RemoteDenoiser, reports
from deployments.links.routing import RoutingReport
from model_core.errors import StageUnavailable
from tests.reports import ADMISSION, DENOISER, VIEWERS

TWO = [ReplicaReport(1.0, denoiser=DENOISER), ReplicaReport(2.0, denoiser=DENOISER)]


def handle(*answers: object) -> Any:
    """A deployment whose replicas give `answers`."""

    async def results(**_: object) -> list[object]:
        return list(answers)

    return cast("Any", SimpleNamespace(broadcast=lambda _: SimpleNamespace(results_async=results)))


async def test_a_replica_that_does_not_answer_is_left_out() -> None:
    answers = [flatten(TWO[0]), RuntimeError("gone"), flatten(TWO[1])]
    assert await RemoteDenoiser(handle(*answers), "denoiser", 1.0).reports() == TWO
    door = FrontDoorReport(ADMISSION, VIEWERS, Terms(0.5, 4, 0.8))
    assert await reports(handle(flatten(door)), FrontDoorReport, 1.0) == [door]


async def test_no_answer_at_all_is_no_empty_stage() -> None:
    with pytest.raises(StageUnavailable, match="denoiser: no replica reported"):
        await RemoteDenoiser(handle(RuntimeError("gone")), "denoiser", 1.0).reports()


async def test_an_answer_without_a_number_that_is_due_is_an_error() -> None:
    numbers = flatten(TWO[0])
    numbers.popitem()
    with pytest.raises(ReportError, match="DenoiserStatistics must have"):
        await RemoteDenoiser(handle(numbers), "denoiser", 1.0).reports()


@pytest.mark.parametrize("report", [RoutingReport({"denoiser": "0123"}, 4), RoutingReport({"denoiser": "0123"}), RoutingReport()])
def test_routers_read_what_a_replica_reports_to_them(report: RoutingReport) -> None:
    assert RoutingReport.parse(report.flatten()) == report
    assert RoutingReport.parse({**report.flatten(), "of_a_later_version": 1}) == report
    assert RoutingReport.parse({}) == RoutingReport()
