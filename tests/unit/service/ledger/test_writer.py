"""Batches beside the sessions: bounded, tried again while the database is away, and counted where something was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection

from model_core.errors import StageUnavailable
from observability.metrics import Metrics
from service.ledger.interface import AuditEntry, Kind, Outcome, UsageRow
from service.ledger.table import LedgerTable, Resumed
from service.ledger.writer import AuditWriter, LedgerWriter
from tests.fakes import ManualClock

T = TypeVar("T")


class FakeDatabase:
    """Runs work without a database. `down` makes it stay away; `hold` makes it wait."""

    def __init__(self) -> None:
        self.down = False
        self.runs = 0
        self.hold: asyncio.Event | None = None

    async def run(self, work: Callable[[Connection], T], *, write: bool = True) -> T:
        self.runs += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.down:
            raise StageUnavailable("told to fail")
        return work(cast("Any", None))


class FakeTable(LedgerTable):
    """Remembers what it was asked to write."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[tuple[str, int], UsageRow] = {}
        self.legs: list[Resumed] = []

    def write(self, connection: Connection, rows: Sequence[UsageRow], now: float) -> None:
        self.rows |= {(row.source, row.interval): row for row in rows}

    def resumed(self, connection: Connection, legs: Any, now: float) -> None:
        self.legs += legs


class FakeLog:
    """An audit log that is a list."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []

    def append(self, connection: Connection, entries: Sequence[AuditEntry]) -> None:
        self.entries += entries


def row(source: str, frames: int = 10, interval: int = 0) -> UsageRow:
    return UsageRow(
        source=source, interval=interval, tenant="t", door="grpc", model="m", tier="live", kind=Kind.SESSION, started_at=0.0,
        frames=frames, video_seconds=1.0, pixels=1, steps=1,
    )  # fmt: skip


class Desk:
    """Both writers over the fakes."""

    def __init__(self, most: int = 100) -> None:
        self.database, self.table, self.log, self.clock = FakeDatabase(), FakeTable(), FakeLog(), ManualClock()
        self.registry = CollectorRegistry()
        metrics = Metrics(self.registry)
        self.ledger = LedgerWriter(self.database, self.table, metrics, self.clock, lambda: 7.0, every_s=2.0, most=most, closing_s=0.01)
        self.audit = AuditWriter(self.database, self.log, metrics, self.clock, lambda: 7.0, every_s=2.0, most=most)

    def counted(self, name: str, book: str) -> float | None:
        return self.registry.get_sample_value(f"headrace_{name}_total", {"book": book})


async def test_rows_wait_for_the_next_batch_and_the_newest_counts() -> None:
    desk = Desk()
    desk.ledger.start()
    desk.ledger.record(row("a", 10))
    desk.ledger.record(row("a", 20))
    desk.ledger.record(row("b", 5))
    await desk.clock.advance(1.9)
    assert desk.database.runs == 0
    await desk.clock.advance(0.1)
    assert desk.database.runs == 1
    assert {source: kept.frames for (source, _), kept in desk.table.rows.items()} == {"a": 20, "b": 5}
    await desk.clock.advance(2.0)
    assert desk.database.runs == 1, "with nothing to write, the database is left alone"
    await desk.ledger.aclose()


async def test_a_resume_is_written_with_the_rows_and_goes_back_as_far_as_it_went() -> None:
    desk = Desk()
    desk.ledger.resumed("a", 50, 2.0)
    desk.ledger.resumed("a", 40, 2.0)
    desk.ledger.resumed("a", 60, 3.0)
    await desk.ledger.flush()
    assert desk.table.legs == [Resumed("a", 40, 2.0), Resumed("a", 60, 3.0)]


async def test_while_the_database_is_away_rows_wait_and_newer_ones_take_their_place() -> None:
    desk = Desk()
    desk.ledger.start()
    desk.database.down = True
    desk.ledger.record(row("a", 10))
    desk.ledger.resumed("a", 5, 2.0)
    await desk.clock.advance(2.0)
    desk.ledger.record(row("a", 30))
    await desk.clock.advance(2.0)
    assert (desk.table.rows, desk.counted("ledger_errors", "usage")) == ({}, 2)
    desk.database.down = False
    await desk.clock.advance(2.0)
    assert desk.table.rows["a", 0].frames == 30
    assert desk.table.legs == [Resumed("a", 5, 2.0)]
    assert desk.counted("ledger_dropped", "usage") == 0
    await desk.ledger.aclose()


async def test_what_is_recorded_during_a_write_is_not_lost() -> None:
    desk = Desk()
    desk.database.hold = asyncio.Event()
    desk.ledger.record(row("a", 10))
    writing = asyncio.create_task(desk.ledger.flush())
    await asyncio.sleep(0)
    desk.ledger.record(row("a", 20))
    desk.database.hold.set()
    await writing
    assert desk.table.rows["a", 0].frames == 20


async def test_no_more_rows_wait_than_may_and_the_oldest_are_counted_as_lost() -> None:
    desk = Desk(most=3)
    for name in "abcde":
        desk.ledger.record(row(name))
    desk.ledger.record(row("c", 99))
    await desk.ledger.flush()
    assert {source: kept.frames for (source, _), kept in desk.table.rows.items()} == {"c": 99, "d": 10, "e": 10}
    assert desk.counted("ledger_dropped", "usage") == 2


async def test_many_rows_go_in_several_transactions() -> None:
    desk = Desk(most=5000)
    for number in range(2500):
        desk.ledger.record(row(f"s{number}"))
    await desk.ledger.flush()
    assert (len(desk.table.rows), desk.database.runs) == (2500, 3)


async def test_what_is_left_is_written_at_the_end() -> None:
    desk = Desk()
    desk.ledger.start()
    desk.audit.start()
    desk.ledger.record(row("a"))
    desk.audit.note(AuditEntry(operation="key.create"))
    await desk.ledger.aclose()
    await desk.audit.aclose()
    assert len(desk.table.rows) == len(desk.log.entries) == 1
    assert desk.log.entries[0].at == 7.0


async def test_the_end_does_not_wait_for_a_database_that_hangs() -> None:
    desk = Desk()
    desk.database.hold = asyncio.Event()
    desk.ledger.record(row("a"))
    async with asyncio.timeout(5):
        await desk.ledger.aclose()


async def test_audit_entries_keep_their_order_and_a_gap_is_an_entry_too() -> None:
    desk = Desk(most=3)
    desk.database.down = True
    for number in range(5):
        desk.audit.note(AuditEntry(operation=f"op{number}", at=float(number)))
    with pytest.raises(StageUnavailable):
        await desk.audit.flush()
    desk.database.down = False
    await desk.audit.flush()
    desk.audit.note(AuditEntry(operation="after"))
    await desk.audit.flush()
    *kept, gap, after = desk.log.entries
    assert [entry.operation for entry in kept] == ["op0", "op1", "op2"]
    assert (gap.operation, gap.outcome, gap.detail) == ("audit.gap", Outcome.FAILED, {"entries": 2})
    assert after.operation == "after"
    assert desk.counted("ledger_dropped", "audit") == 2
