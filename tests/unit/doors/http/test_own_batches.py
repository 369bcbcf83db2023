"""Batches of our own API over a desk that remembers what it was given."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import pytest

from service.identity.principal import Principal
from service.intake import Intake
from service.jobs.desk.batches import Batch
from service.jobs.job import JobNotFound, JobStatus, NewJob
from tests.http_served import http_serving
from tests.unit.doors.http.fake_jobs import FakeJobDesk

ROWS: list[dict[str, Any]] = [{"prompt": "a red circle"}, {"prompt": "a blue square", "seconds": 2, "labels": {"a": "b"}}]
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)


class Desk(FakeJobDesk):
    """See `service.jobs.desk.interface.BatchDesk`."""

    def __init__(self, intake: Intake, folder: Path) -> None:
        super().__init__(intake, folder)
        self.rows: list[NewJob] = []
        self.keys: list[str] = []

    async def submit_batch(self, principal: Principal, rows: Sequence[NewJob], idempotency_key: str = "") -> str:
        self.rows, self.keys = list(rows), [*self.keys, idempotency_key]
        return "b1"

    async def batch(self, principal: Principal, batch_id: str) -> Batch:
        if batch_id != "b1":
            raise JobNotFound(f"there is no batch {batch_id}")
        return Batch("b1", 1.0, {JobStatus.QUEUED: len(self.rows)})

    async def manifest(self, principal: Principal, batch_id: str) -> AsyncGenerator[str, None]:
        for number in range(250):
            yield json.dumps({"row": number, "id": f"j{number}"})


@pytest.mark.parametrize("as_form", [False, True])
async def test_a_batch_is_made_watched_and_accounted_for(as_form: bool, tmp_path: Path) -> None:
    async with http_serving(jobs=lambda intake: Desk(intake, tmp_path)) as served:
        body: dict[str, Any] = {"files": {"file": ("rows.jsonl", LINES)}} if as_form else {"content": LINES}
        made = await served.client.post("/v1/batches", headers={"idempotency-key": "k"}, **body)
        assert made.status_code == 201, made.text
        batch = made.json()
        assert (batch["id"], batch["status"], batch["total"], batch["counts"]) == ("batch_b1", "running", 2, {"queued": 2})
        assert (await served.client.get(f"/v1/batches/{batch['id']}")).json() == batch
        manifest = await served.client.get(f"/v1/batches/{batch['id']}/manifest")
        rows = [json.loads(line) for line in manifest.text.splitlines()]
        assert rows == [{"row": number, "id": f"job_j{number}"} for number in range(250)]
        for path in ("", "/manifest"):
            assert (await served.client.get(f"/v1/batches/batch_other{path}")).status_code == 404


@pytest.mark.parametrize(
    ("lines", "field"),
    [(b"", "rows"), (b"{}x", "rows[0]"), (LINES + b'{"prompt": 5}', "rows[2].prompt"), (b'{"colour": 1}', "rows[0].colour")],
)
async def test_a_wrong_row_is_named(lines: bytes, field: str, tmp_path: Path) -> None:
    async with http_serving(jobs=lambda intake: Desk(intake, tmp_path)) as served:
        answer = await served.client.post("/v1/batches", content=lines)
        assert answer.status_code == 400
        assert field in [each["field"] for each in answer.json()["error"]["violations"]]


async def test_without_a_database_there_are_no_batches() -> None:
    async with http_serving() as served:
        for method, path in (("POST", ""), ("GET", "/batch_a"), ("GET", "/batch_a/manifest")):
            assert (await served.client.request(method, f"/v1/batches{path}")).status_code == 501
