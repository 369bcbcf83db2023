"""The audit log: who did what, when, and how it ended. Only appended to, and chained by hashes.

Each entry has a number, without gaps, and the digest of the entry before it is part of its own. So an entry that is changed, removed or
put in between later does not fit. What is cut off at the end leaves no trace in the log itself: note the last number and digest elsewhere,
and have them looked for later.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, select

from service.database.schema import AUDIT
from service.ledger.interface import AuditEntry
from service.ledger.table import one_at_a_time

GENESIS = "0" * 64
_MAX_CHARS = {"reason": 512, "resource": 256}
_USUAL_CHARS = 128
_MAX_DETAIL_CHARS = 4096
_PAGE = 1000
_LOOK_BACK = 200  # entries of others that may stand behind a batch whose commit was in doubt
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# What the digest is of, besides the number and the digest before. The order counts.
_FIELDS = ("tenant", "subject", "means", "address", "operation", "resource", "outcome", "reason", "request_id", "detail")


@dataclass(frozen=True, slots=True)
class Head:
    """The newest entry's number and digest."""

    seq: int
    digest: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look at the whole log found.

    Attributes:
        entries: that were looked at.
        head: of the log as it is; None for an empty one.
        problems: what does not fit, at most one an entry, the first ones only.
    """

    entries: int
    head: Head | None
    problems: tuple[str, ...]


class AuditTable:
    """Appends to the log; see `service.ledger.interface.AuditAppender`. Any number of processes may."""

    def append(self, connection: Connection, entries: Sequence[AuditEntry]) -> None:
        """Append `entries`, which have their times. Those that are there already, since nobody knew whether a commit arrived, are left."""
        one_at_a_time(connection)
        newest = select(AUDIT).order_by(AUDIT.c.seq.desc()).limit(len(entries) + _LOOK_BACK)
        known = connection.execute(newest).mappings().all()
        seq, previous = (known[0]["seq"], known[0]["digest"]) if known else (0, GENESIS)
        there = {_content(row) for row in known}
        rows = []
        for columns in map(_columns, entries):
            if _content(columns) in there:
                continue
            seq += 1
            row = {"seq": seq, **columns, "previous": previous}
            previous = row["digest"] = digest(row)
            rows.append(row)
        if rows:
            connection.execute(insert(AUDIT), rows)


def digest(row: Mapping[Any, Any]) -> str:
    """What an entry's digest must be."""
    told = [row["previous"], row["seq"], *_content(row)]
    return hashlib.sha256(json.dumps(told, ensure_ascii=True, separators=(",", ":")).encode()).hexdigest()


def verify(connection: Connection, expected: Head | None = None, most_problems: int = 10) -> Verdict:
    """Look at the whole log.

    Args:
        expected: what was noted of the log earlier: that entry must still be there.
        most_problems: to look for.
    """
    problems: list[str] = []
    entries, previous = 0, Head(0, GENESIS)
    found = expected is None
    for row in _rows(connection):
        entries += 1
        if (problem := _problem(row, previous)) is not None and len(problems) < most_problems:
            problems.append(problem)
        previous = Head(row["seq"], row["digest"])
        found = found or previous == expected
    if not found and expected is not None:
        problems.append(f"entry {expected.seq} with digest {expected.digest} is not there; it was once")
    return Verdict(entries, previous if entries else None, tuple(problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuery:
    """Which entries; empty and None for all."""

    tenant: str = ""
    operation: str = ""
    outcome: str = ""
    since: float | None = None
    limit: int = 100


def entries(connection: Connection, query: AuditQuery) -> list[dict[str, Any]]:
    """Entries as the log has them, the newest `limit` of them, oldest first. `detail` is unpacked."""
    asked = select(AUDIT).order_by(AUDIT.c.seq.desc()).limit(query.limit)
    for name in ("tenant", "operation", "outcome"):
        if value := getattr(query, name):
            asked = asked.where(AUDIT.c[name] == value)
    if query.since is not None:
        asked = asked.where(AUDIT.c.at >= query.since)
    found = [dict(row) for row in connection.execute(asked).mappings()]
    return [{**row, "detail": json.loads(row["detail"] or "{}")} for row in reversed(found)]


def _content(row: Mapping[Any, Any]) -> tuple[Any, ...]:
    """All that an entry says. Times count in microseconds, so that no database's way to keep them matters."""
    return (round(row["at"] * 1_000_000), *(row[name] for name in _FIELDS))


def _problem(row: Mapping[Any, Any], previous: Head) -> str | None:
    if row["seq"] != previous.seq + 1:
        return f"entry {previous.seq + 1} is missing; {row['seq']} follows {previous.seq}"
    if row["previous"] != previous.digest:
        return f"entry {row['seq']} does not follow entry {previous.seq} as it is now"
    if row["digest"] != digest(row):
        return f"entry {row['seq']} is not as it was written"
    return None


def _rows(connection: Connection) -> Iterator[Mapping[Any, Any]]:
    """All of them in order, some at a time."""
    last = 0
    end = connection.execute(select(func.coalesce(func.max(AUDIT.c.seq), 0))).scalar_one()
    while last < end:
        page = connection.execute(
            select(AUDIT).where(AUDIT.c.seq > last, AUDIT.c.seq <= end).order_by(AUDIT.c.seq).limit(_PAGE)
        ).mappings().all()  # fmt: skip
        if not page:
            return
        yield from page
        last = page[-1]["seq"]


def _columns(entry: AuditEntry) -> dict[str, Any]:
    """The entry's columns, short and plain enough for any database and any terminal."""
    values = {
        "tenant": entry.principal.tenant, "subject": entry.principal.subject, "means": entry.principal.means.value,
        "address": entry.address, "operation": entry.operation, "resource": entry.resource, "outcome": entry.outcome.value,
        "reason": entry.reason, "request_id": entry.request_id,
    }  # fmt: skip
    plain = {name: _plain(value, _MAX_CHARS.get(name, _USUAL_CHARS)) for name, value in values.items()}
    detail = json.dumps(dict(entry.detail), sort_keys=True, separators=(",", ":"))
    if len(detail) > _MAX_DETAIL_CHARS:
        detail = json.dumps({"too_long": len(detail)})
    return {"at": round(entry.at or 0.0, 6), **plain, "detail": detail}


def _plain(value: str, most: int) -> str:
    return _CONTROL.sub(" ", value.encode(errors="replace").decode())[:most]
