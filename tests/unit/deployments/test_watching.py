"""What a front door asks the others: which of them has a session, and of that one alone what the session shows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException

from deployments.links.routing import AskingRouter
from deployments.links.watching import OtherDoors
from deployments.links.wishes import Avoid, Only
from model_core.errors import CapacityExceeded, StageUnavailable
from service.watching.elsewhere import Batch
from service.watching.show import Place
from tests.routers import OURS, StubReplica, chosen

BATCH = Batch(Place(0, 3, 8), "t")
NO_ANSWER = object()


class Result:
    """As Serve's, of one replica."""

    def __init__(self, answer: object) -> None:
        self._answer = answer

    async def get_async(self) -> object:
        if self._answer is NO_ANSWER:
            await asyncio.Event().wait()
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer


class Handle:
    """As Serve's: each front door's answer to `shows`, and one answer to `shown`."""

    def __init__(self, answers: list[object], shown: object = BATCH) -> None:
        self._answers, self._shown = answers, shown
        self.asked: list[tuple[Any, ...]] = []
        self.shown = self

    def broadcast(self, method: str, token: object) -> Any:
        assert method == ("shows" if isinstance(token, str) else "leaves")
        self.asked.append((token,))
        return self

    async def _fetch_replica_results_async(self) -> list[Result]:
        if self._answers and isinstance(self._answers[0], RayServeException):
            raise self._answers[0]
        return [Result(answer) for answer in self._answers]

    def remote(self, *arguments: object) -> Any:
        self.asked.append(arguments)
        return asyncio.ensure_future(self._answer())

    async def _answer(self) -> object:
        if isinstance(self._shown, Exception):
            raise self._shown
        return self._shown


def doors(handle: Handle, answer_within_s: float = 20.0) -> OtherDoors:
    made: Any = handle
    return OtherDoors(made, "me", answer_within_s)


async def test_the_one_that_has_the_session_is_asked_for_it_and_no_other() -> None:
    handle = Handle(["", RuntimeError("of an earlier version"), "me", "there"])
    source = await doors(handle).find("token")
    assert source is not None
    assert await source.after(None) == BATCH
    assert handle.asked == [("token",), ("token", None, Only("there"))]


NONE_THERE = DeploymentUnavailableError(DeploymentID("FrontDoor", "headrace"))


@pytest.mark.parametrize("answers", [[], [""], ["me"], [RuntimeError("away")], [NONE_THERE]])
async def test_where_nobody_else_has_it_nothing_is_found(answers: list[object]) -> None:
    assert await doors(Handle(answers)).find("token") is None


async def test_one_that_is_slow_hides_nobody_who_has_it() -> None:
    source = await doors(Handle([NO_ANSWER, "", "there", NO_ANSWER])).find("token")
    assert source is not None
    assert await source.after(None) == BATCH


@pytest.mark.parametrize(
    "answers",
    [
        [NO_ANSWER],
        ["", NO_ANSWER, "me"],
        [ActorUnavailableError("busy", None), ""],
        [asyncio.CancelledError()],
        [RayServeException("broken")],
    ],
    ids=["none", "one of three", "unavailable", "cancelled", "no broadcast"],
)
async def test_where_some_do_not_say_it_is_not_known_whether_somebody_has_it(answers: list[object]) -> None:
    with pytest.raises(StageUnavailable, match="other front doors do not answer"):
        await doors(Handle(answers), answer_within_s=0.05).find("token")


@pytest.mark.parametrize(
    "answers", [[None, RuntimeError("of an earlier version")], [NONE_THERE], [RayServeException("broken")], [NO_ANSWER]]
)
async def test_others_are_told_which_sessions_leave_whatever_becomes_of_that(answers: list[object]) -> None:
    handle = Handle(answers)
    await doors(handle, answer_within_s=0.05).leaving(["one", "two"])
    assert handle.asked == [(["one", "two"],)]


@pytest.mark.parametrize(
    ("shown", "kind"), [(ConnectionError("gone"), StageUnavailable), (CapacityExceeded("busy", retry_after_s=1.0), CapacityExceeded)]
)
async def test_one_that_fails_is_told_apart_from_one_that_has_it_no_more(shown: Exception, kind: type[Exception]) -> None:
    source = await doors(Handle(["there"], shown)).find("token")
    assert source is not None
    with pytest.raises(kind):
        await source.after(None)
    gone = await doors(Handle(["there"], None)).find("token")
    assert gone is not None
    assert await gone.after(None) is None


def test_what_tells_the_router_something_is_not_in_its_module_which_serve_sends_by_value() -> None:
    assert AskingRouter.__module__ not in {Avoid.__module__, Only.__module__}


async def test_a_call_for_one_replica_goes_there_however_busy_it_is_and_to_any_other_where_it_is_gone() -> None:
    replicas = [StubReplica("a", OURS, busy=0), StubReplica("b", OURS, busy=7)]
    assert await chosen(replicas, Only(b"b".hex())) == "b"
    assert await chosen(replicas, Only(b"c".hex())) == "a"
