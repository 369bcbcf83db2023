"""What a front door asks the others: which of them has a session, and of that one alone what the session shows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ray.serve.exceptions import RayServeException

from deployments.links.routing import Only
from deployments.links.watching import OtherDoors
from model_core.errors import CapacityExceeded, StageUnavailable
from service.watching.elsewhere import Batch
from service.watching.show import Place
from tests.routers import OURS, StubReplica, chosen

BATCH = Batch(Place(0, 3, 8), "t")


class Handle:
    """As Serve's: each front door's answer to `shows`, and one answer to `shown`."""

    def __init__(self, answers: list[object], shown: object = BATCH) -> None:
        self._answers, self._shown = answers, shown
        self.asked: list[tuple[Any, ...]] = []
        self.shown = self

    def broadcast(self, method: str, token: str) -> Any:
        assert method == "shows"
        self.asked.append((token,))
        return self

    async def results_async(self, *, timeout_s: float, return_exceptions: bool) -> list[object]:
        assert timeout_s > 0 < return_exceptions
        if self._answers and isinstance(self._answers[0], RayServeException):
            raise self._answers[0]
        return self._answers

    def remote(self, *arguments: object) -> Any:
        self.asked.append(arguments)
        return asyncio.ensure_future(self._answer())

    async def _answer(self) -> object:
        if isinstance(self._shown, Exception):
            raise self._shown
        return self._shown


def doors(handle: Handle) -> OtherDoors:
    made: Any = handle
    return OtherDoors(made, "me")


async def test_the_one_that_has_the_session_is_asked_for_it_and_no_other() -> None:
    handle = Handle(["", RuntimeError("of an earlier version"), "me", "there"])
    source = await doors(handle).find("token")
    assert source is not None
    assert await source.after(None) == BATCH
    assert handle.asked == [("token",), ("token", None, Only("there"))]


@pytest.mark.parametrize("answers", [[], [""], ["me"], [RuntimeError("away")], [RayServeException("no replica")]])
async def test_where_nobody_else_has_it_nothing_is_found(answers: list[object]) -> None:
    assert await doors(Handle(answers)).find("token") is None


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


async def test_a_call_for_one_replica_goes_there_however_busy_it_is_and_to_any_other_where_it_is_gone() -> None:
    replicas = [StubReplica("a", OURS, busy=0), StubReplica("b", OURS, busy=7)]
    assert await chosen(replicas, Only(b"b".hex())) == "b"
    assert await chosen(replicas, Only(b"c".hex())) == "a"
