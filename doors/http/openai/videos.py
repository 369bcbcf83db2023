"""Jobs as OpenAI's clients see them: videos with four statuses. Pure."""

from __future__ import annotations

import re
from typing import Any

from model_core.config import ModelConfig
from service.jobs.job import Job, JobNotFound, JobPage, JobStatus

PREFIX = "video_"
# Names in `Job.shown`, where this door keeps what it wants back.
MODEL, SIZE, SECONDS, PROMPT, REFERENCE, LATER, GUIDANCE, NEGATIVE = (
    "model", "size", "seconds", "prompt", "reference", "later_prompts", "guidance", "negative_prompt",
)  # fmt: skip

_ID = re.compile(rf"{PREFIX}([a-z0-9]{{1,64}})")
# Clients keep the pace of their first answer until the video is done: a quarter of its length, within these bounds.
_POLL_MS_A_SECOND, _MIN_POLL_MS, _MAX_POLL_MS = 250, 500, 5000


def video_id(job_id: str) -> str:
    return PREFIX + job_id


def job_id(video: str) -> str:
    """Raises JobNotFound: that is no id of a video."""
    match = _ID.fullmatch(video)
    if match is None:
        raise JobNotFound("there is no such video")
    return match[1]


def poll_after_ms(job: Job) -> int:
    """How long a client should wait from one look at the job to the next."""
    return max(_MIN_POLL_MS, min(_MAX_POLL_MS, round(_POLL_MS_A_SECOND * job.seconds)))


def video(job: Job, config: ModelConfig | None) -> dict[str, Any]:
    """The object that all calls answer with.

    Args:
        config: of the job's model; None if it is not served any more.
    """
    status = _status(job)
    completed = status == "completed"
    return {
        "id": video_id(job.id),
        "object": "video",
        "created_at": int(job.created_at),
        "completed_at": int(job.ended_at) if completed and job.ended_at is not None else None,
        "expires_at": None if job.expires_at is None else int(job.expires_at),
        "model": job.shown.get(MODEL) or job.model,
        "status": status,
        "progress": 100 if completed else int(100 * job.progress),
        "prompt": job.shown.get(PROMPT) or job.prompt,
        "seconds": job.shown.get(SECONDS) or f"{job.seconds:g}",
        "size": job.shown.get(SIZE) or f"{job.width}x{job.height}",
        "remixed_from_video_id": video_id(job.parent) if job.parent else None,
        "error": _error(job) if status == "failed" else None,
        "usage": _usage(job, config),
    }


def page(found: JobPage, shown: list[dict[str, Any]]) -> dict[str, Any]:
    """A page of a list, whose videos are `shown`."""
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": found.more,
    }


def webhook_event(job: Job) -> dict[str, Any]:
    """What the caller's webhook is told of a job that is over. It is the same however often it is sent."""
    kind = "completed" if job.status is JobStatus.COMPLETED else "failed"
    return {
        "id": f"evt_{job.id}_{kind}",
        "object": "event",
        "created_at": int(job.updated_at if job.ended_at is None else job.ended_at),
        "type": f"video.{kind}",
        "data": {"id": video_id(job.id)},
    }


def _status(job: Job) -> str:
    """One of the four that clients know. What has expired was completed, or was not."""
    match job.status:
        case JobStatus.QUEUED:
            return "queued"
        case JobStatus.RUNNING:
            return "in_progress"
        case JobStatus.COMPLETED:
            return "completed"
        case JobStatus.EXPIRED:
            return "completed" if job.sha256 else "failed"
        case JobStatus.FAILED | JobStatus.CANCELLED:
            return "failed"


def _error(job: Job) -> dict[str, Any]:
    if job.error is not None:
        param = job.error.violations[0].field if job.error.violations else None
        return {"code": job.error.code, "message": job.error.message, "param": param}
    code = "cancelled" if job.status is JobStatus.CANCELLED else "expired"
    return {"code": code, "message": f"the video was {code}" if code == "cancelled" else "the video has expired", "param": None}


def _usage(job: Job, config: ModelConfig | None) -> dict[str, Any] | None:
    """What was made, and to which size the file scales it."""
    used = job.usage
    if used is None:
        return None
    rendered = None if config is None else (config.width, config.height)
    return {
        "video_seconds": used.video_s,
        "frames": used.frames,
        "steps_per_chunk": job.steps,
        "rendered": {"model": job.model, "size": _size(rendered), "fps": used.fps},
        "scaled_to": None if rendered in (None, (job.width, job.height)) else _size((job.width, job.height)),
        "text_seconds": used.text_s,
        "denoise_seconds": used.denoise_s,
        "decode_seconds": used.decode_s,
    }


def _size(size: tuple[int, int] | None) -> str | None:
    return None if size is None else f"{size[0]}x{size[1]}"
