"""`headrace keys`: API keys, made, listed, rotated and revoked in the server's database. The server need not run."""

from __future__ import annotations

import getpass
import json
import os
import re
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import console, state

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from service.identity.keys import KeyRecord, Keyring, NewSecret

MASTER_VARIABLE = "HEADRACE_MASTER_SECRET"

Master = Annotated[
    str, typer.Option("--master-variable", metavar="NAME", help="Environment variable with the master secret that the front doors have.")
]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="As `headrace keys list` shows it.", show_default=False)]

_SPAN = re.compile(r"(\d{1,6})([mhd])")
_UNITS_S = {"m": 60.0, "h": 3600.0, "d": 86_400.0}
_MAX_SPAN_S = 100 * 365 * 86_400.0
_SHOWN_ONCE = "Keep these now: they are stored nowhere, and nothing shows them again."


def create(
    tenant: Annotated[str, typer.Option("--tenant", metavar="NAME", help="Whose limits, usage and jobs are used.", show_default=False)],
    name: Annotated[str, typer.Option("--name", metavar="TEXT", help="What the key is for, for people.")] = "",
    models: Annotated[str, typer.Option("--models", metavar="NAME,...", help="Only these models. [default: all]")] = "",
    buckets: Annotated[str, typer.Option("--buckets", metavar="NAME,...", help="S3 buckets that results may be written to.")] = "",
    expires: Annotated[str, typer.Option("--expires", metavar="WHEN", help="A date, or a span such as 12h or 90d. [default: never]")] = "",
    master: Master = MASTER_VARIABLE,
    folder: state.State = state.DEFAULT_STATE,
    url: state.DatabaseUrl = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Make an API key, and the SigV4 pair of the same key. They are shown once."""

    async def main() -> NewSecret:
        from service.identity import table
        from service.identity.peers import is_tenant

        if not is_tenant(tenant):
            raise console.bad_input("--tenant", f"must be 1 to 64 letters, digits, dots, underscores and hyphens; got {tenant[:64]!r}")
        now = time.time()
        secret = _ring(master).new()
        facts: dict[str, Any] = {
            "tenant": tenant, "name": name, "models": _names(models) or None, "buckets": _names(buckets),
            "expires_at": moment("--expires", expires, now),
        }  # fmt: skip

        def work(connection: Connection) -> None:
            table.create(connection, secret, now, **facts)
            _noted(connection, "key.create", secret.id, tenant, now)

        async with state.database(folder, url, make=True) as database:
            await database.run(work)
        return secret

    _show_secret(console.run(main), as_json)


def listing(
    tenant: Annotated[str, typer.Option("--tenant", metavar="NAME", help="Only this tenant's.")] = "",
    folder: state.State = state.DEFAULT_STATE,
    url: state.DatabaseUrl = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line on stdout.")] = False,
) -> None:
    """List the keys, without their secrets."""

    async def main() -> list[KeyRecord]:
        from service.identity import table

        async with state.database(folder, url) as database:
            return await database.run(partial(table.listed, tenant=tenant), write=False)

    now = time.time()
    for record in console.run(main):
        facts = described(record, now)
        print(json.dumps(facts) if as_json else _line(facts))


def revoke(
    key_id: KeyId,
    folder: state.State = state.DEFAULT_STATE,
    url: state.DatabaseUrl = "",
) -> None:
    """End a key for good. Front doors refuse it within `identity.cache_seconds`; sessions that run go on."""

    async def main() -> KeyRecord:
        from service.identity import table

        now = time.time()

        def work(connection: Connection) -> KeyRecord:
            record = table.revoke(connection, key_id, now)
            _noted(connection, "key.revoke", record.id, record.tenant, now)
            return record

        async with state.database(folder, url) as database:
            return await database.run(work)

    record = console.run(main)
    print(f"{record.id} of tenant {record.tenant} is revoked since {_time(record.revoked_at)}")


def rotate(
    key_id: KeyId,
    overlap: Annotated[str, typer.Option("--overlap", metavar="SPAN", help="How long the present secret still counts.")] = "24h",
    master: Master = MASTER_VARIABLE,
    folder: state.State = state.DEFAULT_STATE,
    url: state.DatabaseUrl = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Give a key a new secret, and a new SigV4 pair. They are shown once. The present ones count for a while longer."""

    async def main() -> NewSecret:
        from service.identity import table

        now, ring = time.time(), _ring(master)
        overlap_s = span("--overlap", overlap)
        async with state.database(folder, url) as database:
            record = await database.run(lambda connection: table.find(connection, key_id), write=False)
            if record is None:
                raise console.bad_input("ID", f"must be of a key that exists; got {key_id[:64]!r}")
            if not ring.made(key_id):
                raise console.bad_input("--master-variable", f"must name the secret that the key was made with; {master} is another one")
            version = record.version + 1
            secret, tenant = ring.renewed(key_id, version), record.tenant

            def work(connection: Connection) -> None:
                table.rotate(connection, secret, version, now, overlap_s)
                _noted(connection, "key.rotate", key_id, tenant, now)

            await database.run(work)
        return secret

    _show_secret(console.run(main), as_json)


def described(record: KeyRecord, now: float) -> dict[str, Any]:
    """A key as plain values, without what is stored of its secret."""
    status = "revoked" if record.revoked_at is not None else "active" if record.usable(now) else "expired"
    return {
        "id": record.id, "key": f"{record.prefix}_…", "tenant": record.tenant, "name": record.name, "status": status,
        "models": None if record.models is None else sorted(record.models), "buckets": sorted(record.buckets), "version": record.version,
        "overlaps_until": _time(record.previous_until) if record.overlaps(now) else None, "created": _time(record.created_at),
        "expires": _time(record.expires_at), "revoked": _time(record.revoked_at), "last_used": _time(record.last_used_at),
    }  # fmt: skip


def moment(option: str, told: str, now: float) -> float | None:
    """Unix time of a date, a time of ISO 8601 (UTC, where it does not say), or a span from `now` on; None for nothing.

    Raises:
        Failure: it is none of these.
    """
    if not told:
        return None
    if _SPAN.fullmatch(told) is not None:
        return now + span(option, told)
    try:
        at = datetime.fromisoformat(told)
    except ValueError:
        raise console.bad_input(option, f"must be a date, a time, or a span such as 12h or 90d; got {told[:32]!r}") from None
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


def span(option: str, told: str) -> float:
    """Seconds of 30m, 12h or 90d. Raises Failure: it is no such span."""
    found = _SPAN.fullmatch(told)
    seconds = 0.0 if told == "0" else -1.0 if found is None else int(found[1]) * _UNITS_S[found[2]]
    if not 0 <= seconds <= _MAX_SPAN_S:
        raise console.bad_input(option, f"must be a span such as 30m, 12h or 90d, at most 36500d; got {told[:32]!r}")
    return seconds


def _ring(variable: str) -> Keyring:
    """Raises Failure: the environment has no master secret, or one that is too short."""
    from service.identity.keys import MIN_MASTER_CHARS, Keyring, Master

    secret = os.environ.get(variable)
    if not secret:
        hint = f"must name a variable of the environment with the front doors' master secret, {MIN_MASTER_CHARS} characters or more"
        raise console.bad_input("--master-variable", f"{hint}; {variable} is not set")
    try:
        return Keyring(Master(secret))
    except ValueError as error:
        raise console.bad_input("--master-variable", f"{variable} {error}") from None


def _noted(connection: Connection, operation: str, resource: str, tenant: str, now: float) -> None:
    """In the audit log, in the same transaction: there is no change without its entry."""
    from service.identity.principal import Principal
    from service.ledger.audit import AuditTable
    from service.ledger.interface import AuditEntry

    operator = Principal(tenant=tenant, subject=f"operator:{getpass.getuser()}")
    AuditTable().append(connection, [AuditEntry(operation=operation, principal=operator, resource=resource, at=now)])


def _show_secret(secret: NewSecret, as_json: bool) -> None:
    console.note(_SHOWN_ONCE)
    facts = {"id": secret.id, "key": secret.key, "access_key_id": secret.access_key, "secret_access_key": secret.secret_key}
    if as_json:
        print(json.dumps(facts))
        return
    for label, value in facts.items():
        print(f"{label:<20}{value}")


def _names(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]


def _line(facts: dict[str, Any]) -> str:
    models = "all models" if facts["models"] is None else ", ".join(facts["models"]) or "no model"
    parts = [facts["id"], facts["status"], facts["tenant"], facts["name"], models, f"created {facts['created']}"]
    parts += [f"{word} {facts[word]}" for word in ("expires", "revoked", "last_used") if facts[word]]
    return "  ".join(part for part in parts if part).replace("last_used", "last used")


def _time(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
