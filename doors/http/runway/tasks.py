"""Jobs as Runway's tasks."""

from __future__ import annotations

import math
from typing import Any

from doors.http.times import iso
from service.jobs.job import Job, JobError, JobStatus

# Runway's codes go from the general to the special. Its clients are told to try again after INTERNAL alone.
_FAILURES = {
    "invalid": "INPUT_PREPROCESSING.INVALID",
    "unavailable": "INTERNAL",
    "too_large": "INTERNAL.BAD_OUTPUT",
    "destination": "INTERNAL",
    "internal": "INTERNAL",
}
_NOTHING = {"credits": 0}
_UNKNOWN = JobError("internal", "the task failed")


def cost(job: Job) -> dict[str, int]:
    """What a task costs: a credit for each second of video, or part of one."""
    return {"credits": math.ceil(job.seconds)}


def created(job: Job) -> dict[str, Any]:
    """The answer to a new task."""
    return {"id": job.id, "estimatedCost": cost(job)}


def task(job: Job, output: str, *, waits_for_cancelled: bool) -> dict[str, Any]:
    """A task as it is now.

    Args:
        output: where the file of a completed job can be fetched without a key.
        waits_for_cancelled: the caller does not know that a cancelled task is over.
    """
    shown: dict[str, Any] = {"id": job.id, "createdAt": iso(job.created_at)}
    match job.status:
        case JobStatus.QUEUED:
            return {**shown, "status": "PENDING"}
        case JobStatus.RUNNING:
            return {**shown, "status": "RUNNING", "progress": round(job.progress, 4)}
        case JobStatus.COMPLETED:
            return {**shown, "status": "SUCCEEDED", "output": [output], "cost": cost(job), **_made(job)}
        case JobStatus.CANCELLED if not waits_for_cancelled:
            return {**shown, "status": "CANCELLED", "cost": _NOTHING}
        case JobStatus.CANCELLED:
            return {**shown, "status": "FAILED", "failure": "The task was cancelled.", "failureCode": "CANCELLED", "cost": _NOTHING}
    error = job.error or _UNKNOWN
    code = _FAILURES.get(error.code, "INTERNAL")
    return {**shown, "status": "FAILED", "failure": error.message, "failureCode": code, "cost": _NOTHING}


def _made(job: Job) -> dict[str, Any]:
    """What was rendered, beside the file's size; the client passes unknown members on."""
    usage = job.usage
    if usage is None:
        return {}
    rendered = {"model": job.model, "frames": usage.frames, "videoSeconds": usage.video_s, "steps": job.steps}
    return {"usage": {**rendered, "fileWidth": job.width, "fileHeight": job.height}}
