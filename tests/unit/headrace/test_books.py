"""`headrace usage` and `headrace audit`, as a person runs them, over a database of a server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, update
from typer.testing import CliRunner, Result

from headrace.cli import app, state
from headrace.cli.console import Failure
from service.database.engine import Database
from service.database.schema import AUDIT
from service.identity.principal import Means, Principal
from service.ledger.audit import AuditTable
from service.ledger.interface import AuditEntry, Kind, Outcome, UsageRow
from service.ledger.table import LedgerTable

NOW = time.time()
ROW = UsageRow(
    source="s1", tenant="acme", door="grpc", model="m", tier="live", kind=Kind.SESSION, started_at=NOW - 60, frames=240,
    video_seconds=10.0, pixels=2_000_000, steps=80, denoise_seconds=4.0, decode_seconds=2.0,
)  # fmt: skip
ENTRY = AuditEntry(operation="job.submit", principal=Principal(tenant="acme", subject="k1", means=Means.KEY), resource="j1", at=NOW - 60)
RUNNER = CliRunner()


def within(folder: Path, work: Callable[[Connection], object]) -> None:
    """Run `work` in the database of the server whose folder this is."""

    async def main() -> None:
        database = await Database.open(f"sqlite:///{folder / state.DATABASE_FILE}")
        await database.run(work)
        await database.close()

    asyncio.run(main())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [ROW, replace(ROW, source="s2", tenant="other", door="triton", started_at=NOW - 10 * 86_400)]
    entries = [ENTRY, replace(ENTRY, operation="authenticate", outcome=Outcome.DENIED, reason="no such key", at=NOW)]
    within(tmp_path, lambda connection: LedgerTable().write(connection, rows, NOW))
    within(tmp_path, lambda connection: AuditTable().append(connection, entries))
    return tmp_path


def headrace(folder: Path, *arguments: str) -> Result:
    return RUNNER.invoke(app, [*arguments, "--state", str(folder)])


def test_usage_is_a_table_with_a_sum(folder: Path) -> None:
    found = headrace(folder, "usage", "--by", "tenant")
    assert found.exit_code == 0, found.output
    head, acme, other, total = found.stdout.splitlines()
    assert head.split() == ["tenant", "frames", "video", "s", "megapixels", "steps", "text", "s", "denoise", "s", "decode", "s"]
    assert acme.split() == ["acme", "240", "10.0", "2.0", "80", "0.0", "4.0", "2.0"]
    assert other.split()[0] == "other"
    assert total.split()[:2] == ["total", "480"]


def test_usage_can_be_read_by_a_program(folder: Path) -> None:
    report = json.loads(headrace(folder, "usage", "--by", "door", "--since", "24h", "--json").stdout)
    assert report["by"] == "door"
    (only,) = report["usage"]
    assert (only["door"], only["frames"], only["pixels"], only["denoise_seconds"]) == ("grpc", 240, 2_000_000, 4.0)
    assert json.loads(headrace(folder, "usage", "--tenant", "nobody", "--json").stdout)["usage"] == []


def test_no_usage_is_an_empty_table(folder: Path) -> None:
    head, total = headrace(folder, "usage", "--tenant", "nobody").stdout.splitlines()
    assert head.startswith("tenant")
    assert total.split()[:2] == ["total", "0"]


def test_the_audit_log_is_listed(folder: Path) -> None:
    first, second = headrace(folder, "audit", "list").stdout.splitlines()
    assert first.endswith("allowed  job.submit  j1  by k1  for acme")
    assert second.endswith("(no such key)")
    (entry,) = [json.loads(line) for line in headrace(folder, "audit", "list", "--outcome", "denied", "--json").stdout.splitlines()]
    assert (entry["operation"], entry["reason"], entry["seq"]) == ("authenticate", "no such key", 2)


def test_a_sound_audit_log_is_verified_and_a_changed_one_is_not(folder: Path) -> None:
    sound = headrace(folder, "audit", "verify")
    assert sound.exit_code == 0, sound.output
    noted = sound.stdout.split()[-1]
    assert noted.startswith("2:")
    assert headrace(folder, "audit", "verify", "--expect", noted).exit_code == 0
    missing = headrace(folder, "audit", "verify", "--expect", f"3:{'0' * 64}")
    assert (missing.exit_code, "entry 3 with digest" in missing.stderr) == (1, True)
    within(folder, lambda connection: connection.execute(update(AUDIT).where(AUDIT.c.seq == 1).values(resource="j2")))
    changed = headrace(folder, "audit", "verify")
    assert changed.exit_code == 1
    assert "entry 1 is not as it was written" in changed.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("usage", "--by", "colour"), "--by: must be one of tenant, model, door, day; got 'colour'"),
        (("usage", "--since", "yesterday"), "--since: must be a date, a time, or a span"),
        (("audit", "list", "--limit", "0"), "--limit: must be from 1 to 100000; got 0"),
        (("audit", "verify", "--expect", "7"), "--expect: must be a number, a colon and a digest"),
    ],
)
def test_bad_options_are_named(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    found = headrace(folder, *arguments)
    assert found.exit_code == 2
    assert said in found.stderr


def test_a_folder_without_a_database_is_no_servers(tmp_path: Path) -> None:
    found = headrace(tmp_path, "usage")
    assert found.exit_code == 2
    assert "--state: must be the folder of a server that has a database" in found.stderr
    assert list(tmp_path.iterdir()) == []


def test_moments() -> None:
    assert state.moment("--since", "", 1000.0) is None
    assert state.moment("--since", "90m", 10_000.0) == 4600.0
    assert state.moment("--since", "1970-01-02", 0.0) == 86_400.0
    assert state.moment("--since", "1970-01-01T01:00:00+01:00", 9.0) == 0.0
    with pytest.raises(Failure, match="must be a date"):
        state.moment("--since", "7w", 0.0)
