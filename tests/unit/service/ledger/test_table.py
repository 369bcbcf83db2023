"""Usage rows in a real database: whatever comes late, twice or in another order, each frame is billed once."""

from __future__ import annotations

import itertools
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, select

from service.database.engine import Database
from service.database.schema import LEDGER, LEDGER_LEGS, OUTBOX
from service.ledger.interface import Kind, UsageRow
from service.ledger.table import LedgerTable, Resumed, totals

DAY = 86_400.0
ROW = UsageRow(
    source="s1", interval=0, tenant="acme", door="grpc", model="m", tier="live", kind=Kind.SESSION, leg=1.0, started_at=10 * DAY,
    frames=100, video_seconds=10.0, pixels=100 * 24, steps=80, text_seconds=0.5, denoise_seconds=4.0, decode_seconds=2.0,
)  # fmt: skip
JOB = replace(ROW, source="j1", kind=Kind.JOB, leg=0.0, tenant="other", door="openai", tier="default")
TABLE = LedgerTable()


async def write(database: Database, *rows: UsageRow, table: LedgerTable = TABLE, now: float = 0.0) -> None:
    await database.run(partial(_write, table, rows, now))


async def resumed(database: Database, frame: int, leg: float, table: LedgerTable = TABLE) -> None:
    await database.run(partial(_resumed, table, Resumed("s1", frame, leg)))


def _write(table: LedgerTable, rows: Sequence[UsageRow], now: float, connection: Connection) -> None:
    table.write(connection, rows, now)


def _resumed(table: LedgerTable, leg: Resumed, connection: Connection) -> None:
    table.resumed(connection, [leg], 0.0)


def _all(connection: Connection) -> list[Any]:
    return list(connection.execute(select(LEDGER).order_by(LEDGER.c.source, LEDGER.c.interval)).all())


async def kept(database: Database) -> list[tuple[str, int, int]]:
    return [(row.source, row.interval, row.frames) for row in await database.run(_all, write=False)]


async def test_a_row_that_is_written_again_is_replaced(database: Database) -> None:
    await write(database, ROW)
    await write(database, replace(ROW, frames=120, video_seconds=12.0))
    (row,) = await database.run(_all)
    assert (row.frames, row.video_seconds, row.tenant, row.kind) == (120, 12.0, "acme", "session")


async def test_a_row_without_frames_goes(database: Database) -> None:
    await write(database, ROW, replace(ROW, interval=100))
    await write(database, replace(ROW, interval=100, frames=0))
    assert await kept(database) == [("s1", 0, 100)]


LATER = replace(ROW, interval=60, leg=2.0, frames=90)
ZOMBIE = replace(ROW, interval=100, frames=30)  # of the first leg, behind where the second began


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
async def test_legs_may_be_written_in_any_order(database: Database, order: tuple[int, ...]) -> None:
    """The first leg sent 130 frames, of which 60 arrived. The second one goes on from there, up to frame 150."""
    steps: list[Callable[[], Awaitable[None]]] = [
        partial(write, database, ROW), partial(write, database, ZOMBIE), partial(resumed, database, 60, 2.0),
        partial(write, database, LATER),
    ]  # fmt: skip
    for index in order:
        await steps[index]()
    assert await kept(database) == [("s1", 0, 60), ("s1", 60, 90)]
    first, second = await database.run(_all)
    assert (first.steps, first.denoise_seconds, first.text_seconds, first.pixels) == (48, pytest.approx(2.4), 0.5, 60 * 24)
    assert (second.steps, second.denoise_seconds) == (80, 4.0)


async def test_a_resume_that_is_written_twice_has_no_effect(database: Database) -> None:
    await write(database, ROW)
    for _ in range(2):
        await resumed(database, 60, 2.0)
    (row,) = await database.run(_all)
    assert (row.frames, row.steps) == (60, 48)


async def test_a_leg_that_goes_back_further_cuts_more(database: Database) -> None:
    await write(database, ROW)
    await resumed(database, 60, 2.0)
    await resumed(database, 40, 2.0)
    assert await kept(database) == [("s1", 0, 40)]


async def test_a_job_is_not_cut(database: Database) -> None:
    await resumed(database, 0, 2.0)
    await write(database, replace(JOB, source="s1"))
    assert await kept(database) == [("s1", 0, 100)]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("tenant", {"acme": 200, "other": 100}),
        ("model", {"m": 300}),
        ("door", {"grpc": 200, "openai": 100}),
        ("day", {"1970-01-11": 200, "1970-01-12": 100}),
    ],
)
async def test_usage_is_added_up(database: Database, by: str, expected: dict[str, int]) -> None:
    await write(database, ROW, replace(ROW, source="s2", started_at=10.99999 * DAY), replace(JOB, started_at=11 * DAY))
    found = await database.run(partial(totals, by=by), write=False)
    assert {total.key: total.sums["frames"] for total in found} == expected
    assert all(isinstance(total.sums["pixels"], int) and isinstance(total.sums["video_seconds"], float) for total in found)


async def test_usage_of_a_time_and_of_a_tenant(database: Database) -> None:
    await write(database, ROW, replace(JOB, started_at=11 * DAY))

    async def keys(**where: Any) -> list[str]:
        return [total.key for total in await database.run(partial(totals, by="tenant", **where), write=False)]

    assert await keys(since=11 * DAY) == ["other"]
    assert await keys(until=11 * DAY) == ["acme"]
    assert await keys(tenant="acme") == ["acme"]
    assert await keys(since=12 * DAY) == []


async def test_rows_leave_notices_of_events_when_they_have_settled(database: Database) -> None:
    table = LedgerTable(events=True, settle_s=100.0)
    await write(database, ROW, JOB, table=table, now=5.0)
    await write(database, ROW, table=table, now=7.0)

    def notices(connection: Connection) -> dict[str, tuple[float, float | None, Any]]:
        return {row.id: (row.next_at, row.done_at, json.loads(row.body)) for row in connection.execute(select(OUTBOX)).all()}

    assert await database.run(notices) == {
        "usage/s1/0": (107.0, None, {"source": "s1", "interval": 0}),
        "usage/j1/0": (5.0, None, {"source": "j1", "interval": 0}),
    }


async def test_without_events_there_are_no_notices(database: Database) -> None:
    await write(database, ROW)
    assert await database.run(lambda connection: connection.execute(select(OUTBOX)).all()) == []


async def test_legs_that_are_long_over_are_forgotten(database: Database) -> None:
    await resumed(database, 60, 2.0)
    await resumed(database, 70, 9.0)
    await database.run(partial(TABLE.forget_legs, before=5.0))
    left = await database.run(lambda connection: connection.execute(select(LEDGER_LEGS.c.leg)).scalars().all())
    assert left == [9.0]
