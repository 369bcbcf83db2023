"""Interactions as answers: whole, and as the events of a stream."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

from doors.http.google.shapes import error
from doors.http.times import iso
from service.events import Ended, EndReason, Event, Frames, QueuePosition, Started, Usage
from service.failures import failure_of
from service.jobs.job import Job, JobError, JobNotFound, JobStatus

MEDIA_TYPE = "text/event-stream"

# Programs poll while the status is this one, so a job that waits has it too.
_IN_PROGRESS = "in_progress"
_STATUSES = {
    JobStatus.QUEUED: _IN_PROGRESS,
    JobStatus.RUNNING: _IN_PROGRESS,
    JobStatus.COMPLETED: "completed",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "cancelled",
}
_VIDEO = {"type": "video", "mime_type": "video/mp4"}
# Clients hold a whole event, and may hold it several times over while they read it.
_MAX_DELTA_BYTES = 48 * 1024


def interaction(job: Job, video: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A job as an interaction.

    Args:
        video: of a completed one: its `data` or its `uri`.
    """
    if job.status is JobStatus.EXPIRED:
        raise JobNotFound(f"interaction {job.id} has expired")
    shown: dict[str, Any] = {
        "id": job.id, "object": "interaction", "model": job.shown.get("model", job.model), "status": _STATUSES[job.status],
        "created": iso(job.created_at), "updated": iso(job.updated_at), "steps": [],
    }  # fmt: skip
    if video is not None:
        shown["steps"] = [{"type": "model_output", "content": [{**_VIDEO, **video}]}]
    if job.status is JobStatus.FAILED:
        failed = job.error or JobError("internal", "the interaction failed")
        shown["errors"] = [{"code": failed.code, "message": failed.message}]
    if job.labels:
        shown["labels"] = dict(job.labels)
    if job.usage is not None:
        shown["usage"] = _usage(job.usage) | {"steps": job.steps, "file_width": job.width, "file_height": job.height}
    return shown


def inline(mp4: bytes) -> dict[str, str]:
    return {"data": base64.b64encode(mp4).decode()}


class StreamedInteraction:
    """The events of one session, as they are sent.

    Args:
        interaction_id: of the session, which is gone when the stream is over.
        model: as the caller named it.
        created: Unix time.
    """

    def __init__(self, interaction_id: str, model: str, created: float, request_id: str) -> None:
        self._shown = {"id": interaction_id, "object": "interaction", "model": model, "created": iso(created)}
        self._request_id = request_id
        self._created = False

    def encode(self, event: Event) -> bytes:
        """See `doors.http.streaming.Encode`."""
        match event:
            case QueuePosition(position=position):
                return self._begin() + f": place {position} in line\n\n".encode()
            case Started(codec_header=header):
                step = {"index": 0, "step": {"type": "model_output", "content": []}}
                return self._begin() + _event("step.start", step) + _deltas(header)
            case Frames(chunk=chunk):
                return _deltas(b"".join(chunk.data))
            case Ended(reason=reason, usage=usage):
                status = "completed" if reason is EndReason.COMPLETED else "incomplete"
                over = {"interaction": {**self._shown, "status": status, "usage": _usage(usage)}}
                return _event("step.stop", {"index": 0}) + _event("interaction.completed", over) + b"event: done\ndata: [DONE]\n\n"
        return b""

    def failed(self, failure: Exception) -> bytes:
        """The last event of a stream that breaks off."""
        shown = error(failure_of(failure, self._request_id))
        return _event("error", {"error": {"code": shown["status"].lower(), "message": shown["message"]}})

    def _begin(self) -> bytes:
        if self._created:
            return b""
        self._created = True
        return _event("interaction.created", {"interaction": {**self._shown, "status": _IN_PROGRESS}})


def _deltas(media: bytes) -> bytes:
    return b"".join(_event("step.delta", {"index": 0, "delta": {**_VIDEO, **inline(part)}}) for part in _parts(media))


def _parts(media: bytes) -> Iterator[bytes]:
    for begin in range(0, len(media), _MAX_DELTA_BYTES):
        yield media[begin : begin + _MAX_DELTA_BYTES]


def _event(kind: str, members: Mapping[str, Any]) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'event_type': kind, **members})}\n\n".encode()


def _usage(usage: Usage) -> dict[str, Any]:
    """Google counts tokens here, of which there are none; its clients leave other members out."""
    return {"frames": usage.frames, "video_seconds": usage.video_s}
