"""Sessions that stand still: prolonged together, noticed when they are taken or lost, and cheap."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Self, cast

import pytest
from prometheus_client import CollectorRegistry

from model_core.pipeline import Session
from observability.metrics import Metrics
from service.clock import MonotonicClock
from service.records.keeper import KeeperPolicy, SessionKeeper
from service.records.store import Lease, LeaseState, SessionMoved, SessionNotFound
from tests.fakes import eventually
from tests.stores import FakeStore

SESSIONS = 40
EVERY_S = 0.02


class Counted(FakeStore):
    """How many sessions each touch was for."""

    def __init__(self) -> None:
        super().__init__()
        self.touched: list[int] = []

    async def touch(self, leases: Sequence[Lease], ttl_s: float) -> list[LeaseState]:
        self.touched.append(len(leases))
        return await super().touch(leases, ttl_s)


class Still:
    """A session of which nothing is asked but its record."""

    def record(self, tenant: str) -> Any:
        return self

    def to_bytes(self) -> bytes:
        return b"record"


class Kept:
    """A keeper with sessions that pause for ever."""

    def __init__(self) -> None:
        self.store = Counted()
        policy = KeeperPolicy(ttl_s=60, write_every_s=EVERY_S, timeout_s=5)
        self.keeper = SessionKeeper(self.store, policy, Metrics(CollectorRegistry()), MonotonicClock(), lambda: "")
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def pause(self, token: str) -> None:
        async with self.keeper.keeping(token, "me", "acme", cast("Session", Still())):
            await asyncio.Event().wait()

    async def __aenter__(self) -> Self:
        self.tasks = {f"t{n}": asyncio.create_task(self.pause(f"t{n}")) for n in range(SESSIONS)}
        await eventually(lambda: len(self.store.puts) == SESSIONS)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        await self.keeper.aclose()


async def test_sessions_that_stand_still_are_prolonged_together_and_never_written() -> None:
    before = len(asyncio.all_tasks())
    async with Kept() as kept:
        await eventually(lambda: len(kept.store.touched) >= 8)
        assert sum(kept.store.touched[-4:]) == SESSIONS  # four parts make a round
        assert len(kept.store.puts) == SESSIONS
        assert len(asyncio.all_tasks()) - before == 2 * SESSIONS + 1  # the body of each and its writer; one task for the rounds
    await eventually(lambda: len(asyncio.all_tasks()) <= before)


async def test_a_session_that_stands_still_notices_that_it_was_taken() -> None:
    async with Kept() as kept:
        await kept.store.claim("t7", "another")
        with pytest.raises(SessionMoved):
            await kept.tasks.pop("t7")
        assert not any(task.done() for task in kept.tasks.values())


async def test_a_record_that_the_store_has_lost_is_written_again() -> None:
    async with Kept() as kept:
        await kept.store.delete("t3", "me")
        await eventually(lambda: len(kept.store.puts) == SESSIONS + 1)
        assert await kept.store.get("t3") == b"record"


class SlowWrites(FakeStore):
    """Each write comes to the store late; a read does not wait for it."""

    async def put(self, token: str, holder: str, record: bytes, ttl_s: float) -> LeaseState:
        for _ in range(20):
            await asyncio.sleep(0)
        return await super().put(token, holder, record, ttl_s)


async def test_a_session_is_found_although_its_last_write_is_still_under_way() -> None:
    store = SlowWrites()
    policy = KeeperPolicy(ttl_s=60, write_every_s=60, timeout_s=5)
    keeper = SessionKeeper(store, policy, Metrics(CollectorRegistry()), MonotonicClock(), lambda: "")
    with pytest.raises(ConnectionError):
        async with keeper.keeping("token", "me", "acme", cast("Session", Still())):
            raise ConnectionError
    assert store.puts == []
    with pytest.raises(SessionNotFound, match="cannot be read"):  # the record is there; it is none that can be read
        await keeper.find("token", "acme")
    assert store.puts == [b"record"]
    await keeper.aclose()
