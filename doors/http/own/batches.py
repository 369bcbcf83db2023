"""Batches of our own API: many jobs out of one file of lines, `/v1/batches`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from starlette.responses import JSONResponse, Response

from doors.http.own.jobs import DOOR, MAX_KEY_CHARS
from doors.http.own.jobs import PREFIX as JOB_PREFIX
from doors.http.pushed import PushedResponse, Write
from doors.http.room import Endpoint, HttpRequest, Services
from model_core.errors import FieldViolation, InvalidRequest
from model_core.tasks import run_in_thread
from service.failures import NotServed
from service.jobs.desk.batches import MAX_BYTES, Batch, read_rows
from service.jobs.desk.interface import BatchDesk
from service.jobs.job import JobStatus

PREFIX = "batch_"
MEDIA_TYPE = "application/jsonl"

_MULTIPART = "multipart/form-data"
_LINES = 100  # of a manifest, at a time


class Batches:
    """The handlers.

    Args:
        services: what they work with.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    def endpoints(self) -> Sequence[Endpoint]:
        one = f"/v1/batches/{PREFIX}{{id}}"
        return (
            Endpoint(path="/v1/batches", method="POST", operation="create_batch", handler=self.create),
            Endpoint(path=one, method="GET", operation="get_batch", handler=self.get),
            Endpoint(path=f"{one}/manifest", method="GET", operation="get_manifest", handler=self.manifest),
        )

    async def create(self, request: HttpRequest) -> Response:
        """The body is a line of JSON for each job, or a form with such a file."""
        desk = self._desk()
        key = request.raw.headers.get("idempotency-key", "")
        if len(key) > MAX_KEY_CHARS:
            raise InvalidRequest((FieldViolation("Idempotency-Key", f"must have at most {MAX_KEY_CHARS} characters; got {len(key)}"),))
        rows = await run_in_thread(read_rows, await _lines(request), DOOR)
        batch_id = await desk.submit_batch(request.principal, rows, key)
        batch = await desk.batch(request.principal, batch_id)
        return JSONResponse(described(batch), 201, {"location": f"{request.base_url}/v1/batches/{PREFIX}{batch_id}"})

    async def get(self, request: HttpRequest) -> Response:
        return JSONResponse(described(await self._desk().batch(request.principal, _id(request))))

    async def manifest(self, request: HttpRequest) -> Response:
        """What became of each row, a line each."""
        desk, batch_id = self._desk(), _id(request)
        await desk.batch(request.principal, batch_id)  # which says so where there is none

        async def produce(write: Write) -> None:
            lines: list[str] = []
            async with aclosing(desk.manifest(request.principal, batch_id)) as made:
                async for line in made:
                    lines.append(_shown(line))
                    if len(lines) == _LINES:
                        await write("".join(f"{each}\n" for each in lines).encode())
                        lines = []
            await write("".join(f"{each}\n" for each in lines).encode())

        return PushedResponse(produce, MEDIA_TYPE)

    def _desk(self) -> BatchDesk:
        if self._services.batches is None:
            raise NotServed("this server has no database, and so no jobs")
        return self._services.batches


def described(batch: Batch) -> dict[str, Any]:
    """As our API shows it."""
    counts = {status.value: batch.counts[status] for status in JobStatus if batch.counts.get(status)}
    return {
        "id": f"{PREFIX}{batch.id}", "object": "batch", "status": "completed" if batch.over else "running", "created_at": batch.created_at,
        "total": batch.total, "counts": counts,
    }  # fmt: skip


def _shown(line: str) -> str:
    """A line of the manifest, with the job's id as our API has it."""
    row = json.loads(line)
    return json.dumps(row | {"id": f"{JOB_PREFIX}{row['id']}"})


async def _lines(request: HttpRequest) -> bytes:
    if request.raw.headers.get("content-type", "").partition(";")[0].strip().lower() != _MULTIPART:
        return await request.body(MAX_BYTES)
    files = (await request.form(MAX_BYTES + 64 * 1024)).files.get("file", [])
    if len(files) != 1:
        raise InvalidRequest((FieldViolation("file", f"must be one file of lines of JSON; got {len(files)}"),))
    return await files[0].read()


def _id(request: HttpRequest) -> str:
    found: str = request.raw.path_params["id"]
    return found
