"""Runway's requests to jobs. Names of fields in errors are Runway's own."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from doors.http.given import MAX_SEED, Given, check_all
from doors.http.sizes import LINES, ratio, sized
from model_core.config import Media
from service.checks import Problems
from service.intake import Intake
from service.jobs.job import NewJob, Presentation
from service.orders import Doorway, Mode, VideoRequest

DOOR = "runway"
VERSION = "2024-11-06"
VERSION_HEADER = "X-Runway-Version"

_SECONDS = 5.0
_SIZE = "1280:720"
_LINES = "720p"
# Both numbers of a ratio below this make a shape, as 16:9; else they are pixels.
_LEAST_PIXELS = 100
_RESOLUTIONS = {name.upper(): lines for name, lines in LINES.items()}

_CANNOT = {
    "keyframes": "this server takes one image or video, for the beginning",
    "references": "this server takes one image or video, for the beginning",
    "referenceVideos": "this server takes one image or video, for the beginning",
    "referenceAudio": "this server makes no sound",
    "proresProfile": "this server writes MP4",
    "targetAspectRatio": "this server does not outpaint; ratio sets the size of the file",
}


class Task(Enum):
    """What is asked for. The value is the route's."""

    TEXT = "text_to_video"
    IMAGE = "image_to_video"
    VIDEO = "video_to_video"


async def new_job(task: Task, body: Mapping[str, Any], key: str, problems: Problems, intake: Intake) -> NewJob:
    """The job that `body` asks for.

    Args:
        key: of idempotency.
        problems: what is wrong with the headers.

    Raises:
        InvalidRequest: with everything that is wrong.
    """
    given = Given(body, problems)
    model = given.text("model", required=True)
    presentation = _presentation(given)
    field, footage = await _footage(task, given)
    for name, why in _CANNOT.items():
        given.unset(name, why)
    if given.flag("audio"):
        given.refuse("audio", "must be false or unset: this server makes no sound")
    given.choice("outputFormat", ("mp4",))
    seconds = given.number("duration")
    request = VideoRequest(
        prompt=given.text("promptText"),
        model=model,
        seconds=_SECONDS if seconds is None else seconds,
        seed=given.integer("seed", 0, MAX_SEED),
        negative_prompt=given.text("negativePrompt") or None,
        footage=footage,
    )
    kind: Media = "video" if task is Task.VIDEO else "image"
    names = {"prompt": "promptText", "seconds": "duration", "negative_prompt": "negativePrompt", kind: field}
    names |= {"width": "ratio", "height": "ratio"}
    doorway = Doorway(Mode.JOB, names=names)
    check_all(problems, intake, request, doorway)
    return NewJob(
        door=DOOR, request=request, doorway=doorway, presentation=presentation, shown={"model": model, "task": task.value},
        idempotency_key=key,
    )  # fmt: skip


def _presentation(given: Given) -> Presentation:
    text = given.text("ratio") or _SIZE
    shape = ratio(text)
    if shape is None:
        given.refuse("ratio", "must be width:height, as 1280:720 or 16:9")
        return Presentation()
    lines = _RESOLUTIONS.get(given.choice("resolution", tuple(_RESOLUTIONS)))
    if lines is None and max(shape) >= _LEAST_PIXELS:
        return Presentation(*shape)
    return sized(shape, lines or LINES[_LINES])


async def _footage(task: Task, given: Given) -> tuple[str, tuple[Media, bytes] | None]:
    """The field that the image or video stands in, and what it holds."""
    if task is Task.VIDEO:
        given.unset("promptImage", "this route takes a video; image_to_video takes an image")
        field = "promptVideo" if given.has("promptVideo") and not given.has("videoUri") else "videoUri"
        if field == "videoUri":
            given.unset("promptVideo", "videoUri holds the video")
        return field, await _required(given, field, "video")
    for name in ("promptVideo", "videoUri"):
        given.unset(name, "this route takes no video; video_to_video does")
    if task is Task.TEXT:
        given.unset("promptImage", "this route takes no image; image_to_video does")
        return "promptImage", None
    if not isinstance(given.value("promptImage"), list):
        return "promptImage", await _required(given, "promptImage", "image")
    images = given.items("promptImage", most=1)
    if not images:
        if given.value("promptImage") == []:
            given.refuse("promptImage", "must hold one image")
        return "promptImage", None
    [image] = images
    image.choice("position", ("first",))
    return image.path("uri"), await _required(image, "uri", "image")


async def _required(given: Given, name: str, kind: Media) -> tuple[Media, bytes] | None:
    if not given.text(name, required=True):
        return None
    data = await given.media(name)
    return None if data is None else (kind, data)
