"""Usage as CloudEvents: delivered when it has settled, at least once, each with a name of its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection

from observability.metrics import Metrics
from service.database.engine import Database
from service.ledger.events import BATCH_TYPE, FolderSink, HttpSink, UsageExporter, cloud_event
from service.ledger.interface import Kind, UsageRow
from service.ledger.table import LedgerTable, Resumed
from tests.fakes import ManualClock, eventually

JOB = UsageRow(
    source="j1", interval=0, tenant="acme", door="openai", model="m", tier="default", kind=Kind.JOB, leg=0.0, started_at=1_700_000_000.5,
    frames=100, video_seconds=10.0, pixels=2400, steps=80, text_seconds=0.5, denoise_seconds=4.0, decode_seconds=2.0,
)  # fmt: skip
SESSION = replace(JOB, source="s1", kind=Kind.SESSION, leg=1.0, interval=1440, door="grpc", tier="live")


class FakeSink:
    """A list that can be told to refuse."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.refuses = False

    def deliver(self, events: Sequence[dict[str, Any]]) -> None:
        if self.refuses:
            raise OSError("told to fail")
        self.events += events


class Exporting:
    """An exporter at a time that a test sets."""

    def __init__(self, database: Database, sink: FakeSink | None = None) -> None:
        self.database = database
        self.table = LedgerTable(events=True, settle_s=100.0)
        self.sink = sink or FakeSink()
        self.now = 0.0
        self.registry = CollectorRegistry()
        self.clock = ManualClock()
        self.exporter = UsageExporter(database, self.table, self.sink, Metrics(self.registry), self.clock, lambda: self.now)

    async def write(self, *rows: UsageRow) -> None:
        def work(connection: Connection) -> None:
            self.table.write(connection, rows, self.now)

        await self.database.run(work)


async def test_a_job_is_reported_at_once_and_a_session_when_it_has_settled(database: Database) -> None:
    here = Exporting(database)
    await here.write(JOB, SESSION)
    assert await here.exporter.deliver() == 1
    here.now = 50.0
    await here.write(replace(SESSION, frames=120))
    here.now = 149.0
    assert await here.exporter.deliver() == 0
    here.now = 150.0
    assert await here.exporter.deliver() == 1
    assert await here.exporter.deliver() == 0
    assert [(event["id"], event["data"]["frames"]) for event in here.sink.events] == [("j1/0", 100), ("s1/1440", 120)]


async def test_what_a_resume_cuts_before_it_has_settled_is_reported_cut(database: Database) -> None:
    here = Exporting(database)
    await here.write(replace(SESSION, interval=0), replace(SESSION, interval=100))
    await here.database.run(partial(here.table.resumed, legs=[Resumed("s1", 60, 2.0)], now=0.0))
    here.now = 200.0
    assert await here.exporter.deliver() == 1
    assert [(event["id"], event["data"]["frames"]) for event in here.sink.events] == [("s1/0", 60)]


async def test_what_cannot_be_delivered_is_tried_again_later_and_later(database: Database) -> None:
    here = Exporting(database)
    await here.write(JOB)
    here.sink.refuses = True
    for now in (0.0, 9.0, 10.0, 29.0):
        here.now = now
        assert await here.exporter.deliver() == 0
    assert here.registry.get_sample_value("headrace_ledger_errors_total", {"book": "events"}) == 2
    here.sink.refuses = False
    here.now = 30.0
    assert await here.exporter.deliver() == 1


async def test_what_was_taken_by_one_that_died_is_delivered_by_another(database: Database) -> None:
    from service.ledger.events import _take

    here = Exporting(database)
    await here.write(JOB)
    assert len(await database.run(partial(_take, 0.0))) == 1  # and nothing more is heard of it
    here.now = 59.0
    assert await here.exporter.deliver() == 0
    here.now = 60.0
    assert await here.exporter.deliver() == 1


async def test_a_late_write_does_not_report_a_row_again(database: Database) -> None:
    here = Exporting(database)
    await here.write(JOB)
    assert await here.exporter.deliver() == 1
    await here.write(JOB)
    here.now = 1000.0
    assert await here.exporter.deliver() == 0


async def test_it_runs_by_itself_and_ends(database: Database) -> None:
    here = Exporting(database)
    await here.write(JOB)
    here.exporter.start()
    await eventually(lambda: len(here.sink.events) == 1)
    await here.exporter.aclose()


def test_an_event_has_what_cloudevents_asks_for_and_numbers_with_units() -> None:
    event = cloud_event(JOB)
    assert {name: event[name] for name in ("specversion", "id", "source", "type", "subject", "time", "datacontenttype")} == {
        "specversion": "1.0", "id": "j1/0", "source": "/headrace/ledger", "type": "headrace.video.generated", "subject": "acme",
        "time": "2023-11-14T22:13:20.500000Z", "datacontenttype": "application/json",
    }  # fmt: skip
    assert event["data"] == {
        "kind": "job", "job": "j1", "first_frame": 0, "tenant": "acme", "door": "openai", "model": "m", "tier": "default", "frames": 100,
        "video_seconds": 10.0, "pixels": 2400, "denoise_steps": 80, "text_seconds": 0.5, "denoise_seconds": 4.0, "decode_seconds": 2.0,
    }  # fmt: skip
    assert json.loads(json.dumps(event)) == event


def test_a_folder_has_a_file_a_day_and_writer(tmp_path: Path) -> None:
    times = [0.0, 0.0, 86_400.0]
    sink = FolderSink(tmp_path / "events", "front-1", lambda: times.pop(0))
    for _ in range(3):
        sink.deliver([cloud_event(JOB), cloud_event(SESSION)])
    lines = {file.name: file.read_text().splitlines() for file in (tmp_path / "events").iterdir()}
    assert {name: len(text) for name, text in lines.items()} == {"usage-1970-01-01-front-1.jsonl": 4, "usage-1970-01-02-front-1.jsonl": 2}
    assert json.loads(lines["usage-1970-01-02-front-1.jsonl"][0]) == cloud_event(JOB)


@dataclass
class Receiver:
    """An HTTP server that answers as it is told."""

    url: str = ""
    status: int = 202
    posts: list[tuple[str, str, Any]] = field(default_factory=list)


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.posts.append((self.headers["Content-Type"], self.headers.get("Authorization", ""), json.loads(body)))
            self.send_response(receiver.status)
            self.send_header("Content-Length", "0")
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}/events"
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_events_are_posted_as_a_batch() -> None:
    with receiving() as receiver:
        HttpSink(receiver.url, {"Authorization": "Bearer abc"}).deliver([cloud_event(JOB), cloud_event(SESSION)])
    assert receiver.posts == [(BATCH_TYPE, "Bearer abc", [cloud_event(JOB), cloud_event(SESSION)])]


@pytest.mark.parametrize("status", [302, 307, 400, 503])
def test_any_other_answer_means_that_they_come_again(status: int) -> None:
    with receiving() as receiver:
        receiver.status = status
        with pytest.raises(OSError, match=f"answered {status}"):
            HttpSink(receiver.url).deliver([cloud_event(JOB)])
    assert len(receiver.posts) == 1


def test_nobody_there_means_that_they_come_again() -> None:
    with receiving() as receiver:
        url = receiver.url
    with pytest.raises(OSError, match="refused"):
        HttpSink(url).deliver([cloud_event(JOB)])
