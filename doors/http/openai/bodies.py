"""Bodies of OpenAI's clients: multipart and URL-encoded forms, and JSON, all as one object.

A client flattens objects into fields whose names have brackets, `input_reference[image_url]`. Others send an object as JSON in one field.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from typing import Any

from starlette.datastructures import UploadFile

from doors.http.given import shown
from doors.http.room import Form, HttpRequest
from model_core.errors import FieldViolation, InvalidRequest
from service.checks import Problems

_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
_BRACKETED = re.compile(r"(\w{1,64})\[(\w{1,64})\]", re.ASCII)
# Reading less than this takes less time than a thread does.
_MANY_CHARS = 64 * 1024


async def members(request: HttpRequest, max_bytes: int, problems: Problems) -> dict[str, Any]:
    """The fields of the body, by name. A file is an `UploadFile`. An optional field that a form leaves empty is absent.

    Raises:
        InvalidRequest: it is neither a form nor a JSON object.
    """
    kind = request.raw.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in _FORMS:
        return _of_form(await request.form(max_bytes), problems)
    if kind in ("", "application/json"):
        return await request.json(max_bytes)
    must = f"must be application/json or {' or '.join(_FORMS)}"
    raise InvalidRequest((FieldViolation("Content-Type", f"{must}; got {shown(kind)}"),))


async def unfold(found: dict[str, Any], name: str, problems: Problems) -> None:
    """Read a field that holds an object as JSON text. Other values of the field stay as they are, and so does a text without a brace."""
    text = found.get(name)
    if not isinstance(text, str) or not text.lstrip().startswith("{"):
        return
    value = _object(text) if len(text) < _MANY_CHARS else await asyncio.to_thread(_object, text)
    if value is None:
        problems.add(name, f"must be a JSON object; got {shown(text)}")
        del found[name]
    else:
        found[name] = value


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _of_form(form: Form, problems: Problems) -> dict[str, Any]:
    found: dict[str, Any] = {}
    given: list[tuple[str, list[str] | list[UploadFile]]] = [*form.fields.items(), *form.files.items()]
    for name, values in given:
        if len(values) > 1:
            problems.add(shown(name)[1:-1], f"must be given at most once; got {len(values)}")
        elif values[0] != "" or name == "prompt":
            _put(found, name, values, problems)
    return found


def _put(found: dict[str, Any], name: str, values: Sequence[Any], problems: Problems) -> None:
    bracketed = _BRACKETED.fullmatch(name)
    outer, inner = bracketed.groups() if bracketed else (name, None)
    holder = found if inner is None else found.setdefault(outer, {})
    if not isinstance(holder, dict) or (inner or outer) in holder:
        problems.add(shown(outer)[1:-1], "must be given in one way; got it twice")
    else:
        holder[inner or outer] = values[0]
