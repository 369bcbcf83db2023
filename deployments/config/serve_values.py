"""Values in Serve's own blocks that Serve takes for another one, passes over, or finds fault with only while it deploys.

Serve 2.60 takes true for 1, and waits for a delay without end; a route without a slash ends the deployment with a traceback; of an
environment it passes over keys that it does not know.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel
from ray.runtime_env import RuntimeEnv, RuntimeEnvConfig

from deployments.config.problems import shown
from model_core.errors import FieldViolation


def wrong_numbers(path: str, value: object, annotation: Any) -> Iterator[FieldViolation]:
    """What is no number in `value`, where `annotation`, of a field of Serve's schema, wants numbers; in all that is below it, too."""
    kinds = set(_parts(annotation))
    if isinstance(value, Mapping):
        models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        for key, item in value.items():
            if models and key in models[0].model_fields:
                yield from wrong_numbers(f"{path}.{key}".lstrip("."), item, models[0].model_fields[key].annotation)
            elif not models and kinds & {int, float}:
                yield from wrong_numbers(f"{path}.{key}", item, float)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from wrong_numbers(f"{path}.{index}", item, annotation)
    elif kinds & {int, float} and (said := _wrong_number(value, kinds)):
        yield FieldViolation(path, said)


def _wrong_number(value: object, kinds: set[Any]) -> str:
    """What a field of `kinds`, numbers among them, must be instead of `value`; empty if it may be that."""
    if isinstance(value, bool) and bool not in kinds:
        return f"must not be true or false, which YAML reads from yes and no, too; got {str(value).lower()}"
    if isinstance(value, str) and str not in kinds:
        return f"must be a number without quotes; got {shown(value)!r}"
    return f"must be a finite number; got {value}" if isinstance(value, float) and not math.isfinite(value) else ""


def wrong_route(path: str, route: object) -> Iterator[FieldViolation]:
    if isinstance(route, str) and (not route.startswith("/") or (route != "/" and route.endswith("/")) or set("{}") & set(route)):
        yield FieldViolation(path, f"must be null, or begin with '/' and neither end with '/' nor have braces; got {shown(route)!r}")


def wrong_environment(path: str, environment: object) -> Iterator[FieldViolation]:
    """`environment` is a `runtime_env`. What may hold secrets is shown without its values."""
    if not isinstance(environment, Mapping):
        return
    config = environment.get("config")
    for where, block, known in ((path, environment, RuntimeEnv.known_fields), (f"{path}.config", config, RuntimeEnvConfig.known_fields)):
        for key in block if isinstance(block, Mapping) else ():
            if key not in known:
                names = ", ".join(sorted(name for name in known if not name.startswith("_")))
                yield FieldViolation(f"{where}.{str(key)[:64]}", f"must be a key that Ray knows: {names}; got {str(key)[:64]!r}")
                return
    variables = environment.get("env_vars", {})
    if not isinstance(variables, Mapping) or not all(isinstance(text, str) for pair in variables.items() for text in pair):
        yield FieldViolation(f"{path}.env_vars", f"must map names to quoted text; got {_kinds(variables)}")
        return
    try:
        RuntimeEnv(**{key: value for key, value in environment.items() if key != "env_vars"})
    except (TypeError, ValueError) as error:
        yield FieldViolation(path, f"must be an environment that Ray takes; got {shown(error)}")


def _parts(annotation: Any) -> Iterator[Any]:
    """The types that an annotation is made of."""
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part) if isinstance(part, type) or get_args(part) else ()


def _kinds(variables: object) -> str:
    if not isinstance(variables, Mapping):
        return type(variables).__name__
    return ", ".join(
        f"{name!r}: {type(value).__name__}" for name, value in variables.items() if not isinstance(value, str) or name != str(name)
    )
