"""Runway's API: tasks that make a video of a text, an image or a video."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from starlette.responses import JSONResponse, Response

from doors.http.given import idempotency_key
from doors.http.room import Endpoint, HttpRequest, Services
from doors.http.runway import tasks
from doors.http.runway.requests import DOOR, VERSION, VERSION_HEADER, Task, new_job
from service.checks import Problems
from service.failures import Failure, Kind
from service.jobs.job import JobNotFound, JobStatus

_STATUSES = {
    Kind.INVALID: 400,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.NOT_READY: 404,
    Kind.CONFLICT: 409,
    Kind.TOO_LARGE: 413,
    Kind.BUSY: 429,
    Kind.QUOTA: 429,
    Kind.UNAVAILABLE: 503,
    Kind.STALLED: 408,
    Kind.NOT_SERVED: 501,
    Kind.INTERNAL: 500,
}


class RunwayRoom:
    """See `doors.http.room.Room`."""

    name = DOOR

    def __init__(self, services: Services) -> None:
        self._services = services

    def endpoints(self) -> Sequence[Endpoint]:
        creates = [
            Endpoint(path=f"/v1/{task.value}", method="POST", operation=task.value, handler=partial(self._create, task)) for task in Task
        ]
        return [
            *creates,
            Endpoint(path="/v1/tasks/{id}", method="GET", operation="get_task", handler=self._get),
            Endpoint(path="/v1/tasks/{id}", method="DELETE", operation="delete_task", handler=self._delete),
        ]

    async def _create(self, task: Task, request: HttpRequest) -> Response:
        desk, problems = self._services.desk(), Problems()
        _check_version(request, problems)
        key = idempotency_key(request.raw, problems)
        new = await new_job(task, await request.json(), key, problems, self._services.intake)
        return JSONResponse(tasks.created(await desk.submit(request.principal, new)))

    async def _get(self, request: HttpRequest) -> Response:
        desk, job_id = self._services.desk(), request.raw.path_params["id"]
        job = await desk.get(request.principal, job_id)
        output = ""
        if job.status is JobStatus.EXPIRED:
            raise JobNotFound(f"task {job_id} has expired")
        if job.status is JobStatus.COMPLETED:
            content = await desk.content(request.principal, job_id)
            output = content.url or f"{request.base_url}{content.link}"
        # Its asynchronous client raises an error for a cancelled task; the other one waits for another status until its time is over.
        waits = request.raw.headers.get("x-stainless-async", "") == "false"
        return JSONResponse(tasks.task(job, output, waits_for_cancelled=waits))

    async def _delete(self, request: HttpRequest) -> Response:
        """Cancels a task that is not over, and removes one that is. Either way it is not found any more."""
        await self._services.desk().delete(request.principal, request.raw.path_params["id"])
        return Response(status_code=204)

    def refuse(self, failure: Failure) -> Response:
        answer: dict[str, Any] = {"error": failure.message}
        if failure.violations:
            issues = [{"code": "custom", "path": _path(v.field), "message": f"{v.field}: {v.description}"} for v in failure.violations]
            answer = {"error": "Validation of body failed", "issues": issues}
        # Its client tries 408, 409, 429 and everything from 500 on again, unless it is told not to.
        after = failure.retry_after_s
        headers = {"x-should-retry": "false"} if after is None else {"retry-after": str(max(1, math.ceil(after)))}
        return JSONResponse(answer, _STATUSES[failure.kind], headers)


def _check_version(request: HttpRequest, problems: Problems) -> None:
    version = request.raw.headers.get(VERSION_HEADER, VERSION)
    if version != VERSION:
        problems.add(VERSION_HEADER, f"must be {VERSION}, or unset; got {version[:64]!a}")


def _path(field: str) -> list[str | int]:
    """`promptImage[0].uri` as Runway has it: names, and places in lists."""
    return [int(part) if part.isdecimal() else part for part in re.findall(r"[^.\[\]]+", field)]
