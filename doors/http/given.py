"""Values out of a caller's JSON, and of what it holds in base64. What is wrong with them is named as the caller wrote it."""

from __future__ import annotations

import asyncio
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request

from model_core.errors import FieldViolation, InvalidRequest
from service.checks import Problems
from service.intake import Intake
from service.orders import Doorway, VideoRequest

MAX_SEED = 2**64 - 1
IDEMPOTENCY_KEY = "Idempotency-Key"

_MAX_KEY_CHARS = 256

_SHOWN_CHARS = 64
_MAX_UNKNOWN = 8
# Decoding less than this takes less time than a thread does.
_MANY_CHARS = 64 * 1024
_PIECE_CHARS = 256 * 1024
_URL_SAFE = str.maketrans("-_", "+/")
_REMOTE = ("http://", "https://", "gs://", "s3://", "file://", "runway://")


class Given:
    """One JSON object. A member that is null counts as absent. A member that is wrong adds a problem, and reads as absent.

    Args:
        members: of the object.
        problems: where to add what is wrong.
        path: of the object in the body, with a dot at the end; empty for the body itself.
    """

    def __init__(self, members: Mapping[str, Any], problems: Problems, path: str = "") -> None:
        self._members = members
        self._problems = problems
        self._path = path

    def path(self, name: str) -> str:
        """Of a member, in the body."""
        return f"{self._path}{name}"

    def has(self, name: str) -> bool:
        return self._members.get(name) is not None

    def value(self, name: str) -> Any:
        """A member as it came; None where it is absent."""
        return self._members.get(name)

    def refuse(self, name: str, must: str) -> None:
        """Add that a member `must …`, with the value that it has."""
        self._problems.add(self.path(name), f"{must}; got {shown(self._members.get(name))}")

    def refuse_item(self, name: str, index: int, must: str) -> None:
        """The same, of an item of the list that a member is."""
        self._problems.add(f"{self.path(name)}[{index}]", f"{must}; got {shown(self._members[name][index])}")

    def unset(self, name: str, why: str) -> None:
        """Refuse a member that says what cannot be done."""
        if self.has(name):
            self.refuse(name, f"must be unset: {why}")

    def only(self, *names: str) -> None:
        """Refuse members of other names: what nobody reads would be left out unheard."""
        unknown = [name for name in self._members if name not in names and self.has(name)]
        for name in unknown[:_MAX_UNKNOWN]:
            self._problems.add(self.path(ascii(name[:_SHOWN_CHARS])[1:-1]), "must be unset: it means nothing here")

    def text(self, name: str, *, required: bool = False) -> str:
        """Empty where there is none."""
        value = self._members.get(name)
        if value is None:
            if required:
                self._problems.add(self.path(name), "is required; got none")
            return ""
        if not isinstance(value, str):
            self.refuse(name, "must be text")
            return ""
        if not _is_unicode(value):
            self.refuse(name, "must be text in Unicode, without half of a surrogate pair")
            return ""
        return value

    def choice(self, name: str, among: Sequence[str]) -> str:
        """Empty where there is none."""
        value = self.text(name)
        if value and value not in among:
            self.refuse(name, f"must be one of {', '.join(among)}")
            return ""
        return value

    def integer(self, name: str, least: int, most: int) -> int | None:
        """A whole number, also one that is written as text, as some clients do."""
        value = self._members.get(name)
        if value is None:
            return None
        number = _whole(value)
        if number is None or not least <= number <= most:
            self.refuse(name, f"must be a whole number from {least} to {most}")
            return None
        return number

    def number(self, name: str) -> float | None:
        """A finite number, also one that is written as text."""
        value = self._members.get(name)
        if value is None:
            return None
        number = _finite(value)
        if number is None:
            self.refuse(name, "must be a number")
        return number

    def flag(self, name: str) -> bool | None:
        value = self._members.get(name)
        if value is not None and not isinstance(value, bool):
            self.refuse(name, "must be true or false")
            return None
        return value

    def inner(self, name: str, *, required: bool = False) -> Given:
        """An object below this one; an empty one where there is none."""
        value = self._members.get(name)
        if value is None:
            if required:
                self._problems.add(self.path(name), "is required; got none")
        elif not isinstance(value, dict):
            self.refuse(name, "must be an object")
        return Given(value if isinstance(value, dict) else {}, self._problems, f"{self.path(name)}.")

    def items(self, name: str, *, most: int) -> list[Given]:
        """Objects in a list below this one."""
        value = self._members.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > most or not all(isinstance(item, dict) for item in value):
            self.refuse(name, f"must be a list of at most {most} objects")
            return []
        return [Given(item, self._problems, f"{self.path(name)}[{index}].") for index, item in enumerate(value)]

    def labels(self, name: str, *, most: int, chars: int) -> dict[str, str]:
        """An object whose members are all text."""
        value = self._members.get(name)
        if value is None:
            return {}
        fits = isinstance(value, dict) and len(value) <= most
        if not fits or not all(_is_label(key, chars) and _is_label(text, chars) for key, text in value.items()):
            self.refuse(name, f"must be an object of at most {most} members, whose names and values are text of at most {chars} characters")
            return {}
        return dict(value)

    async def media(self, name: str) -> bytes | None:
        """What a member holds as a data URI, or as bare base64; None where it is absent or wrong. Large ones are decoded in a thread."""
        text = self.text(name)
        if not text:
            return None
        if text.startswith(_REMOTE):
            self.refuse(name, "must be a data URI or base64: this server fetches nothing from elsewhere")
            return None
        if text.startswith("data:"):
            header, comma, text = text.partition(",")
            if not comma or not header.endswith(";base64"):
                self.refuse(name, "must be a data URI in base64, as data:image/png;base64,…")
                return None
        data = decoded(text) if len(text) < _MANY_CHARS else await asyncio.to_thread(decoded, text)
        if data is None:
            self.refuse(name, "must be base64")
        return data


def decoded(text: str) -> bytes | None:
    """The bytes of base64 in either alphabet, with or without padding or line breaks; None if it is none.

    It is read in pieces, so that the interpreter is free in between for whoever paces a session.
    """
    end = len(text)
    while end and text[end - 1] in "= \t\r\n":
        end -= 1
    if text.find("=", 0, end) >= 0:
        return None
    parts: list[bytes] = []
    left = ""
    try:
        for at in range(0, end, _PIECE_CHARS):
            piece = left + text[at : min(end, at + _PIECE_CHARS)]
            try:
                data, left = _decoded_piece(piece)
            except ValueError:  # what most callers send needs none of this
                data, left = _decoded_piece("".join(piece.split()).translate(_URL_SAFE))
            parts.append(data)
        if left:
            parts.append(binascii.a2b_base64(f"{left}{'=' * (4 - len(left))}".encode("ascii"), strict_mode=True))
    except ValueError:
        return None
    return b"".join(parts)


def _decoded_piece(piece: str) -> tuple[bytes, str]:
    """The bytes of base64 in whole groups of four, and what is left of it. Raises ValueError: it is none, in the usual alphabet."""
    whole = len(piece) - len(piece) % 4
    return binascii.a2b_base64(piece[:whole], strict_mode=True), piece[whole:]


def shown(value: object) -> str:
    """A caller's value, short and plain enough for an error."""
    if value is None:
        return "none"
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    if not isinstance(value, str):
        text = repr(value) if not isinstance(value, int) or abs(value) < 10**_SHOWN_CHARS else "a number of too many digits"
        return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
    text = ascii(value[:_SHOWN_CHARS])
    return text if len(value) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}...'"


def _is_unicode(text: str) -> bool:
    """JSON can hold half of a surrogate pair, which no encoding takes."""
    if text.isascii():  # known of every text; to encode a large one takes milliseconds
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_label(text: object, chars: int) -> bool:
    return isinstance(text, str) and len(text) <= chars and _is_unicode(text)


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _whole(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str) and len(value) <= 20 and value.lstrip("-").isdecimal() and value.isascii():
        try:
            return int(value)
        except ValueError:  # as "--1"
            return None
    return None


def idempotency_key(request: Request, problems: Problems) -> str:
    """What the caller names the request by, so that the same one makes no second job; empty for nothing."""
    key = request.headers.get(IDEMPOTENCY_KEY, "")
    if len(key) > _MAX_KEY_CHARS or not key.isascii() or not key.isprintable():
        problems.add(IDEMPOTENCY_KEY, f"must be at most {_MAX_KEY_CHARS} printable characters of ASCII; got {len(key)}")
        return ""
    return key


def check_all(problems: Problems, intake: Intake, request: VideoRequest, doorway: Doorway) -> None:
    """Raises InvalidRequest with everything that door and service find wrong, if the door has found anything.

    Of each field the first problem counts: one that was unreadable reads as absent, which may be wrong as well.
    """
    if not problems:
        return
    try:
        intake.order(request, doorway, problems)
    except InvalidRequest as error:
        first: dict[str, FieldViolation] = {}
        for violation in error.violations:
            first.setdefault(violation.field, violation)
        raise InvalidRequest(tuple(first.values())) from None
