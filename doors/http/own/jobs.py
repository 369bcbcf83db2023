"""Jobs of our own API: `/v1/jobs`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.responses import JSONResponse, Response

from doors.http.contents import content_response
from doors.http.given import shown
from doors.http.own.bodies import asked
from doors.http.own.formats import usage_fields
from doors.http.own.schemas import JobBody
from doors.http.polled import Polled
from doors.http.room import Endpoint, HttpRequest, Services
from service.checks import Problems
from service.jobs.job import Destination, Job, JobQuery, JobStatus, NewJob, Presentation, Tier, Variant, Webhook
from service.orders import Doorway, Mode, VideoRequest

DOOR = "own"
PREFIX = "job_"
MOST_LISTED = 1000

MAX_KEY_CHARS = 256
_STATUSES = tuple(status.value for status in JobStatus)
_VARIANTS = tuple(variant.value for variant in Variant)
_TIERS = {"priority": Tier.PRIORITY, "default": Tier.DEFAULT, "flex": Tier.FLEX}
_DOORWAY = Doorway(Mode.JOB)


class Jobs:
    """The handlers.

    Args:
        services: what they work with.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._polled = Polled(lambda job: JSONResponse(described(job)))

    def endpoints(self) -> Sequence[Endpoint]:
        # The prefix of an id stands in the path: others have paths of this shape, with ids of another.
        one = f"/v1/jobs/{PREFIX}{{id}}"
        return (
            Endpoint(path="/v1/jobs", method="POST", operation="create_job", handler=self.create),
            Endpoint(path="/v1/jobs", method="GET", operation="list_jobs", handler=self.list),
            Endpoint(path=one, method="GET", operation="get_job", handler=self.get),
            Endpoint(path=one, method="DELETE", operation="delete_job", handler=self.delete),
            Endpoint(path=f"{one}/cancel", method="POST", operation="cancel_job", handler=self.cancel),
            Endpoint(path=f"{one}/content", method="GET", operation="get_content", handler=self.content),
        )

    async def create(self, request: HttpRequest) -> Response:
        desk, problems = self._services.desk(), Problems()
        body, footage = await asked(request, JobBody, problems)
        key = request.raw.headers.get("idempotency-key", "")
        if len(key) > MAX_KEY_CHARS:
            problems.add("Idempotency-Key", f"must have at most {MAX_KEY_CHARS} characters; got {len(key)}")
        self._services.intake.validator.presentation(body.width, body.height, _DOORWAY, problems)
        problems.check()
        video = VideoRequest(
            prompt=body.prompt, model=body.model, seconds=body.seconds, seed=body.seed, steps=body.steps, guidance=body.guidance,
            negative_prompt=body.negative_prompt, footage=footage, enhance=body.enhancement,
        )  # fmt: skip
        webhook = None if body.webhook is None else Webhook(body.webhook.url, body.webhook.secret, body.webhook.metadata)
        new = NewJob(
            door=DOOR, request=video, doorway=_DOORWAY, presentation=Presentation(body.width, body.height), idempotency_key=key,
            labels=body.labels, webhook=webhook, tier=_TIERS[body.tier], ttl_s=body.ttl_seconds,
            destination=None if body.destination is None else Destination(body.destination.uri, body.destination.owner),
        )  # fmt: skip
        job = await desk.submit(request.principal, new)
        return JSONResponse(described(job), 201, {"location": f"{request.base_url}/v1/jobs/{PREFIX}{job.id}"})

    async def list(self, request: HttpRequest) -> Response:
        desk, problems, query = self._services.desk(), Problems(), request.raw.query_params
        limit = _whole(query.get("limit", "20"), problems)
        ascending = _choice("order", query.get("order", "desc"), ("asc", "desc"), problems) == "asc"
        statuses = frozenset(JobStatus(value) for value in query.getlist("status") if _choice("status", value, _STATUSES, problems))
        after = query.get("after", "")
        problems.check()
        page = await desk.list(
            request.principal,
            JobQuery(
                after=_bare(after), limit=limit, ascending=ascending, statuses=statuses, door=DOOR, batch=query.get("batch", "")
            ),
        )  # fmt: skip
        data = [described(job) for job in page.jobs]
        return JSONResponse(
            {
                "object": "list", "data": data, "has_more": page.more,
                "first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None,
            }
        )  # fmt: skip

    async def get(self, request: HttpRequest) -> Response:
        return self._polled.answer(await self._services.desk().get(request.principal, _id(request)))

    async def cancel(self, request: HttpRequest) -> Response:
        return JSONResponse(described(await self._services.desk().cancel(request.principal, _id(request))))

    async def delete(self, request: HttpRequest) -> Response:
        job_id = _id(request)
        await self._services.desk().delete(request.principal, job_id)
        return JSONResponse({"id": f"{PREFIX}{job_id}", "object": "job.deleted", "deleted": True})

    async def content(self, request: HttpRequest) -> Response:
        """The file, or a part of it; or the way to a store that serves it."""
        problems = Problems()
        variant = _choice("variant", request.raw.query_params.get("variant", "video"), _VARIANTS, problems)
        problems.check()
        job_id, wanted = _id(request), Variant(variant)
        content = await self._services.desk().content(request.principal, job_id, wanted)
        kind = "" if wanted is Variant.VIDEO else f"-{wanted.value}"
        return await content_response(content, f"{PREFIX}{job_id}{kind}{_ending(content.media_type)}")


def described(job: Job) -> dict[str, Any]:
    """As our API shows it. Times are Unix seconds."""
    error: dict[str, Any] | None = None
    if job.error is not None:
        error = {"code": job.error.code, "message": job.error.message}
        if job.error.violations:
            error["violations"] = [{"field": v.field, "description": v.description} for v in job.error.violations]
    return {
        "id": f"{PREFIX}{job.id}", "object": "job", "status": job.status.value, "progress": round(job.progress, 4),
        "created_at": job.created_at, "updated_at": job.updated_at, "started_at": job.started_at, "ended_at": job.ended_at,
        "expires_at": job.expires_at, "model": job.model, "prompt": job.prompt, "seconds": job.seconds, "seed": job.seed,
        "steps": job.steps, "width": job.width, "height": job.height, "fps": job.fps, "frames_done": job.frames_done,
        "frames_total": job.frames_total, "cancelling": job.cancelling, "error": error, "size_bytes": job.size_bytes,
        "sha256": job.sha256, "attempts": job.attempts, "tier": job.tier.name.lower(), "labels": dict(job.labels), "batch": job.batch,
        "usage": None if job.usage is None else {**usage_fields(job.usage), "text_seconds": job.usage.text_s},
        "quality": None if job.quality is None else job.quality.as_json(),
    }  # fmt: skip


def webhook_event(job: Job) -> dict[str, Any]:
    """What the caller's webhook is told of a job that is over."""
    ended_at = job.updated_at if job.ended_at is None else job.ended_at
    error = None if job.error is None else job.error.code
    data = {"id": f"{PREFIX}{job.id}", "status": job.status.value, "error": error}
    return {"type": f"job.{job.status.value}", "timestamp": ended_at, "data": data}


def _id(request: HttpRequest) -> str:
    found: str = request.raw.path_params["id"]
    return found


def _bare(job_id: str) -> str:
    return job_id.removeprefix(PREFIX)


def _whole(text: str, problems: Problems) -> int:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0
    if not 1 <= number <= MOST_LISTED:
        problems.add("limit", f"must be a whole number from 1 to {MOST_LISTED}; got {shown(text)}")
    return number


def _choice(name: str, value: str, among: Sequence[str], problems: Problems) -> str:
    if value in among:
        return value
    problems.add(name, f"must be one of {', '.join(among)}; got {shown(value)}")
    return ""


def _ending(media_type: str) -> str:
    return {"video/mp4": ".mp4", "image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp"}.get(media_type, "")
