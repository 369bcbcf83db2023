"""`headrace audit`: the audit log, and whether it is as it was written."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import console, state

if TYPE_CHECKING:
    from service.ledger.audit import Verdict

_MAX_LIMIT = 100_000


def listing(
    tenant: Annotated[str, typer.Option("--tenant", metavar="NAME", help="Only this tenant's.")] = "",
    operation: Annotated[str, typer.Option("--operation", metavar="NAME", help="Only this operation: key.create, job.submit.")] = "",
    outcome: Annotated[str, typer.Option("--outcome", metavar="allowed|denied|failed", help="Only those that ended so.")] = "",
    since: Annotated[str, typer.Option("--since", metavar="WHEN", help="Only from then on: 2026-11-01, 24h, 7d.")] = "",
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="The newest N entries.")] = 100,
    folder: state.State = state.DEFAULT_STATE,
    url: state.DatabaseUrl = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line on stdout.")] = False,
) -> None:
    """List who did what, and how it ended."""

    async def main() -> list[dict[str, Any]]:
        from service.ledger.audit import AuditQuery, entries

        console.in_range("--limit", limit, 1, _MAX_LIMIT)
        begin = state.moment("--since", since, time.time())
        query = AuditQuery(tenant=tenant, operation=operation, outcome=outcome, since=begin, limit=limit)
        async with state.database(folder, url) as database:
            return await database.run(partial(entries, query=query), write=False)

    for entry in console.run(main):
        print(json.dumps(entry) if as_json else line(entry))


def verify(
    expect: Annotated[
        str, typer.Option("--expect", metavar="NUMBER:DIGEST", help="An entry that this command printed earlier; it must still be there.")
    ] = "",
    folder: state.State = state.DEFAULT_STATE,
    url: state.DatabaseUrl = "",
) -> None:
    """Check that no entry was changed, removed or put in between, and print the newest one's number and digest.

    Note them elsewhere: with --expect, a later check finds out whether the end was cut off.
    """

    async def main() -> Verdict:
        from service.ledger.audit import Head, verify

        expected = None
        if expect:
            if (told := re.fullmatch(r"(\d{1,18}):([0-9a-f]{64})", expect)) is None:
                raise console.bad_input("--expect", f"must be a number, a colon and a digest of 64 characters; got {expect[:32]!r}")
            expected = Head(int(told[1]), told[2])
        async with state.database(folder, url) as database:
            return await database.run(partial(verify, expected=expected), write=False)

    verdict = console.run(main)
    for problem in verdict.problems:
        console.note(problem)
    if verdict.problems:
        console.note(f"error: the audit log of {verdict.entries} entries is not as it was written")
        raise typer.Exit(console.EXIT_FAILED)
    head = "" if verdict.head is None else f"; the newest is {verdict.head.seq}:{verdict.head.digest}"
    print(f"{verdict.entries} entries are as they were written{head}")


def line(entry: dict[str, Any]) -> str:
    """An entry for a person."""
    at = datetime.fromtimestamp(entry["at"], UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    who = entry["subject"] or "nobody in particular"
    parts = [at, entry["outcome"], entry["operation"], entry["resource"], f"by {who}", f"for {entry['tenant']}" if entry["tenant"] else ""]
    parts += [f"from {entry['address']}" if entry["address"] else "", entry["reason"] and f"({entry['reason']})"]
    return "  ".join(part for part in parts if part)
