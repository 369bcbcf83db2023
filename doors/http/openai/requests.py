"""Fields of OpenAI's clients to jobs. Here are the checks that only this wire needs, and its names of the fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile

from doors.http.given import MAX_SEED, Given, decoded
from doors.http.openai.bodies import unfold
from doors.http.openai.mp4_length import mp4_seconds
from doors.http.openai.videos import GUIDANCE, LATER, MODEL, NEGATIVE, PROMPT, REFERENCE, SECONDS, SIZE, job_id, video_id
from model_core.config import Media, ModelConfig
from model_core.errors import FieldViolation, InvalidRequest
from service.checks import Problems
from service.intake import Intake
from service.jobs.job import Job, NewJob, Presentation, Webhook
from service.orders import Doorway, Mode, VideoRequest

DOOR = "openai"

_DEFAULT_SECONDS = 4.0  # as OpenAI has it
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})", re.ASCII)
# What servers of open models take besides. They may also stand in `extra_params`.
_EXTRAS = frozenset({"num_frames", "fps", "num_inference_steps", "guidance_scale", "negative_prompt", "seed", "width", "height"})
_CREATION = _EXTRAS | {"prompt", "model", "seconds", "size", "input_reference", "user", "webhook", "extra_params"}
_REMIX = frozenset({"prompt", "webhook"})
_EDIT = _REMIX | {"video"}
_EXTENSION = _EDIT | {"seconds"}
_MAX_USER_CHARS = 256
_MAX_URL_CHARS = 2048
_MAX_STEPS = 100_000  # the model's own limit is far below, and says more
# Bytes of the secret behind `whsec_`, as Standard Webhooks has it.
_SECRET_BYTES = range(24, 65)
_NAMES = {"image": "input_reference", "video": "input_reference", "steps": "num_inference_steps", "guidance": "guidance_scale"}


@dataclass(frozen=True, slots=True)
class _Common:
    """What all kinds of requests may have."""

    prompt: str
    webhook: Webhook | None


class Requests:
    """Jobs out of fields. What is wrong is added to `problems`, and the job is not to be submitted then.

    Args:
        intake: knows models and limits.
    """

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def creation(self, members: dict[str, Any], problems: Problems, key: str) -> NewJob:
        await unfold(members, "extra_params", problems)
        _refuse_unknown(members, _CREATION, problems)
        given = Given(_with_extras(members, problems), problems)
        common = await _common(given, members, problems)
        model = given.text("model")
        config = self._intake.catalogue.find(model)
        length, seconds = self._length(given, config)
        presentation, sides = _presentation(given)
        names = {**_NAMES, **sides, "seconds": length}
        footage = await _reference(members, problems)
        if config is not None and given.integer("fps", 1, 1000) not in (None, config.fps):
            given.refuse("fps", f"must be {config.fps}, or unset: model {config.name} plays at no other rate")
        request = VideoRequest(
            prompt=common.prompt, model=model, seconds=seconds, seed=given.integer("seed", 0, MAX_SEED),
            steps=given.integer("num_inference_steps", 1, _MAX_STEPS) or 0, guidance=given.number("guidance_scale"),
            negative_prompt=given.text("negative_prompt") or None, footage=footage,
        )  # fmt: skip
        doorway = Doorway(Mode.JOB, names=names)
        self._intake.validator.presentation(presentation.width, presentation.height, doorway, problems)
        user = given.text("user")
        if len(user) > _MAX_USER_CHARS:
            given.refuse("user", f"must be at most {_MAX_USER_CHARS} characters")
        shown = _shown(request, config, presentation) | ({MODEL: model} if model else {})
        return NewJob(
            door=DOOR, request=request, doorway=doorway, presentation=presentation, shown=shown, idempotency_key=key,
            labels={"user": user} if user else {}, webhook=common.webhook,
        )  # fmt: skip

    async def remix(self, members: dict[str, Any], parent: Job, problems: Problems, key: str) -> NewJob:
        """The parent's video with another prompt."""
        return await self._restated(members, _REMIX, parent, "video_id", problems, key)

    async def edit(self, members: dict[str, Any], parent: Job, problems: Problems, key: str) -> NewJob:
        """The same, of a client that names the parent in the body."""
        return await self._restated(members, _EDIT, parent, "video.id", problems, key)

    async def extension(self, members: dict[str, Any], parent: Job, problems: Problems, key: str) -> NewJob:
        """The parent's video, and what follows it with another prompt. Frames of the parent are made again, and are the same."""
        given = Given(members, problems)
        _refuse_unknown(members, _EXTENSION, problems)
        common = await _common(given, members, problems)
        _must_be_of_text(parent, "video.id", problems)
        seconds = self._seconds(given)
        later = tuple((float(at), str(prompt)) for at, prompt in parent.shown.get(LATER, ()))
        if common.prompt != (later[-1][1] if later else parent.prompt):
            later = (*later, (parent.seconds, common.prompt))
        return self._again(parent, common, key, problems, prompt=parent.prompt, seconds=parent.seconds + seconds, later=later)

    async def extension_of_file(self, members: dict[str, Any], data: bytes, problems: Problems, key: str) -> NewJob:
        """A video that the caller sent, and what follows it."""
        given = Given(members, problems)
        _refuse_unknown(members, _EXTENSION, problems)
        common = await _common(given, members, problems)
        length, seconds = mp4_seconds(data), self._seconds(given)
        if length is None:
            problems.add("video", f"must be an MP4 file whose header says how long it is; got {len(data)} bytes that do not say it")
        request = VideoRequest(prompt=common.prompt, seconds=(length or 0.0) + seconds, footage=("video", data))
        config = self._intake.catalogue.find("")
        return NewJob(
            door=DOOR, request=request, doorway=Doorway(Mode.JOB, names={**_NAMES, "video": "video"}),
            shown=_shown(request, config, Presentation()), idempotency_key=key, webhook=common.webhook,
        )  # fmt: skip

    async def _restated(
        self, members: dict[str, Any], known: frozenset[str], parent: Job, where: str, problems: Problems, key: str
    ) -> NewJob:
        _refuse_unknown(members, known, problems)
        common = await _common(Given(members, problems), members, problems)
        _must_be_of_text(parent, where, problems)
        return self._again(parent, common, key, problems, prompt=common.prompt)

    def _again(
        self,
        parent: Job,
        common: _Common,
        key: str,
        problems: Problems,
        *,
        prompt: str,
        seconds: float | None = None,
        later: tuple[tuple[float, str], ...] = (),
    ) -> NewJob:
        """A job like `parent`, with its seed."""
        shown, config = parent.shown, self._intake.catalogue.find(parent.model)
        request = VideoRequest(
            prompt=prompt, model=parent.model, seconds=parent.seconds if seconds is None else seconds, seed=parent.seed,
            steps=parent.steps, guidance=shown.get(GUIDANCE), negative_prompt=shown.get(NEGATIVE), later_prompts=later,
        )  # fmt: skip
        presentation = Presentation(parent.width, parent.height)
        names = {**_NAMES, "later_prompts": "video", "shown": "video", **{f"later_prompts[{n}]": "prompt" for n in range(len(later))}}
        own = {MODEL: shown.get(MODEL) or parent.model, **({PROMPT: common.prompt} if later else {})}
        return NewJob(
            door=DOOR, request=request, doorway=Doorway(Mode.JOB, names=names), presentation=presentation,
            shown=_shown(request, config, presentation) | own, idempotency_key=key, labels=parent.labels,
            webhook=common.webhook, parent=parent.id,
        )  # fmt: skip

    def _length(self, given: Given, config: ModelConfig | None) -> tuple[str, float]:
        """What the caller calls the length, and the length in seconds."""
        if config is None or not given.has("num_frames"):
            return "seconds", self._seconds(given)
        frames = given.integer("num_frames", 1, int(self._intake.max_job_seconds * config.fps))
        return "num_frames", _DEFAULT_SECONDS if frames is None else frames / config.fps

    def _seconds(self, given: Given) -> float:
        seconds = given.number("seconds")
        return _DEFAULT_SECONDS if seconds is None else seconds


def parent_id(video: object) -> str:
    """The job that `{"id": …}` names.

    Raises:
        InvalidRequest: it is no such object.
        JobNotFound: it is no id of a video.
    """
    named = video.get("id") if isinstance(video, dict) and set(video) <= {"id"} else None
    if not isinstance(named, str):
        raise InvalidRequest((FieldViolation("video", 'must be a file, or an object {"id": …} with the id of a video'),))
    return job_id(named)


def _refuse_unknown(members: Mapping[str, Any], known: frozenset[str], problems: Problems) -> None:
    """What this server would ignore could be what the caller cares for."""
    for name in sorted(set(members) - known):
        if members[name] is not None:
            problems.add(ascii(name[:64])[1:-1], f"must be unset; this server takes {', '.join(sorted(known))}")


def _with_extras(members: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    """The fields, with those in `extra_params` among them."""
    extras = members.get("extra_params")
    if extras is None:
        return dict(members)
    if not isinstance(extras, dict):
        problems.add("extra_params", "must be an object")
        return dict(members)
    for name in sorted(set(extras) - _EXTRAS):
        problems.add(f"extra_params.{ascii(name[:64])[1:-1]}", f"must be unset; this server takes {', '.join(sorted(_EXTRAS))}")
    return {**{name: value for name, value in extras.items() if name in _EXTRAS}, **members}


async def _common(given: Given, members: dict[str, Any], problems: Problems) -> _Common:
    await unfold(members, "webhook", problems)
    webhook = Given(members, problems).inner("webhook") if members.get("webhook") is not None else None
    return _Common(given.text("prompt"), None if webhook is None else _webhook(webhook, problems))


def _webhook(given: Given, problems: Problems) -> Webhook:
    url, secret = given.text("url", required=True), given.text("secret", required=True)
    if url and (not url.startswith(("http://", "https://")) or len(url) > _MAX_URL_CHARS):
        given.refuse("url", f"must be an address that begins with https:// or http://, of at most {_MAX_URL_CHARS} characters")
    key = decoded(secret.removeprefix("whsec_")) if secret.startswith("whsec_") else None
    if secret and (key is None or len(key) not in _SECRET_BYTES):
        limits = f"{_SECRET_BYTES.start} to {_SECRET_BYTES.stop - 1}"
        problems.add(given.path("secret"), f"must be whsec_ and {limits} bytes in base64")  # which does not repeat it
    return Webhook(url, secret)


def _presentation(given: Given) -> tuple[Presentation, dict[str, str]]:
    """The size of the file, and what the caller calls its sides."""
    if given.has("width") or given.has("height"):
        width, height = (given.integer(name, 0, 99_999) for name in ("width", "height"))
        return Presentation(width or 0, height or 0), {}
    size = given.text("size")
    match = _SIZE.fullmatch(size)
    if size and match is None:
        given.refuse("size", "must be WIDTHxHEIGHT, as 1280x720")
    sides = {"width": "size", "height": "size"}
    return (Presentation() if match is None else Presentation(int(match[1]), int(match[2]))), sides


async def _reference(members: dict[str, Any], problems: Problems) -> tuple[Media, bytes] | None:
    """The image or video to begin with: a file, a data URI, or an object that has one."""
    name = "input_reference"
    await unfold(members, name, problems)
    value = members.get(name)
    if isinstance(value, UploadFile):
        data = await value.read()
        return _kind(data, value.content_type or ""), data
    holder = Given(members, problems)
    if isinstance(value, dict):
        holder, name = holder.inner(name), "image_url"
        holder.unset("file_id", "this server keeps no files; send the image itself")
        if not holder.has(name) and not holder.has("file_id"):
            holder.refuse(name, "is required")
        if isinstance(holder.value(name), dict):
            holder, name = holder.inner(name), "url"
    data_or_none = await holder.media(name)
    text = holder.value(name)
    declared = text[5:64].partition(";")[0] if isinstance(text, str) and text.startswith("data:") else ""
    return None if data_or_none is None else (_kind(data_or_none, declared), data_or_none)


def _kind(data: bytes, declared: str) -> Media:
    """A client that does not know a file's type says nothing, or `application/octet-stream`."""
    if declared.startswith("video/"):
        return "video"
    return "video" if not declared.startswith("image/") and data[4:8] == b"ftyp" else "image"


def _must_be_of_text(parent: Job, where: str, problems: Problems) -> None:
    """A video can be made again from its prompt and seed. What it began with is not kept."""
    if (kind := parent.shown.get(REFERENCE)) is not None:
        problems.add(where, f"must be of a video made from its prompt alone; got {video_id(parent.id)}, which began with {kind}")


def _shown(request: VideoRequest, config: ModelConfig | None, presentation: Presentation) -> dict[str, Any]:
    """What the door wants back with the job."""
    found: dict[str, Any] = {SECONDS: f"{request.seconds:g}"}
    if config is not None:
        found[SIZE] = f"{presentation.width or config.width}x{presentation.height or config.height}"
    optional = {GUIDANCE: request.guidance, NEGATIVE: request.negative_prompt}
    found |= {name: value for name, value in optional.items() if value is not None}
    if request.footage is not None:
        found[REFERENCE] = request.footage[0]
    if request.later_prompts:
        found[LATER] = [list(entry) for entry in request.later_prompts]
    return found
