"""JSON of callers, parsed within bounds: how many values, how deep, and nothing in a text that cannot be written down again.

A long text without escapes, such as an image in base64, is cut out before the parser sees it: that would hold the interpreter for as long
as it reads, and live sessions wait for the interpreter.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from model_core.errors import FieldViolation, InvalidRequest

MAX_DEPTH = 32
MAX_VALUES = 65_536

_FIELD = "body"
_LONG = 64 * 1024
# Of what is left without long texts, and of backslashes in all of it.
_MOST_BYTES = 4 * 1024 * 1024
_MOST_ESCAPES = 1024 * 1024
# A caller who writes this gets a long text of its own in its place.
_MARK = "\x00text "


def parsed(data: bytes) -> dict[str, Any]:
    """The object that `data` is.

    Raises:
        InvalidRequest: it is none, or breaks a bound.
    """
    if data.count(b"\\") > _MOST_ESCAPES:
        raise _problem(f"must be JSON with at most {_MOST_ESCAPES} escapes")
    short, texts = _without_long_texts(data) if len(data) > _LONG else (data, [])
    if sum(short.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES:
        raise _too_many_values()
    if len(short) > _MOST_BYTES:
        raise _problem(f"must have at most {_MOST_BYTES} bytes besides long texts in ASCII without escapes; got {len(short)}")
    try:
        value = json.loads(short, parse_constant=_refuse)
    except RecursionError:
        raise _problem(f"must be JSON with at most {MAX_DEPTH} objects or lists in each other") from None
    except ValueError as error:  # of JSON, of UTF-8, of numbers with too many digits
        raise _problem(f"must be JSON; {_reason(error)}") from None
    if not isinstance(value, dict):
        raise _problem("must be a JSON object")
    return _checked(value, texts)


def _without_long_texts(data: bytes) -> tuple[bytes, list[str]]:
    """`data` with a mark in place of each long text, and those texts. Raises InvalidRequest: there are too many texts, long or not."""
    kept: list[bytes] = []
    texts: list[str] = []
    at = done = seen = 0
    while (start := data.find(b'"', at)) >= 0:
        if (seen := seen + 1) > 2 * MAX_VALUES:  # names, and values
            raise _too_many_values()
        end = data.find(b'"', start + 1)
        while end >= 0 and _escaped(data, end):
            end = data.find(b'"', end + 1)
        if end < 0:
            break
        if end - start > _LONG:
            text = _plain(data, start + 1, end)
            if text is not None:
                kept += [data[done:start], json.dumps(f"{_MARK}{len(texts)}").encode()]
                texts.append(text)
                done = end + 1
        at = end + 1
    return b"".join([*kept, data[done:]]), texts


def _plain(data: bytes, start: int, end: int) -> str | None:
    """The text between; None if it has escapes, or is not in ASCII. It is copied once, because others wait for each pass over it."""
    raw: bytes | memoryview = memoryview(data)[start:end]
    if data.find(b"\\", start, end) >= 0:
        raw = bytes(raw).replace(b"\\/", b"/")  # an escape that some clients write, and none needs
        if b"\\" in raw:
            return None
    try:
        return str(raw, "ascii")
    except UnicodeDecodeError:
        return None


def _too_many_values() -> InvalidRequest:
    return _problem(f"must be JSON with at most {MAX_VALUES} values")


def _escaped(data: bytes, at: int) -> bool:
    """Whether an odd number of backslashes stands before it."""
    width = 64
    while True:
        window = data[max(0, at - width) : at]
        run = len(window) - len(window.rstrip(b"\\"))
        if run < len(window) or at <= width:
            return run % 2 == 1
        width *= 2


def _checked(root: dict[str, Any], texts: list[str]) -> dict[str, Any]:
    """`root` with its long texts back in their places. Raises InvalidRequest: too deep, or a text that UTF-8 cannot hold."""
    marks = {f"{_MARK}{index}": text for index, text in enumerate(texts)}
    level: list[Any] = [root]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for holder in level:
            items = list(holder.items()) if isinstance(holder, dict) else list(enumerate(holder))
            for key, value in items:
                if isinstance(key, str):
                    _check_text(key)
                if isinstance(value, str):
                    if (text := marks.get(value)) is not None:
                        holder[key] = text
                    else:
                        _check_text(value)
                elif isinstance(value, dict | list):
                    below.append(value)
        if not below:
            return root
        level = below
    raise _problem(f"must be JSON with at most {MAX_DEPTH} objects or lists in each other")


def _check_text(text: str) -> None:
    if "\x00" in text:
        raise _problem("must hold no NUL character in a text")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _problem("must hold no half of a surrogate pair in a text") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number in JSON")


def _reason(error: ValueError) -> str:
    match error:
        case json.JSONDecodeError():
            return f"{error.msg[:1].lower()}{error.msg[1:]} at character {error.pos}"
        case UnicodeDecodeError():
            return f"{error.reason} at byte {error.start}"
    return str(error)[:100]


def _problem(sentence: str) -> InvalidRequest:
    return InvalidRequest((FieldViolation(_FIELD, sentence),))
