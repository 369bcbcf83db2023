"""Jobs and files, as Amazon Bedrock's operations answer with them. Pure."""

from __future__ import annotations

import base64
import json
from typing import Any

from doors.http.bedrock import aws
from doors.http.times import iso
from service.jobs.files import bedrock_layout
from service.jobs.job import Job, JobPage, JobStatus
from service.sessions.file import VideoFile

_CANCELLED = "the invocation was cancelled"


def invocation(job: Job, arns: aws.Arns) -> dict[str, Any]:
    """What GetAsyncInvoke answers, and each summary of a list."""
    status = _status(job)
    document: dict[str, Any] = {
        "invocationArn": arns.invocation(job.id),
        "modelArn": arns.model(str(job.shown.get("model") or job.model)),
        "clientRequestToken": job.shown.get("token") or None,
        "status": status,
        "failureMessage": _why(job) if status == "Failed" else None,
        "submitTime": iso(job.created_at),
        "lastModifiedTime": iso(job.updated_at),
        "endTime": None if job.ended_at is None else iso(job.ended_at),
        "outputDataConfig": _output(job),
    }
    return {name: value for name, value in document.items() if value is not None}


def page(found: JobPage, arns: aws.Arns) -> dict[str, Any]:
    """What ListAsyncInvokes answers. The token for the next page is the last job of this one."""
    document: dict[str, Any] = {"asyncInvokeSummaries": [invocation(job, arns) for job in found.jobs]}
    if found.more and found.jobs:
        document["nextToken"] = found.jobs[-1].id
    return document


def file(made: VideoFile) -> bytes:
    """What InvokeModel answers in JSON."""
    started, usage = made.started, made.ended.usage
    document = {
        "video": base64.b64encode(made.mp4).decode(),
        "seed": started.seed,
        "usage": {
            "videoSeconds": usage.video_s, "frames": usage.frames, "width": started.width, "height": started.height, "fps": started.fps,
            "steps": started.steps,
        },
    }  # fmt: skip
    return json.dumps(document).encode()


def _status(job: Job) -> str:
    match job.status:
        case JobStatus.QUEUED | JobStatus.RUNNING:
            return "InProgress"
        case JobStatus.COMPLETED:
            return "Completed"
        case JobStatus.FAILED | JobStatus.CANCELLED:
            return "Failed"
        case JobStatus.EXPIRED:  # this server's copy is gone; the caller's is not
            return "Completed" if job.size_bytes else "Failed"


def _why(job: Job) -> str:
    return job.error.message if job.error is not None else _CANCELLED


def _output(job: Job) -> dict[str, Any]:
    if job.destination is None:
        return {}
    target = {"s3Uri": bedrock_layout.folder(job.destination, job.id)}
    if job.destination.owner:
        target["bucketOwner"] = job.destination.owner
    return {"s3OutputDataConfig": target}
