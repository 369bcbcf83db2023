"""The ledger's rows in the database. All functions run in a transaction of the caller's; they know nothing of threads and retries.

A session that is resumed has several connections, its legs, perhaps at several front doors. Their writes may come late, and in any order.
Two rules make the order not matter. A leg that begins cuts the rows of earlier legs at its first frame. And a row is cut, when it is
written, at the first frame of every later leg.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, Row, Table, and_, bindparam, cast, delete, func, literal_column, select
from sqlalchemy.dialects import postgresql, sqlite

from service.database.schema import LEDGER, LEDGER_LEGS, OUTBOX
from service.ledger.account import cut
from service.ledger.interface import Kind, UsageRow

EVENT = "usage"
_AT_ONCE = 500  # values in one statement; SQLite and PostgreSQL take many more
_NEVER = 2**62

GROUPS = ("tenant", "model", "door", "day")
COUNTS = ("frames", "pixels", "steps")
SECONDS = ("video_seconds", "text_seconds", "denoise_seconds", "decode_seconds")


@dataclass(frozen=True, slots=True)
class Resumed:
    """A leg of `source` that began at Unix time `leg` sends it from `frame` on."""

    source: str
    frame: int
    leg: float


class LedgerTable:
    """Writes rows.

    Args:
        events: whether each row is reported, too, as an event in the outbox.
        settle_s: how long after its last write the row of a session is reported. Until then a resume may still cut it.
    """

    def __init__(self, *, events: bool = False, settle_s: float = 180.0) -> None:
        self._events = events
        self._settle_s = settle_s

    def write(self, connection: Connection, rows: Sequence[UsageRow], now: float) -> None:
        """Write `rows` as they are now, whatever was written of them before. `now` is Unix time."""
        one_at_a_time(connection)
        legs = _legs(connection, {row.source for row in rows if row.kind is Kind.SESSION})
        kept = [_before_later_legs(row, legs.get(row.source, ())) for row in rows]
        self._put(connection, [row for row in kept if row is not None], now)

    def resumed(self, connection: Connection, legs: Iterable[Resumed], now: float) -> None:
        """Cut what earlier legs wrote. An entry that comes again has no effect."""
        one_at_a_time(connection)
        for leg in legs:
            upsert(connection, LEDGER_LEGS, [{"source": leg.source, "leg": leg.leg, "first_frame": leg.frame}], ("source", "leg"))
            earlier = select(LEDGER).where(
                LEDGER.c.source == leg.source, LEDGER.c.leg < leg.leg, LEDGER.c.interval + LEDGER.c.frames > leg.frame
            )
            self._put(connection, [cut(read(row), leg.frame) for row in connection.execute(earlier).all()], now)

    def forget_legs(self, connection: Connection, before: float) -> None:
        """Legs that began before Unix time `before` are long over: nobody writes rows of earlier ones any more."""
        connection.execute(delete(LEDGER_LEGS).where(LEDGER_LEGS.c.leg < before))

    def _put(self, connection: Connection, rows: Sequence[UsageRow], now: float) -> None:
        """Rows without frames are nobody's, and go."""
        full = [row for row in rows if row.frames]
        empty = [{"s": row.source, "i": row.interval} for row in rows if not row.frames]
        if empty:
            gone = delete(LEDGER).where(LEDGER.c.source == bindparam("s"), LEDGER.c.interval == bindparam("i"))
            connection.execute(gone, empty)
        if full:
            upsert(connection, LEDGER, [_values(row, now) for row in full], ("source", "interval"))
        if self._events and full:
            notices = [_notice(row, now, now if row.kind is Kind.JOB else now + self._settle_s) for row in full]
            upsert(connection, OUTBOX, notices, ("id",), ("next_at",))


def event_id(source: str, interval: int) -> str:
    """Of the row's event, and of its notice in the outbox."""
    return f"{source}/{interval}"


def read(row: Row[Any]) -> UsageRow:
    """A row of the table as a value."""
    values = {name: value for name, value in row._mapping.items() if name != "updated_at"}  # noqa: SLF001 - a public name in disguise
    return UsageRow(**{**values, "kind": Kind(values["kind"])})


@dataclass(frozen=True, slots=True)
class Total:
    """What one tenant, model, door or day used. `sums` has the columns of `COUNTS` and `SECONDS`."""

    key: str
    sums: Mapping[str, float]


def totals(connection: Connection, by: str, since: float | None = None, until: float | None = None, tenant: str = "") -> list[Total]:
    """Sums over rows that began from `since` up to `until`, in Unix time, by one of `GROUPS`."""
    day = _day(connection)
    key = day if by == "day" else LEDGER.c[by]
    asked = select(key.label("key"), *(func.sum(LEDGER.c[name]).label(name) for name in (*COUNTS, *SECONDS))).group_by(key).order_by(key)
    if since is not None:
        asked = asked.where(LEDGER.c.started_at >= since)
    if until is not None:
        asked = asked.where(LEDGER.c.started_at < until)
    if tenant:
        asked = asked.where(LEDGER.c.tenant == tenant)
    return [Total(_day_name(row.key) if by == "day" else row.key, _sums(row)) for row in connection.execute(asked)]


def one_at_a_time(connection: Connection) -> None:
    """Until the end of the transaction, no other one writes here. With SQLite, transactions that write are so by themselves."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtext("headrace ledger"))))


def upsert(
    connection: Connection, table: Table, values: Sequence[Mapping[str, Any]], key: Sequence[str], changes: Sequence[str] | None = None
) -> None:
    """Insert `values`. Where a row with the same `key` is there, change those of its columns that `changes` names; None for all."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(table)
    names = [name for name in values[0] if name not in key] if changes is None else changes
    connection.execute(
        statement.on_conflict_do_update(index_elements=list(key), set_={name: statement.excluded[name] for name in names}), list(values)
    )


def _legs(connection: Connection, sources: set[str]) -> dict[str, list[tuple[float, int]]]:
    """The legs, but the first, of each of `sources`: when it began, and with which frame. Most sessions have none."""
    found: dict[str, list[tuple[float, int]]] = {}
    wanted = sorted(sources)
    for first in range(0, len(wanted), _AT_ONCE):
        some = wanted[first : first + _AT_ONCE]
        for source, leg, frame in connection.execute(select(LEDGER_LEGS).where(LEDGER_LEGS.c.source.in_(some))):
            found.setdefault(source, []).append((leg, frame))
    return found


def _before_later_legs(row: UsageRow, legs: Iterable[tuple[float, int]]) -> UsageRow | None:
    """`row`, cut where a later leg begins; None where that leg has all of it."""
    end = min((frame for leg, frame in legs if leg > row.leg), default=_NEVER)
    return cut(row, end) if row.interval < end else None


def _values(row: UsageRow, now: float) -> dict[str, Any]:
    return {
        "source": row.source, "interval": row.interval, "tenant": row.tenant, "door": row.door, "model": row.model, "tier": row.tier,
        "kind": row.kind.value, "leg": row.leg, "started_at": row.started_at, "frames": row.frames, "video_seconds": row.video_seconds,
        "pixels": row.pixels, "steps": row.steps, "text_seconds": row.text_seconds, "denoise_seconds": row.denoise_seconds,
        "decode_seconds": row.decode_seconds, "updated_at": now,
    }  # fmt: skip


def _notice(row: UsageRow, now: float, due: float) -> dict[str, Any]:
    """To be delivered when it is due, as the row is by then."""
    body = json.dumps({"source": row.source, "interval": row.interval})
    return {
        "id": f"{EVENT}/{event_id(row.source, row.interval)}", "kind": EVENT, "body": body, "attempts": 0, "next_at": due,
        "done_at": None, "created_at": now,
    }  # fmt: skip


def _day(connection: Connection) -> ColumnElement[int]:
    """Days since 1970. PostgreSQL rounds in a cast, and SQLite may lack floor."""
    days = LEDGER.c.started_at / literal_column("86400.0")
    return cast(func.floor(days), Integer) if connection.dialect.name == "postgresql" else cast(days, Integer)


def _day_name(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()


def _sums(row: Row[Any]) -> dict[str, float]:
    return {name: int(getattr(row, name)) for name in COUNTS} | {name: float(getattr(row, name)) for name in SECONDS}


def matches(source: str, interval: int) -> ColumnElement[bool]:
    """The row of that name."""
    return and_(LEDGER.c.source == source, LEDGER.c.interval == interval)
