"""Jobs as rows of the table, and rows as jobs. Pure. Fields that a newer version added to the JSON are passed over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from model_core.enhancement import Enhancement
from model_core.errors import FieldViolation
from model_core.quality.values import Quality, quality_of
from service.database.schema import JOBS
from service.events import Usage
from service.jobs.job import Destination, Job, JobError, JobStatus, Presentation, Tier, Webhook
from service.jobs.work import Checkpoint, ClaimedJob, UploadRef
from service.orders import Doorway, Mode, VideoRequest

T = TypeVar("T")

# What of a request the worker needs and no other column has. The prompt, the model and the length are columns of their own.
_REQUESTED = ("guidance", "negative_prompt")
# A Job has all of these. What only workers and the sweep read stays where it is.
JOB_COLUMNS = tuple(
    JOBS.c[name]
    for name in (
        "id", "tenant", "door", "status", "tier", "created_at", "updated_at", "started_at", "ended_at", "expires_at", "model", "prompt",
        "seconds", "seed", "steps", "width", "height", "fps", "shown", "labels", "frames_done", "frames_total", "cancelling", "error",
        "size_bytes", "sha256", "usage", "quality", "attempts", "parent", "maker", "batch", "batch_row", "destination",
    )
)  # fmt: skip
# Every write that changes any of `JOB_COLUMNS` changes one of these, too.
VERSION_COLUMNS = tuple(JOBS.c[name] for name in ("updated_at", "status", "attempts", "frames_done", "cancelling"))
CLAIM_COLUMNS = (*JOB_COLUMNS, *(JOBS.c[name] for name in ("fence", "lease_until", "request", "checkpoint", "webhook", "lost")))


def job_of(row: Any) -> Job:
    """The job of a row that has `JOB_COLUMNS`."""
    return Job(
        id=row.id, tenant=row.tenant, door=row.door, status=JobStatus(row.status), tier=Tier(row.tier), created_at=row.created_at,
        updated_at=row.updated_at, started_at=row.started_at, ended_at=row.ended_at, expires_at=row.expires_at, model=row.model,
        prompt=row.prompt, seconds=row.seconds, seed=int(row.seed), steps=row.steps, width=row.width, height=row.height, fps=row.fps,
        shown=_object(row.shown), labels=_object(row.labels), frames_done=row.frames_done, frames_total=row.frames_total,
        cancelling=row.cancelling, error=_error(row.error), size_bytes=row.size_bytes, sha256=row.sha256, usage=_maybe(Usage, row.usage),
        quality=_quality(row.quality), attempts=row.attempts, parent=row.parent, maker=row.maker, batch=row.batch or "",
        batch_row=row.batch_row, destination=_maybe(Destination, row.destination),
    )  # fmt: skip


def version_of(job: Job) -> tuple[float, str, int, int, bool]:
    """What `VERSION_COLUMNS` had when the job was read."""
    return job.updated_at, job.status.value, job.attempts, job.frames_done, job.cancelling


def claimed_of(row: Any) -> ClaimedJob:
    """The claim of a row that has `CLAIM_COLUMNS`. Raises ValueError, TypeError or KeyError: another program wrote the row."""
    job, asked = job_of(row), _object(row.request)
    request = VideoRequest(
        prompt=job.prompt, model=job.model, seconds=asked["seconds"], seed=job.seed, steps=job.steps,
        later_prompts=tuple((float(seconds), prompt) for seconds, prompt in asked["later_prompts"]),
        **{name: asked[name] for name in _REQUESTED},
        enhance=Enhancement(*asked.get("enhance", (1, 1))),  # jobs of the version before have none
    )  # fmt: skip
    doorway = Doorway(Mode.JOB, asked["prefix"], asked["names"])
    checkpoint = _object(row.checkpoint)
    return ClaimedJob(
        job=job, fence=row.fence, lease_until=row.lease_until, request=request, doorway=doorway,
        presentation=Presentation(*asked["presentation"]), upload=UploadRef(*asked["upload"]) if asked["upload"] else None,
        webhook=webhook_of(row),
        checkpoint=Checkpoint(tuple(checkpoint["parts"]), checkpoint["record"], checkpoint["next_frame"]) if checkpoint else None,
    )  # fmt: skip


def webhook_of(row: Any) -> Webhook | None:
    """Of a row that has the column `webhook`."""
    return _maybe(Webhook, row.webhook)


def request_text(request: VideoRequest, doorway: Doorway, presentation: Presentation, upload: UploadRef | None) -> str:
    """What `claimed_of` reads, besides the columns that every job has. `request` is checked and complete."""
    asked: dict[str, Any] = {name: getattr(request, name) for name in _REQUESTED}
    asked |= {"seconds": request.seconds, "prefix": doorway.prefix, "names": dict(doorway.names)}
    asked |= {"presentation": [presentation.width, presentation.height], "later_prompts": [list(later) for later in request.later_prompts]}
    asked |= {"enhance": [request.enhance.frames, request.enhance.size]}
    return as_text(asked | {"upload": None if upload is None else [upload.kind, upload.key]})


def usage_text(usage: Usage) -> str:
    return as_text(_shallow(usage))


def quality_text(quality: Quality | None) -> str | None:
    return None if quality is None else as_text(quality.as_json())


def error_text(error: JobError) -> str:
    violations = [[violation.field, violation.description] for violation in error.violations]
    return as_text({"code": error.code, "message": error.message, "violations": violations})


def checkpoint_text(checkpoint: Checkpoint) -> str:
    return as_text(_shallow(checkpoint))


def maybe_text(value: Destination | Webhook | None) -> str | None:
    return None if value is None else as_text(_shallow(value))


def as_text(value: Mapping[str, Any]) -> str:
    """JSON in ASCII, so that any string that JSON can have is text that a database can have."""
    return json.dumps(value, separators=(",", ":"), default=dict)  # a mapping that is no dict


def _shallow(value: Usage | Checkpoint | Destination | Webhook) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _object(text: str | None) -> dict[str, Any]:
    if not text or text == "{}":
        return {}
    read: dict[str, Any] = json.loads(text)
    return read


def _maybe(kind: type[T], text: str | None) -> T | None:
    if not text:
        return None
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # all of them are dataclasses
    return kind(**{name: value for name, value in json.loads(text).items() if name in known})


def _quality(text: str | None) -> Quality | None:
    return quality_of(json.loads(text)) if text else None


def _error(text: str | None) -> JobError | None:
    if not text:
        return None
    read = json.loads(text)
    return JobError(read["code"], read["message"], tuple(FieldViolation(*violation) for violation in read["violations"]))
