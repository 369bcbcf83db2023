"""`predictLongRunning` of Vertex AI and of the Gemini API: requests to jobs, and jobs to operations."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from doors.http.given import MAX_SEED, Given, check_all
from doors.http.google.shapes import CANCELLED, DOOR, SECONDS, presentation, status
from model_core.config import Media
from service.checks import Problems
from service.intake import Intake
from service.jobs.job import Job, JobError, JobNotFound, JobStatus, NewJob
from service.orders import Doorway, Mode, VideoRequest

_OPERATION = re.compile(r"(?:.*/)?operations/([a-z0-9]{1,64})", re.ASCII)
_MAX_LABELS, _MAX_LABEL_CHARS = 64, 63
_VERTEX = "type.googleapis.com/cloud.ai.large_models.vision.GenerateVideoResponse"
_GEMINI = "type.googleapis.com/google.ai.generativelanguage.v1beta.PredictLongRunningResponse"

_INSTANCE_CANNOT = {
    "lastFrame": "this server takes one image or video, for the beginning",
    "referenceImages": "this server takes one image or video, for the beginning",
    "mask": "this server does not edit parts of a picture",
}
_PARAMETERS_CANNOT = {
    "storageUri": "this server does not write to Google Cloud Storage; the video comes with the operation",
    "pubsubTopic": "this server publishes nothing; ask for the operation",
}
# Where a picture or a video may stand in what the two generations of the API call an image or a video.
_HOLDERS = ("bytesBase64Encoded", "encodedVideo")
_ELSEWHERE = ("gcsUri", "uri", "fileUri")


async def new_job(model: str, body: Mapping[str, Any], key: str, problems: Problems, intake: Intake) -> NewJob:
    """The job that `body` asks for.

    Args:
        model: from the path.
        key: of idempotency.
        problems: what is wrong with the headers.

    Raises:
        InvalidRequest: with everything that is wrong.
    """
    given = Given(body, problems)
    instances = given.items("instances", most=1)
    if not instances:
        if not given.has("instances") or given.value("instances") == []:
            given.refuse("instances", "must be a list of one object")
        problems.check()
    [instance] = instances
    parameters = given.inner("parameters")
    for name, why in _INSTANCE_CANNOT.items():
        instance.unset(name, why)
    for name, why in _PARAMETERS_CANNOT.items():
        parameters.unset(name, why)
    for name in ("sampleCount", "numberOfVideos"):
        parameters.integer(name, 1, 1)
    if parameters.flag("generateAudio"):
        parameters.refuse("generateAudio", "must be false or unset: this server makes no sound")
    _frame_rate(parameters, model, intake)
    names, footage = await _footage(instance)
    seconds = parameters.number("durationSeconds")
    request = VideoRequest(
        prompt=instance.text("prompt"),
        model=model,
        seconds=SECONDS if seconds is None else seconds,
        seed=parameters.integer("seed", 0, MAX_SEED),
        negative_prompt=parameters.text("negativePrompt") or None,
        footage=footage,
    )
    names |= {
        "prompt": instance.path("prompt"), "seconds": "parameters.durationSeconds", "negative_prompt": "parameters.negativePrompt",
        "width": "parameters.aspectRatio", "height": "parameters.resolution",
    }  # fmt: skip
    doorway = Doorway(Mode.JOB, names=names)
    size = presentation(parameters, "aspectRatio", "resolution")
    labels = given.labels("labels", most=_MAX_LABELS, chars=_MAX_LABEL_CHARS)
    check_all(problems, intake, request, doorway)
    return NewJob(
        door=DOOR, request=request, doorway=doorway, presentation=size, shown={"model": model}, labels=labels, idempotency_key=key
    )


def _frame_rate(parameters: Given, model: str, intake: Intake) -> None:
    config, fps = intake.catalogue.find(model), parameters.number("fps")
    if config is not None and fps is not None and fps != config.fps:
        parameters.refuse("fps", f"must be {config.fps} for model {config.name}")


async def _footage(instance: Given) -> tuple[dict[str, str], tuple[Media, bytes] | None]:
    """The names of the fields that hold pictures, and what the one given holds."""
    names = {"image": instance.path("image"), "video": instance.path("video")}
    kind: Media = "video" if instance.has("video") else "image"
    if kind == "video":
        instance.unset("image", "this server takes one image or video, for the beginning")
    if not instance.has(kind):
        return names, None
    holder = instance.inner(kind)
    field = next((name for name in _HOLDERS if holder.has(name)), "")
    if not field and holder.has("inlineData"):
        holder, field = holder.inner("inlineData"), "data"
    if not field:
        for name in _ELSEWHERE:
            holder.unset(name, "this server fetches nothing from elsewhere; send it in bytesBase64Encoded")
        if not any(holder.has(name) for name in _ELSEWHERE):
            instance.refuse(kind, "must hold bytesBase64Encoded")
        return names, None
    names[kind] = holder.path(field)
    data = await holder.media(field)
    return names, None if data is None else (kind, data)


def job_id(name: str) -> str:
    """Of an operation's name. Raises JobNotFound: it is none."""
    found = _OPERATION.fullmatch(name)
    if found is None:
        raise JobNotFound(f"there is no operation {name[:128]!a}")
    return found[1]


def operation(name: str, job: Job, response: Mapping[str, Any] | None) -> dict[str, Any]:
    """An operation as it is now.

    Args:
        response: of a completed job.
    """
    shown: dict[str, Any] = {"name": name, "metadata": _metadata(job)}
    match job.status:
        case JobStatus.QUEUED | JobStatus.RUNNING:
            return {**shown, "done": False}
        case JobStatus.COMPLETED:
            return {**shown, "done": True, "response": response}
        case JobStatus.CANCELLED:
            return {**shown, "done": True, "error": {"code": CANCELLED, "message": "the operation was cancelled"}}
        case JobStatus.EXPIRED:
            raise JobNotFound(f"operation {name} has expired")
    return {**shown, "done": True, "error": status(job.error or JobError("internal", "the operation failed"))}


def _metadata(job: Job) -> dict[str, Any]:
    """How far the job is, and what was rendered."""
    metadata: dict[str, Any] = {"state": job.status.name, "progressPercent": int(100 * job.progress)}
    if job.usage is not None:
        rendered = {"model": job.model, "frames": job.usage.frames, "videoSeconds": job.usage.video_s, "steps": job.steps}
        metadata["usage"] = {**rendered, "fileWidth": job.width, "fileHeight": job.height}
    return metadata


def vertex_response(mp4: bytes | None, url: str) -> dict[str, Any]:
    """The video itself, or where the store serves it."""
    video = {"gcsUri": url} if mp4 is None else {"bytesBase64Encoded": base64.b64encode(mp4).decode()}
    return {"@type": _VERTEX, "raiMediaFilteredCount": 0, "videos": [{**video, "mimeType": "video/mp4"}]}


def gemini_response(uri: str) -> dict[str, Any]:
    """Where the video can be fetched with the caller's key."""
    return {"@type": _GEMINI, "generateVideoResponse": {"generatedSamples": [{"video": {"uri": uri, "encoding": "video/mp4"}}]}}
