"""What values the settings of a checkpoint's components take, in sentences. Without torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from model_core.errors import WeightsError

_MOST = 2**31 - 1


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST and math.isfinite(value)


# By what a sentence calls them.
_RULES: dict[str, Callable[[Any], bool]] = {
    "true or false": lambda value: isinstance(value, bool),
    "a whole number from 1 on": lambda value: _whole(value) and value > 0,
    "a whole number from 0 on": _whole,
    "a number": _number,
    "a number above 0": lambda value: _number(value) and value > 0,
    "text": lambda value: isinstance(value, str),
}
FLAG, COUNT, WHOLE, NUMBER, POSITIVE, TEXT = _RULES
_EACH, _OR_NULL = "a list, each ", ", or null"


def each(kind: str) -> str:
    """A list of them."""
    return _EACH + kind


def or_null(kind: str) -> str:
    """One of them, or nothing."""
    return kind + _OR_NULL


# Of one class: names of settings, what they must be, and what is taken where a file leaves them out.
Settings = dict[str, tuple[str, Any]]
GATES = ("gelu", "gelu-approximate", "geglu", "geglu-approximate", "swiglu", "linear-silu")
ACTIVATIONS = ("silu", "swish", "mish", "gelu", "relu")


def check_value(where: str, name: str, value: object, kind: str) -> None:
    """Raises WeightsError: a setting's value is not `kind`, which is one of the sentences of this module."""
    if not _fits(kind, value):
        raise WeightsError(f"{where}: {name} must be {kind}; got {shown(value)}")


def _fits(kind: str, value: object) -> bool:
    if kind.endswith(_OR_NULL):
        return value is None or _fits(kind.removesuffix(_OR_NULL), value)
    if kind.startswith(_EACH):
        return isinstance(value, list) and all(_fits(kind.removeprefix(_EACH), entry) for entry in value)
    return _RULES[kind](value)


def shown(value: object) -> str:
    """As a file has it."""
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else repr(value)[:64]
