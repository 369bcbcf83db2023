"""The audit log: a chain that shows what was changed, and that several writers append to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, delete, update

from service.database.engine import Database
from service.database.schema import AUDIT
from service.identity.principal import Means, Principal
from service.ledger.audit import GENESIS, AuditQuery, AuditTable, Head, Verdict, entries, verify
from service.ledger.interface import AuditEntry, Outcome

WHO = Principal(tenant="acme", subject="key1", means=Means.KEY)
ENTRY = AuditEntry(
    operation="job.submit", principal=WHO, address="192.0.2.7", resource="j1", request_id="r1", detail={"door": "openai"}, at=5.25
)


def note(number: int) -> AuditEntry:
    return replace(ENTRY, resource=f"j{number}", at=float(number))


async def append(database: Database, *added: AuditEntry) -> None:
    await database.run(partial(_append, added))


def _append(added: Sequence[AuditEntry], connection: Connection) -> None:
    AuditTable().append(connection, added)


async def look(database: Database, expected: Head | None = None) -> Verdict:
    return await database.run(partial(verify, expected=expected), write=False)


async def listed(database: Database, **where: Any) -> list[dict[str, Any]]:
    return await database.run(partial(entries, query=AuditQuery(**where)), write=False)


async def test_an_entry_says_who_did_what_and_how_it_ended(database: Database) -> None:
    await append(database, ENTRY, replace(ENTRY, outcome=Outcome.DENIED, reason="no such key", principal=Principal(), at=6.0))
    first, second = await listed(database)
    told = ("seq", "at", "tenant", "subject", "means", "address", "operation", "resource", "outcome", "request_id")
    assert tuple(first[name] for name in told) == (1, 5.25, "acme", "key1", "key", "192.0.2.7", "job.submit", "j1", "allowed", "r1")
    assert first["detail"] == {"door": "openai"}
    assert first["previous"] == GENESIS
    assert (second["outcome"], second["reason"], second["means"]) == ("denied", "no such key", "none")
    assert second["previous"] == first["digest"]


async def test_a_log_that_nobody_touched_is_sound(database: Database) -> None:
    empty = await look(database)
    assert (empty.entries, empty.head, empty.problems) == (0, None, ())
    await append(database, *(note(n) for n in range(3)))
    await append(database, note(3))
    verdict = await look(database)
    assert (verdict.entries, verdict.problems) == (4, ())
    assert verdict.head is not None
    assert verdict.head.seq == 4


@pytest.mark.parametrize(
    ("tampering", "problem"),
    [
        (update(AUDIT).where(AUDIT.c.seq == 2).values(outcome="denied"), "entry 2 is not as it was written"),
        (update(AUDIT).where(AUDIT.c.seq == 2).values(at=99.0), "entry 2 is not as it was written"),
        (update(AUDIT).where(AUDIT.c.seq == 2).values(detail="{}"), "entry 2 is not as it was written"),
        (delete(AUDIT).where(AUDIT.c.seq == 2), "entry 2 is missing; 3 follows 1"),
        (delete(AUDIT).where(AUDIT.c.seq == 1), "entry 1 is missing; 2 follows 0"),
        (update(AUDIT).where(AUDIT.c.seq == 2).values(digest="0" * 64), "entry 2 is not as it was written"),
    ],
    ids=["outcome", "time", "detail", "removed", "first removed", "digest"],
)
async def test_a_change_is_found(database: Database, tampering: Any, problem: str) -> None:
    await append(database, *(note(n) for n in range(4)))
    await database.run(lambda connection: connection.execute(tampering).rowcount)
    assert (await look(database)).problems[0] == problem


async def test_an_entry_with_a_digest_made_anew_does_not_fit_the_next_one(database: Database) -> None:
    from service.ledger.audit import digest

    await append(database, *(note(n) for n in range(4)))

    def forge(connection: Connection) -> None:
        row = dict(connection.execute(AUDIT.select().where(AUDIT.c.seq == 2)).mappings().one()) | {"outcome": "denied"}
        connection.execute(update(AUDIT).where(AUDIT.c.seq == 2).values({**row, "digest": digest(row)}))

    await database.run(forge)
    assert (await look(database)).problems == ("entry 3 does not follow entry 2 as it is now",)


async def test_a_cut_end_is_found_by_what_was_noted(database: Database) -> None:
    await append(database, *(note(n) for n in range(4)))
    noted = (await look(database)).head
    assert noted is not None
    await append(database, note(4))
    assert (await look(database, noted)).problems == ()
    await database.run(lambda connection: connection.execute(delete(AUDIT).where(AUDIT.c.seq >= 4)).rowcount)
    assert (await look(database)).problems == ()
    assert (await look(database, noted)).problems == (f"entry 4 with digest {noted.digest} is not there; it was once",)


async def test_several_writers_append_to_one_chain(database: Database) -> None:
    await asyncio.gather(*(append(database, note(10 * n), note(10 * n + 1)) for n in range(8)))
    verdict = await look(database)
    assert (verdict.entries, verdict.problems) == (16, ())


async def test_a_batch_whose_commit_was_in_doubt_is_appended_once(database: Database) -> None:
    batch = [note(1), note(2), note(2)]
    await append(database, *batch)
    await append(database, note(9))
    await append(database, *batch)
    assert [entry["resource"] for entry in await listed(database)] == ["j1", "j2", "j2", "j9"]


async def test_a_long_log_is_looked_at_in_parts(database: Database) -> None:
    await append(database, *(note(n) for n in range(2500)))
    assert (await look(database)).entries == 2500


async def test_entries_can_be_looked_for(database: Database) -> None:
    other = replace(ENTRY, principal=replace(WHO, tenant="other"), operation="key.create", outcome=Outcome.FAILED, at=9.0)
    await append(database, *(note(n) for n in range(3)), other)
    assert len(await listed(database, tenant="acme")) == 3
    assert [entry["at"] for entry in await listed(database, operation="key.create")] == [9.0]
    assert len(await listed(database, outcome="failed")) == 1
    assert [entry["at"] for entry in await listed(database, since=2.0)] == [2.0, 9.0]
    assert [entry["at"] for entry in await listed(database, limit=2)] == [2.0, 9.0]


async def test_what_callers_chose_is_made_short_and_plain(database: Database) -> None:
    odd = replace(ENTRY, resource="a\x00b\x1b[31m" + "x" * 1000, reason="\ud800 y\n", detail={"long": "z" * 10_000})
    await append(database, odd)
    (entry,) = await listed(database)
    assert entry["resource"].startswith("a b [31mxxx")
    assert len(entry["resource"]) == 256
    assert entry["reason"] == "? y "
    assert entry["detail"] == {"too_long": 10_011}
    assert (await look(database)).problems == ()
