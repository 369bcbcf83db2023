"""`headrace keys` and `headrace tenants`, on a database that no server uses."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.cli import app, state
from headrace.cli.console import EXIT_BAD_INPUT, EXIT_FAILED, Failure, conclude
from service.identity import table
from service.identity.keys import KeyRecord, Keyring, Master, parsed
from tests.documents import ROOT, named_by
from tests.identities import MASTER, sqlite

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(name="run")
def _run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on the state folder; gives its exit code, stdout and stderr."""
    monkeypatch.setenv("HEADRACE_MASTER_SECRET", MASTER)

    def run(*words: str) -> tuple[int, str, str]:
        code = conclude(lambda: app([*words, "--state", str(tmp_path)], standalone_mode=False))
        return code, *capsys.readouterr()

    return run


def created(run: Run, *words: str) -> dict[str, Any]:
    code, out, err = run("keys", "create", "--tenant", "studio", "--json", *words)
    assert (code, err.strip()) == (0, "Keep these now: they are stored nowhere, and nothing shows them again.")
    made: dict[str, Any] = json.loads(out)
    return made


def listed(run: Run) -> list[dict[str, Any]]:
    code, out, _ = run("keys", "list", "--json")
    assert code == 0
    return [json.loads(line) for line in out.splitlines()]


def test_a_key_that_was_made_here_is_one_that_a_front_door_takes(run: Run, tmp_path: Path) -> None:
    async def read() -> KeyRecord | None:
        async with sqlite(tmp_path) as database:
            return await database.run(lambda connection: table.find(connection, made["id"]), write=False)

    made = created(run, "--name", "laptop", "--models", "a, b", "--buckets", "results", "--expires", "90d")
    key, ring = parsed(made["key"]), Keyring(Master(MASTER))
    assert key is not None
    record = asyncio.run(read())
    assert record is not None
    assert ring.matches(record, key, record.created_at)
    assert ring.signing_secrets(record, record.created_at) == (made["secret_access_key"],)
    assert (record.tenant, record.name, record.models, record.buckets) == (
        "studio",
        "laptop",
        frozenset({"a", "b"}),
        frozenset({"results"}),
    )
    assert record.expires_at == pytest.approx(record.created_at + 90 * 86_400)
    assert made["access_key_id"] == made["id"]


def test_a_secret_is_shown_once_and_in_no_list(run: Run) -> None:
    code, out, _ = run("keys", "create", "--tenant", "studio", "--name", "laptop")
    assert code == 0
    shown = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert set(shown) == {"id", "key", "access_key_id", "secret_access_key"}
    code, out, err = run("keys", "list")
    assert code == 0
    assert re.match(rf"{shown['id']}  active  studio  laptop  all models  created \d{{4}}-", out)
    for planted in (shown["key"][-43:], shown["secret_access_key"], MASTER):
        assert planted not in out + err + json.dumps(listed(run))


def test_a_rotation_shows_a_new_secret_and_says_until_when_both_count(run: Run) -> None:
    first = created(run)
    code, out, _ = run("keys", "rotate", first["id"], "--overlap", "2h", "--json")
    second = json.loads(out)
    assert (code, second["id"], second["access_key_id"]) == (0, first["id"], first["access_key_id"])
    assert second["key"] != first["key"]
    assert second["secret_access_key"] != first["secret_access_key"]
    [facts] = listed(run)
    assert (facts["version"], facts["status"]) == (2, "active")
    assert facts["overlaps_until"] is not None
    run("keys", "rotate", first["id"], "--overlap", "0")
    assert listed(run)[0]["overlaps_until"] is None


def test_a_revoked_key_is_listed_as_that_and_cannot_be_rotated(run: Run) -> None:
    made = created(run)
    code, out, _ = run("keys", "revoke", made["id"])
    assert (code, out.startswith(f"{made['id']} of tenant studio is revoked since ")) == (0, True)
    assert listed(run)[0]["status"] == "revoked"
    code, _, err = run("keys", "rotate", made["id"])
    assert (code, "which was revoked or has expired" in err) == (EXIT_BAD_INPUT, True)


def test_changes_are_in_the_audit_log_and_their_secrets_are_not(run: Run) -> None:
    made = created(run)
    run("keys", "rotate", made["id"])
    run("keys", "revoke", made["id"])
    code, out, _ = run("audit", "list", "--json")
    entries = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert sorted(entry["operation"] for entry in entries) == ["key.create", "key.revoke", "key.rotate"]
    assert {(entry["resource"], entry["tenant"]) for entry in entries} == {(made["id"], "studio")}
    assert made["key"][-43:] not in out
    assert run("audit", "verify")[0] == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("create", "--tenant", "a b"), "--tenant: must be 1 to 64 letters, digits, dots, underscores and hyphens; got 'a b'"),
        (("create", "--tenant", "a", "--expires", "soon"), "--expires: must be a date, a time, or a span such as 12h or 90d; got 'soon'"),
        (("create", "--tenant", "a", "--expires", "2020-01-01"), "expires: must be in the future; got -"),
        (("create", "--tenant", "a", "--master-variable", "NONE"), "NONE is not set"),
        (("create",), "Missing option '--tenant'"),
        (("rotate", "nobodys"), "ID: must be of a key that exists; got 'nobodys'"),
        (("rotate", "x", "--overlap", "long"), "--overlap: must be a span such as 30m, 12h or 90d, at most 36500d; got 'long'"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(run: Run, words: tuple[str, ...], told: str) -> None:
    created(run)
    code, out, err = run("keys", *words)
    assert (code, out) == (EXIT_BAD_INPUT, "")
    assert told in err
    assert len(err.splitlines()) == 1


def test_a_key_that_does_not_exist_cannot_be_revoked(run: Run) -> None:
    created(run)
    assert run("keys", "revoke", "nobodys") == (EXIT_FAILED, "", "error: no key has the id 'nobodys'\n")


def test_a_key_of_another_master_secret_is_not_rotated(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made = created(run)
    monkeypatch.setenv("OTHER", MASTER + "!")
    code, _, err = run("keys", "rotate", made["id"], "--master-variable", "OTHER")
    assert (code, "must name the secret that the key was made with" in err) == (EXIT_BAD_INPUT, True)
    assert listed(run)[0]["version"] == 1


def test_a_short_master_secret_is_refused_and_not_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_MASTER_SECRET", "planted")
    code, _, err = run("keys", "create", "--tenant", "studio")
    assert (code, "must have at least 32 characters; got 7" in err, "planted" in err) == (EXIT_BAD_INPUT, True, False)


def test_limits_of_tenants_are_set_one_by_one(run: Run) -> None:
    code, out, _ = run("tenants", "set", "studio", "--parallel-sessions", "4", "--budget-seconds", "3600.5")
    assert (code, out) == (0, "studio  parallel sessions 4, budget seconds 3600.5, 0 s spent\n")
    code, out, _ = run("tenants", "set", "studio", "--parallel-sessions", "none", "--requests-per-minute", "60", "--reset-spent")
    assert (code, out) == (0, "studio  requests per minute 60, budget seconds 3600.5, 0 s spent\n")
    code, out, _ = run("tenants", "list", "--json")
    assert json.loads(out) == {
        "tenant": "studio", "requests_per_minute": 60, "parallel_sessions": None, "queued_jobs": None, "budget_seconds": 3600.5,
        "spent_seconds": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--parallel-sessions", "0", "must be a whole number from 1 to 1000000000, or none; got '0'"),
        ("--queued-jobs", "1.5", "must be a whole number from 1"),
        ("--budget-seconds", "-1", "must be a number from 0"),
        ("--budget-seconds", "nan", "must be a number from 0"),
        ("--requests-per-minute", "many", "must be a whole number from 1"),
    ],
)
def test_a_limit_that_is_none_is_refused(run: Run, option: str, value: str, told: str) -> None:
    code, out, err = run("tenants", "set", "studio", f"{option}={value}")
    assert (code, out) == (EXIT_BAD_INPUT, "")
    assert f"{option}: {told}" in err


def test_the_commands_of_the_page_work(run: Run) -> None:
    made = created(run)
    mine = "tests/unit/headrace/test_cli_keys.py::test_the_commands_of_the_page_work"
    lines = [line for block in named_by(mine, [ROOT / "docs" / "keys.md"]) for line in block.text.splitlines()]
    commands = [line for line in lines if line.startswith("headrace ")]
    assert [line for line in lines if line not in commands] == ["export HEADRACE_MASTER_SECRET=$(openssl rand -hex 32)"]
    assert len(commands) == 7
    for command in commands:
        code, _, err = run(*shlex.split(command.replace(" ID", f" {made['id']}"))[1:])
        assert code == 0, f"{command}: {err}"


def test_a_servers_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    folder = state.own(tmp_path / "a" / "b")
    assert [path.stat().st_mode & 0o777 for path in (folder, folder / state.ARTIFACTS)] == [0o700, 0o700]
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Failure, match=r"--state: must be a folder that can be made and written to; got .*file"):
        state.own(tmp_path / "file")
