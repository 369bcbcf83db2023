"""Decart's queue of jobs, and its client tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from starlette.responses import JSONResponse, Response

from doors.http.contents import content_response
from doors.http.decart.requests import DOOR, new_job, token_request
from doors.http.given import idempotency_key
from doors.http.room import Endpoint, HttpRequest, Services
from doors.http.times import iso
from service.checks import Problems
from service.failures import Failure, Kind, NotServed
from service.jobs.job import Job, JobNotFound, JobStatus

_STATUSES = {
    Kind.INVALID: 400,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.NOT_READY: 409,
    Kind.CONFLICT: 409,
    Kind.TOO_LARGE: 413,
    Kind.BUSY: 429,
    Kind.QUOTA: 429,
    Kind.UNAVAILABLE: 503,
    Kind.STALLED: 408,
    Kind.NOT_SERVED: 501,
    Kind.INTERNAL: 500,
}
# Its client knows these four words and takes no other.
_WORDS = {
    JobStatus.QUEUED: "pending",
    JobStatus.RUNNING: "processing",
    JobStatus.COMPLETED: "completed",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "failed",
}


class DecartRoom:
    """See `doors.http.room.Room`."""

    name = DOOR

    def __init__(self, services: Services) -> None:
        self._services = services

    def endpoints(self) -> Sequence[Endpoint]:
        return [
            Endpoint(path="/v1/jobs/{model}", method="POST", operation="create_job", handler=self._create),
            Endpoint(path="/v1/jobs/{id}", method="GET", operation="get_job", handler=self._get),
            Endpoint(path="/v1/jobs/{id}/content", method="GET", operation="get_content", handler=self._content),
            Endpoint(path="/v1/client/tokens", method="POST", operation="create_token", handler=self._token),
            Endpoint(path="/v1/generate/{model}", method="POST", operation="generate", handler=self._generate),
        ]

    async def _create(self, request: HttpRequest) -> Response:
        desk, problems = self._services.desk(), Problems()
        key = idempotency_key(request.raw, problems)
        new = await new_job(request.raw.path_params["model"], await request.form(), key, problems, self._services.intake)
        return JSONResponse(_shown(await desk.submit(request.principal, new)))

    async def _get(self, request: HttpRequest) -> Response:
        return JSONResponse(_shown(await self._job(request)))

    async def _content(self, request: HttpRequest) -> Response:
        job = await self._job(request)
        return await content_response(await self._services.desk().content(request.principal, job.id), f"{job.id}.mp4")

    async def _job(self, request: HttpRequest) -> Job:
        job = await self._services.desk().get(request.principal, request.raw.path_params["id"])
        if job.status is JobStatus.EXPIRED:
            raise JobNotFound(f"job {job.id} has expired")
        return job

    async def _token(self, request: HttpRequest) -> Response:
        asked = token_request(await request.json(), self._services.intake)
        token, expires = await self._services.authority.client_token(
            request.principal, seconds=asked.seconds, models=asked.models, max_seconds=asked.max_seconds, origin=asked.origin
        )
        answer: dict[str, Any] = {"apiKey": token, "token": token, "expiresAt": iso(expires)}
        permissions = {"models": asked.models, "origins": (asked.origin,) if asked.origin else None}
        if known := {name: list(value) for name, value in permissions.items() if value}:
            answer["permissions"] = known
        if asked.max_seconds is not None:
            answer["constraints"] = {"realtime": {"maxSessionDuration": int(asked.max_seconds)}}
        return JSONResponse(answer, headers={"cache-control": "no-store"})

    async def _generate(self, request: HttpRequest) -> Response:
        served = ", ".join(sorted(self._services.intake.catalogue.models))
        model = request.raw.path_params["model"][:64]
        raise NotServed(
            f"model: must make images here; got {model!a}, and this server makes videos alone, with {served}, at /v1/jobs/MODEL"
        )

    def refuse(self, failure: Failure) -> Response:
        error: dict[str, Any] = {"code": failure.kind.value, "message": failure.message}
        if failure.violations:
            error["violations"] = [{"field": v.field, "message": v.description} for v in failure.violations]
        headers = {} if failure.retry_after_s is None else {"retry-after": str(max(1, math.ceil(failure.retry_after_s)))}
        return JSONResponse({"error": error}, _STATUSES[failure.kind], headers)


def _shown(job: Job) -> dict[str, Any]:
    """What the client reads, and what it leaves: progress, why a job failed, and what was rendered."""
    shown: dict[str, Any] = {"job_id": job.id, "status": _WORDS[job.status], "progress": round(job.progress, 4)}
    if job.status is JobStatus.CANCELLED:
        shown["error"] = {"code": "cancelled", "message": "the job was cancelled"}
    elif job.error is not None:
        shown["error"] = {"code": job.error.code, "message": job.error.message}
    if job.usage is not None:
        rendered = {"model": job.model, "frames": job.usage.frames, "video_seconds": job.usage.video_s, "steps": job.steps}
        shown["usage"] = {**rendered, "file_width": job.width, "file_height": job.height}
    return shown
