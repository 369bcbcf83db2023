"""Model inputs of Amazon Bedrock's video models, Nova Reel's and Luma's, read into plain requests.

    Nova Reel   {"taskType": "TEXT_VIDEO", "textToVideoParams": {"text", "images"}, "videoGenerationConfig": {...}}
                {"taskType": "MULTI_SHOT_AUTOMATED", "multiShotAutomatedParams": {"text"}, "videoGenerationConfig": {...}}
                {"taskType": "MULTI_SHOT_MANUAL", "multiShotManualParams": {"shots": [{"text", "image"}]}, "videoGenerationConfig": {...}}
    Luma        {"prompt", "aspect_ratio", "duration", "resolution", "loop", "keyframes"}

The shots of MULTI_SHOT_MANUAL are one video whose prompt changes every six seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from doors.http.given import Given
from doors.http.sizes import LINES, sized
from model_core.types import Codec
from service.checks import Problems
from service.jobs.job import Presentation
from service.orders import VideoRequest

_FPS = 24  # the only value that Nova Reel takes
_SHOT_SECONDS = 6.0
_MAX_SHOTS = 20
_SEED, _MAX_SEED = 42, 2_147_483_646  # Nova Reel's own: without a seed, it makes the same video each time
_DIMENSION = re.compile(r"(\d{1,4})x(\d{1,4})", re.ASCII)
_SECONDS = re.compile(r"(\d{1,5})s", re.ASCII)
_SIZE = (1280, 720)
_TASKS = {
    "TEXT_VIDEO": "textToVideoParams", "MULTI_SHOT_AUTOMATED": "multiShotAutomatedParams", "MULTI_SHOT_MANUAL": "multiShotManualParams",
}  # fmt: skip
_FORMATS = ("png", "jpeg", "webp")
_LUMA_SHAPES = {"16:9": (16, 9), "9:16": (9, 16), "1:1": (1, 1), "4:3": (4, 3), "3:4": (3, 4), "21:9": (21, 9), "9:21": (9, 21)}
_LUMA_LINES = ("720p", "540p")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a model input asks for.

    Attributes:
        names: the caller's paths of the request's fields, for `Doorway`.
    """

    request: VideoRequest
    presentation: Presentation
    names: Mapping[str, str] = field(default_factory=dict)

    def coded(self, codec: Codec) -> VideoRequest:
        """The request, for frames in this codec."""
        return replace(self.request, codec=codec)


async def read(model: str, members: Mapping[str, Any], path: str, problems: Problems) -> Asked:
    """The request for `model` in a model input. What is wrong is added to `problems`.

    Args:
        members: of the input.
        path: of the input in what the caller sent, with a dot at the end; empty where it is all of that.
    """
    given = Given(members, problems, path)
    if given.has("prompt") and not given.has("taskType"):
        return await _luma(model, given)
    return await _nova(model, given)


async def _nova(model: str, given: Given) -> Asked:
    task = given.choice("taskType", tuple(_TASKS))
    if not given.value("taskType"):
        given.refuse("taskType", f"must be one of {', '.join(_TASKS)}")
    config = given.inner("videoGenerationConfig")
    width, height = _dimension(config)
    seed = config.integer("seed", 0, _MAX_SEED)
    config.integer("fps", _FPS, _FPS)
    names = {"model": "modelId", "seconds": config.path("durationSeconds"), "seed": config.path("seed")}
    names["prompt"] = given.path("taskType")  # which says where the prompt is
    names |= dict.fromkeys(("width", "height"), config.path("dimension"))
    seconds = config.number("durationSeconds")
    config.only("durationSeconds", "fps", "dimension", "seed")
    given.only("taskType", "videoGenerationConfig", *((_TASKS[task],) if task else _TASKS.values()))
    if task == "MULTI_SHOT_MANUAL":
        request = await _shots(given.inner(_TASKS[task], required=True), names)
        if seconds is not None and seconds != request.seconds:
            config.refuse("durationSeconds", f"must be unset, or {_SHOT_SECONDS:g} seconds a shot: {request.seconds:g}")
    elif task:
        request = await _prompted(given.inner(_TASKS[task], required=True), names, with_image=task == "TEXT_VIDEO")
        default = _SHOT_SECONDS if task == "TEXT_VIDEO" else 2 * _SHOT_SECONDS
        request = replace(request, seconds=default if seconds is None else seconds)
    else:
        request = VideoRequest(prompt="", seconds=_SHOT_SECONDS)
    return Asked(replace(request, model=model, seed=_SEED if seed is None else seed), Presentation(width, height), names)


async def _prompted(params: Given, names: dict[str, str], *, with_image: bool) -> VideoRequest:
    names["prompt"] = params.path("text")
    prompt = params.text("text", required=True)
    footage: bytes | None = None
    if with_image:
        for image in params.items("images", most=1):
            footage = await _image(image, names)
    params.only("text", *(("images",) if with_image else ()))
    return VideoRequest(prompt=prompt, footage=None if footage is None else ("image", footage))


async def _shots(params: Given, names: dict[str, str]) -> VideoRequest:
    """One video, with a prompt for every six seconds of it."""
    shots = params.items("shots", most=_MAX_SHOTS)
    if not params.value("shots"):
        params.refuse("shots", f"must be a list of 1 to {_MAX_SHOTS} objects")
    names["prompt"] = params.path("shots")
    prompts: list[str] = []
    footage: bytes | None = None
    for number, shot in enumerate(shots):
        names[f"later_prompts[{number - 1}]" if number else "prompt"] = shot.path("text")
        prompts.append(shot.text("text", required=True))
        if number:
            shot.unset("image", "only the first shot can begin with an image here")
        elif shot.has("image"):
            footage = await _image(shot.inner("image"), names)
        shot.only("text", "image")
    params.only("shots")
    first, *later = prompts or [""]
    return VideoRequest(
        prompt=first,
        seconds=_SHOT_SECONDS * max(1, len(prompts)),
        footage=None if footage is None else ("image", footage),
        later_prompts=tuple((_SHOT_SECONDS * number, prompt) for number, prompt in enumerate(later, 1)),
    )


async def _image(image: Given, names: dict[str, str]) -> bytes | None:
    image.choice("format", _FORMATS)
    source = image.inner("source", required=True)
    source.unset("s3Location", "this server reads no buckets; send bytes")
    if not source.has("bytes") and not source.has("s3Location"):
        source.refuse("bytes", "must be base64")
    names["image"] = source.path("bytes")
    image.only("format", "source")
    source.only("bytes", "s3Location")
    return await source.media("bytes")


def _dimension(config: Given) -> tuple[int, int]:
    text = config.text("dimension")
    match = _DIMENSION.fullmatch(text)
    if text and match is None:
        config.refuse("dimension", f"must be a width and a height in pixels, such as {_SIZE[0]}x{_SIZE[1]}")
    return _SIZE if match is None else (int(match[1]), int(match[2]))


async def _luma(model: str, given: Given) -> Asked:
    names = {"model": "modelId", "prompt": given.path("prompt"), "seconds": given.path("duration")}
    names |= dict.fromkeys(("width", "height"), given.path("resolution"))
    stated = given.text("duration") or "5s"
    match = _SECONDS.fullmatch(stated)
    if match is None:
        given.refuse("duration", "must be whole seconds, such as 5s")
    shape = _LUMA_SHAPES[given.choice("aspect_ratio", tuple(_LUMA_SHAPES)) or "16:9"]
    lines = LINES[given.choice("resolution", _LUMA_LINES) or "720p"]
    if given.flag("loop"):
        given.refuse("loop", "must be false: this server makes no loops")
    given.only("prompt", "duration", "aspect_ratio", "resolution", "loop", "keyframes")
    footage = await _first_frame(given.inner("keyframes"), names)
    request = VideoRequest(
        prompt=given.text("prompt"), model=model, seconds=float(match[1]) if match else 0.0,
        footage=None if footage is None else ("image", footage),
    )  # fmt: skip
    return Asked(request, sized(shape, lines), names)


async def _first_frame(frames: Given, names: dict[str, str]) -> bytes | None:
    frames.unset("frame1", "a video can begin with an image here, and not end with one")
    frames.only("frame0", "frame1")
    if not frames.has("frame0"):
        return None
    frame = frames.inner("frame0")
    frame.choice("type", ("image",))
    source = frame.inner("source", required=True)
    source.choice("type", ("base64",))
    source.text("media_type")
    if not source.has("data"):
        source.refuse("data", "must be base64")
    names["image"] = source.path("data")
    frame.only("type", "source")
    source.only("type", "media_type", "data")
    return await source.media("data")
