"""How messages cross from one process to another that may run another version of this program, as in a rolling update.

A dataclass with slots is pickled as the list of its values, so that a reader whose fields differ by one puts every value in a wrong place.
A `Message` is pickled as its values by name, without those that are the field's default. The reader then either understands it, or says
so with StageUnavailable, upon which a session opens its next leg on another replica:

- A field that the writer does not know, or has left at its default, becomes the reader's default.
- A field that the reader does not know is refused: it is in use, and frames would be others without it.
- A missing field without a default is refused, and so is a class or a member of an enumeration that the reader does not have.
- Another `GENERATION` is refused. Raise it when a field comes to mean something else.
- A class that is renamed or moved keeps its name on the wire, in `WIRE_NAMES`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from importlib import import_module
from typing import Any

from model_core.errors import StageUnavailable

GENERATION = 1
# The name on the wire of each class that no longer has it in the code: replicas of earlier versions write and know this one. They are
# strings, because a reader imports the module only when a message of it arrives.
WIRE_NAMES = {
    "deployments.links.link:LinkOffer": "deployments.link:Ticket",
    "deployments.links.wishes:Avoid": "deployments.routing:Avoid",
    "deployments.links.wishes:Only": "deployments.links.routing:Only",
    "model_core.types:Conditioning": "model_core.types:Given",
}
_CODE_NAMES = {wire: code for code, wire in WIRE_NAMES.items()}
_PLAIN = (bool, int, float, str, bytes, tuple, Mapping, Enum)  # whose values can be compared


class Message:
    """Base of a frozen dataclass with slots that crosses processes; see the module's docstring."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, tuple[str, int, dict[str, Any]]]:
        fields: Any = self
        used = {field.name: getattr(self, field.name) for field in dataclasses.fields(fields) if not _at_default(field, self)}
        return read_message, (_path(type(self)), GENERATION, used)


class MessageEnum(Enum):
    """Base of an enumeration that crosses processes."""

    def __reduce_ex__(self, _: object) -> tuple[Any, tuple[str, Any]]:
        return read_member, (_path(type(self)), self.value)


def read_message(path: str, generation: int, used: Mapping[str, Any]) -> Any:
    """What `Message.__reduce__` wrote, perhaps in another version.

    Raises:
        StageUnavailable: it cannot be understood here.
    """
    kind = _found(path)
    if generation != GENERATION:
        raise _refused(f"{path} of generation {generation}, where this is {GENERATION}")
    fields = dataclasses.fields(kind)
    if unknown := used.keys() - {field.name for field in fields}:
        raise _refused(f"{path} with {', '.join(sorted(unknown))}")
    message = object.__new__(kind)
    for field in fields:
        value = used[field.name] if field.name in used else _default(field)
        if value is dataclasses.MISSING:
            raise _refused(f"{path} without {field.name}")
        object.__setattr__(message, field.name, value)
    return message


def read_member(path: str, value: Any) -> Any:
    """What `MessageEnum` wrote, perhaps in another version.

    Raises:
        StageUnavailable: there is no such member here.
    """
    try:
        return _found(path)(value)
    except ValueError:
        raise _refused(f"{path} of {value!r}") from None


def _path(kind: type) -> str:
    path = f"{kind.__module__}:{kind.__qualname__}"
    return WIRE_NAMES.get(path, path)


def _found(path: str) -> Any:
    module, name = _CODE_NAMES.get(path, path).split(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError):
        raise _refused(path) from None


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _at_default(field: dataclasses.Field[Any], message: object) -> bool:
    return _same(getattr(message, field.name), _default(field))


def _same(value: Any, default: Any) -> bool:
    """Whether a reader may take `default` for `value`. Arrays are not compared: a message that holds one differs."""
    if value is default:
        return True
    if type(value) is not type(default):
        return False
    if isinstance(value, Message):
        fields: Any = value
        return all(_same(getattr(value, field.name), getattr(default, field.name)) for field in dataclasses.fields(fields))
    return isinstance(default, _PLAIN) and bool(value == default)


def _refused(what: str) -> StageUnavailable:
    return StageUnavailable(f"a message of another version was refused: {what}")
