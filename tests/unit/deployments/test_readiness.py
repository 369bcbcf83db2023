"""What a start says while it waits, and how its waiting ends."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from ray.serve._private.common import ReplicaState

from deployments.cluster.readiness import NOT_DEPLOYED, AppState, DeploymentState, app_state, wait_until_ready
from model_core.errors import StageUnavailable


class Time:
    """A clock that only sleeping moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def app(state: str = "DEPLOYING", message: str = "", **deployments: DeploymentState) -> AppState:
    return AppState(state, message, deployments)


STARTING, UP = DeploymentState({"STARTING": 1}), DeploymentState({"RUNNING": 1})


def start(states: Iterator[AppState], serving: Iterator[bool], within_s: float = 100.0) -> list[str]:
    said: list[str] = []
    time = Time()
    wait_until_ready(lambda: next(states), lambda: next(serving), within_s, said.append, time, time.sleep)
    return said


def test_a_start_says_what_it_waits_for_and_says_it_again_after_a_while() -> None:
    def states() -> Iterator[AppState]:
        yield from [NOT_DEPLOYED] * 10
        yield from [app(TextEncoder=UP, Denoiser=STARTING)] * 160
        yield from [app("RUNNING", TextEncoder=UP, Denoiser=UP)] * 3

    assert start(states(), iter([False, False, True])) == [
        "0 s: waiting for Serve to make the deployments",
        "1 s: waiting for Denoiser (1 starting)",
        "16 s: waiting for Denoiser (1 starting)",
        "17 s: waiting for the front door to find every stage healthy",
    ]


def test_an_error_of_a_replica_is_told_once_while_it_is_tried_again() -> None:
    failing = DeploymentState({"STARTING": 1}, "ValueError: no weights in /models")
    states = [*[app(Denoiser=failing)] * 40, app("RUNNING", Denoiser=UP)]
    said = start(iter(states), iter([True]))
    assert said == ["Denoiser: ValueError: no weights in /models", "0 s: waiting for Denoiser (1 starting)"]


def test_a_start_that_takes_too_long_says_what_was_missing() -> None:
    with pytest.raises(StageUnavailable, match=r"not start within 5 s; still waiting for Decoder \(no replica\), FrontDoor \(1 starting\)"):
        start(iter([app(TextEncoder=UP, Decoder=DeploymentState({}), FrontDoor=STARTING)] * 100), iter(()), within_s=5.0)


def test_a_start_that_serve_gives_up_ends_at_once_with_the_reason() -> None:
    failed = app("DEPLOY_FAILED", "a page", Denoiser=DeploymentState({}, "WeightsError: no such folder"))
    with pytest.raises(StageUnavailable, match="the application did not start: Denoiser: WeightsError: no such folder"):
        start(iter([failed]), iter(()))
    with pytest.raises(StageUnavailable, match="the application did not start: the arguments are wrong"):
        start(iter([app("DEPLOY_FAILED", "Traceback\n  a page\nthe arguments are wrong")]), iter(()))


def test_running_without_a_replica_is_not_ready() -> None:
    """Serve says RUNNING of an application whose replicas have all gone."""
    overview = SimpleNamespace(
        status=SimpleNamespace(value="RUNNING"),
        message="",
        deployments={"Denoiser": SimpleNamespace(replica_states={ReplicaState.RUNNING: 0}, message="\nTraceback\n  gone \n")},
    )
    told = app_state(overview)
    assert told.deployments["Denoiser"] == DeploymentState({}, "gone")
    assert told.awaited() == "Denoiser (no replica)"
    assert app_state(None) == NOT_DEPLOYED
