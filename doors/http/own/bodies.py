"""Our own API's requests, JSON or forms, to the service's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from doors.http.given import Given
from doors.http.own import schemas
from doors.http.own.schemas import VideoBody
from doors.http.room import HttpRequest
from model_core.config import Media
from service.checks import Problems

B = TypeVar("B", bound=VideoBody)

Footage = tuple[Media, bytes] | None

_MEDIA: tuple[Media, ...] = ("image", "video")
_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")


async def asked(request: HttpRequest, kind: type[B], problems: Problems) -> tuple[B, Footage]:
    """The body, and the image or video in it.

    Raises:
        InvalidRequest: with everything that is wrong with its form.
    """
    content_type = request.raw.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == _FORMS[0] or (content_type == _FORMS[1] and not await _is_json(request)):
        return await _of_form(request, kind, problems)
    members = await request.json()
    body = schemas.read(kind, members, problems)
    footage = await decoded(members, problems)
    return problems.passed(body), footage


async def _is_json(request: HttpRequest) -> bool:
    """Whether it is JSON after all: curl says that it sends a form, unless it is told otherwise."""
    return (await request.body()).lstrip()[:1] == b"{"


async def _of_form(request: HttpRequest, kind: type[B], problems: Problems) -> tuple[B, Footage]:
    form = await request.form()
    fields: dict[str, Any] = {}
    for name, texts in form.fields.items():
        if len(texts) > 1:
            problems.add(name[:128], f"must be given at most once; got {len(texts)}")
        elif texts[0] != "" or name == "prompt":
            fields[name] = texts[0]
    files: dict[Media, bytes] = {}
    for name, uploads in form.files.items():
        media = next((media for media in _MEDIA if media == name), None)
        if media is None or name in fields or len(uploads) > 1:
            problems.add(name[:128], f"must be one file called {' or '.join(_MEDIA)}; got {len(uploads)}")
        else:
            files[media] = await uploads[0].read()
    body = schemas.read(kind, fields, problems, as_text=True)
    footage = await decoded(fields, problems)
    return problems.passed(body), _only({**files, **({} if footage is None else {footage[0]: footage[1]})}, problems)


async def decoded(members: Mapping[str, Any], problems: Problems, path: str = "") -> Footage:
    """The image or video in a body, whose fields errors call by `path` and name."""
    given = Given(members, problems, path)
    found = {name: data for name in _MEDIA if isinstance(members.get(name), str) and (data := await given.media(name)) is not None}
    return _only(found, problems, path)


def _only(found: Mapping[Media, bytes], problems: Problems, path: str = "") -> Footage:
    if len(found) > 1:
        problems.add(f"{path}video", "must be unset with image; got both")
    return next(iter(found.items()), None)
