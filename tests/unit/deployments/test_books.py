"""The ledger of a front door as its settings have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from deployments.config.application import AppConfig
from deployments.config.explained import warnings
from deployments.config.usage import UsageSettings
from deployments.replicas.books import books
from observability.metrics import Metrics
from service.clock import MonotonicClock
from service.database.engine import Database
from service.identity.principal import Principal
from service.ledger.audit import AuditQuery, entries
from service.ledger.interface import AuditEntry, Kind, NoAudit, NoLedger, UsageRow
from service.ledger.table import totals
from tests.fakes import eventually

ROW = UsageRow(
    source="j1", tenant="acme", door="grpc", model="m", tier="default", kind=Kind.JOB, started_at=0.0, frames=10, video_seconds=1.0,
    pixels=1, steps=1,
)  # fmt: skip


def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


async def test_a_server_without_a_database_keeps_no_books() -> None:
    made = books(AppConfig(usage=UsageSettings(events="folder", folder="/nowhere")), None, metrics(), MonotonicClock())
    assert isinstance(made.ledger, NoLedger)
    assert isinstance(made.audit, NoAudit)
    made.ledger.record(ROW)
    made.audit.note(AuditEntry(operation="session"))
    made.start()
    await made.aclose()


async def test_what_is_written_is_there_when_the_books_are_closed_and_its_event_is_in_the_folder(tmp_path: Path) -> None:
    config = AppConfig(usage=UsageSettings(events="folder", folder=str(tmp_path / "events"), write_seconds=0.01))
    database = await Database.open(f"sqlite:///{tmp_path}/headrace.db")
    made = books(config, database, metrics(), MonotonicClock())
    made.start()
    made.ledger.record(ROW)
    made.audit.note(AuditEntry(operation="session"))
    await database.run(lambda connection: made.append(connection, Principal(tenant="acme"), "job.submit", "j1"))
    await eventually(lambda: bool(list(tmp_path.glob("events/*.jsonl"))))
    await made.aclose()
    (total,) = await database.run(lambda connection: totals(connection, "tenant"), write=False)
    assert (total.key, total.sums["frames"]) == ("acme", 10)
    told = await database.run(lambda connection: entries(connection, AuditQuery()), write=False)
    assert sorted(entry["operation"] for entry in told) == ["job.submit", "session"]
    await database.close()


async def test_the_token_of_a_receiver_comes_from_the_environment(tmp_path: Path) -> None:
    config = AppConfig(usage=UsageSettings(events="http", url="https://billing.example.com/events", token_variable="BILLING"))  # noqa: S106 - a variable's name
    database = await Database.open(f"sqlite:///{tmp_path}/headrace.db")
    with pytest.raises(ValueError, match=r"usage\.token_variable must name a variable of the front doors' environment; BILLING is not set"):
        books(config, database, metrics(), MonotonicClock(), environment={})
    made = books(config, database, metrics(), MonotonicClock(), environment={"BILLING": "secret-token"})
    assert "secret-token" not in repr(vars(made))
    await database.close()


def test_events_without_a_database_are_a_warning() -> None:
    config = AppConfig(usage=UsageSettings(events="folder", folder="/var/usage"))
    assert [told for told in warnings(config, []) if "usage.events" in told]
    assert not [told for told in warnings(AppConfig(), []) if "usage" in told]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"events": "folder"}, "folder must be given with events folder; got ''"),
        ({"events": "http"}, "url must be given with events http; got ''"),
        ({"events": "http", "url": "http:///path"}, "url must name a host"),
        ({"write_seconds": 0}, "greater than 0"),
        ({"every": 1}, "every"),
    ],
)
def test_settings_that_report_to_nobody_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        UsageSettings(**settings)
