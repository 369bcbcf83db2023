"""How a call's messages end: in order, or because the connection broke, which gRPC says only a moment later."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import grpc.aio
import pytest

from doors.grpc.incoming import Incoming, next_control
from doors.wire.messages import RequestParser
from service.checks import Limits


class Over:
    """A call whose messages have ended. It is cancelled after it was asked `looks` times whether it is; never where that is None."""

    def __init__(self, looks: int | None) -> None:
        self.looks = looks

    async def read(self) -> object:
        return grpc.aio.EOF

    def cancelled(self) -> bool:
        if self.looks is None:
            return False
        self.looks -= 1
        return self.looks < 0


def incoming(looks: int | None) -> Incoming:
    return Incoming(cast("Any", Over(looks)), RequestParser(), Limits())


async def test_a_connection_that_breaks_is_not_the_end_of_a_source() -> None:
    with pytest.raises(asyncio.CancelledError):
        await next_control(incoming(3), source=True)


async def test_a_caller_who_closes_his_side_ends_the_source() -> None:
    assert await next_control(incoming(None), source=True) is None


async def test_controls_of_other_sessions_end_at_once() -> None:
    assert await next_control(incoming(0)) is None
