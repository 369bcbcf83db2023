"""Decart's forms to jobs, and its token requests. Names of fields in errors are Decart's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import UploadFile

from doors.http.given import MAX_SEED, Given, check_all
from doors.http.room import Form
from doors.http.sizes import LINES, sized
from model_core.config import Media
from model_core.uploads.upload import UploadLimits
from service.checks import Problems
from service.intake import Intake
from service.jobs.job import NewJob
from service.orders import Doorway, Mode, VideoRequest

DOOR = "decart"

_SECONDS = 5.0
_SHAPE = (16, 9)
_LINES = "720p"
_TOKEN_SECONDS, _MAX_TOKEN_SECONDS = 60, 3600
_MAX_TOKEN_MODELS = 20
_MAX_SESSION_SECONDS = 24 * 3600
_CANNOT = {
    "reference_image": "this server takes one image or video, as data",
    "start": "this server takes one image or video, as data",
    "end": "this server takes one image or video, as data",
}


async def new_job(model: str, form: Form, key: str, problems: Problems, intake: Intake) -> NewJob:
    """The job that `form` asks for.

    Args:
        model: from the path.
        key: of idempotency.
        problems: what is wrong with the headers.

    Raises:
        InvalidRequest: with everything that is wrong.
    """
    given = Given(_members(form, problems), problems)
    for name, why in _CANNOT.items():
        if name in form.files or given.has(name):
            problems.add(name, f"must be unset: {why}; got one")
    seconds = given.number("duration")
    lines = LINES[given.choice("resolution", tuple(LINES)) or _LINES]
    footage = await _footage(form, problems, intake.limits.uploads)
    request = VideoRequest(
        prompt=given.text("prompt"),
        model=model,
        seconds=_SECONDS if seconds is None else seconds,
        seed=given.integer("seed", 0, MAX_SEED),
        footage=footage,
    )
    names = {"seconds": "duration", "image": "data", "video": "data", "width": "resolution", "height": "resolution"}
    doorway = Doorway(Mode.JOB, names=names)
    check_all(problems, intake, request, doorway)
    return NewJob(
        door=DOOR, request=request, doorway=doorway, presentation=sized(_SHAPE, lines), shown={"model": model}, idempotency_key=key
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """What a client token is to be good for."""

    seconds: float
    models: tuple[str, ...] | None
    max_seconds: float | None
    origin: str


def token_request(body: Mapping[str, Any], intake: Intake) -> TokenRequest:
    """Raises InvalidRequest with everything that is wrong."""
    problems = Problems()
    given = Given(body, problems)
    seconds = given.integer("expiresIn", 1, _MAX_TOKEN_SECONDS)
    realtime = given.inner("constraints").inner("realtime")
    asked = TokenRequest(
        seconds=_TOKEN_SECONDS if seconds is None else seconds,
        models=_models(given, intake),
        max_seconds=realtime.integer("maxSessionDuration", 1, _MAX_SESSION_SECONDS),
        origin=_origin(given),
    )
    given.inner("metadata")
    problems.check()
    return asked


def _models(given: Given, intake: Intake) -> tuple[str, ...] | None:
    """The served models that the caller means; None for all."""
    names = given.value("allowedModels")
    if names is None:
        return None
    if not isinstance(names, list) or not 0 < len(names) <= _MAX_TOKEN_MODELS or not all(isinstance(name, str) for name in names):
        given.refuse("allowedModels", f"must be a list of 1 to {_MAX_TOKEN_MODELS} names of models")
        return None
    found = [intake.catalogue.find(name) if name else None for name in names]
    for index, config in enumerate(found):
        if config is None:
            given.refuse_item("allowedModels", index, f"must be one of {', '.join(sorted(intake.catalogue.models))}")
    return tuple(sorted({config.name for config in found if config is not None}))


def _origin(given: Given) -> str:
    """The one web origin; empty for any."""
    origins = given.value("allowedOrigins")
    if origins is None or origins == []:
        return ""
    if not isinstance(origins, list) or len(origins) != 1 or not isinstance(origins[0], str):
        given.refuse("allowedOrigins", "must be a list of at most 1 origin")
        return ""
    if not _is_origin(origins[0]):
        given.refuse_item("allowedOrigins", 0, "must be an origin with its scheme, as https://example.com")
        return ""
    return origins[0]


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.netloc) and f"{parts.scheme}://{parts.netloc}" == text


def _members(form: Form, problems: Problems) -> dict[str, str]:
    """Text fields by name. One that comes twice is refused."""
    for name in sorted({*form.fields, *form.files}):
        if (count := len(form.fields.get(name, ())) + len(form.files.get(name, ()))) > 1:
            problems.add(name, f"must be given once; got it {count} times")
    return {name: values[0] for name, values in form.fields.items() if values}


async def _footage(form: Form, problems: Problems, limits: UploadLimits) -> tuple[Media, bytes] | None:
    """The image or video in `data`. Which of them it is, its first bytes say."""
    if "data" in form.fields:
        problems.add("data", "must be a file; got text")
        return None
    files = form.files.get("data", [])
    if not files:
        return None
    upload: UploadFile = files[0]
    head = await upload.read(16)
    kind: Media = "image" if head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"RIFF")) else "video"
    most = limits.max_bytes(kind)
    if upload.size is not None and upload.size > most:
        problems.add("data", f"must be at most {most} bytes; got {upload.size}")
        return None
    return kind, head + await upload.read()
