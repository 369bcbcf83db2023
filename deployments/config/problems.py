"""Says what is wrong with settings: the key, what it must be and what it is. Of a key that does not exist, what may have been meant.

Loaded in Serve's controller, so it stays light.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from difflib import get_close_matches
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ValidationError

from deployments.config.names import FRONT_DOOR
from model_core.errors import FieldViolation

_USER_CONFIG = f"user_config of the deployment {FRONT_DOOR}"
# Every key that has another place now.
MOVED: Mapping[str, str] = {"args.admission.tenants": f"tenants in {_USER_CONFIG}"}
# Settings of the policy that stood in its arguments.
SCALING_MOVED = f"scaling.{{}} in {_USER_CONFIG}"
# Values that name code by where it was, and where it is.
MOVED_CODE: Mapping[str, str] = {"deployments.autoscaler:PipelinePolicy": "deployments.scaling.policy:PipelinePolicy"}

_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
# A URL may hold its password before the host, or among its options.
_PASSWORD = re.compile(r"(://)[^\s'\"]*@|(password=)[^\s&'\"]*")


def violations(path: str, error: ValidationError, schema: type[BaseModel] | None = None) -> tuple[FieldViolation, ...]:
    """Each problem with the field's full name under `path`, what it must be and what it is, less the passwords of URLs.

    Args:
        schema: what was validated, for the names of its keys.
    """

    def violation(problem: Any) -> FieldViolation:
        field = ".".join([path] * bool(path) + [str(part) for part in problem["loc"]])
        if schema is not None and problem["type"] in _UNKNOWN:
            return FieldViolation(field, no_such_key(field, str(problem["loc"][-1]), _keys(schema, problem["loc"][:-1])))
        said: str = problem["msg"].removeprefix("Value error, ")
        return FieldViolation(field, _masked(said if "; got " in said else f"{said}; got {shown(problem['input'])!r}"))

    return tuple(violation(problem) for problem in error.errors())


def no_such_key(field: str, key: str, known: Iterable[str], whose: str = "that is known") -> str:
    """What to say of `key`, whose full name is `field`, and which is none of `known`."""
    if (now := MOVED.get(field)) is not None:
        return f"must be given as {now}; got {key!r}, its old place"
    names, key = sorted(known), key[:64]
    return f"must be a key {whose}, such as {', '.join(get_close_matches(key, names) or names)}; got {key!r}"


def shown(value: object) -> str:
    """The beginning of `value`, less the passwords of URLs."""
    return _masked(str(value))[:64]


def _keys(schema: Any, place: Iterable[int | str]) -> set[str]:
    """The keys that `schema` has at `place`, a path as pydantic tells it: with indices, keys of dictionaries and names of alternatives."""
    for part in place:
        schema = next((below[str(part)] for kind in _kinds(schema) if str(part) in (below := _fields(kind))), schema)
    return {name for kind in _kinds(schema) for name in _fields(kind)}


def _kinds(annotation: Any) -> list[type]:
    """The classes with fields that an annotation holds, at any depth."""
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or is_dataclass(annotation)):
        return [annotation]
    return [kind for part in get_args(annotation) for kind in _kinds(part)]


def _fields(kind: Any) -> dict[str, Any]:
    if issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    return dict(get_type_hints(kind))


def _masked(text: str) -> str:
    return _PASSWORD.sub(lambda found: f"{found[1]}***@" if found[1] else f"{found[2]}***", text)
