"""Reads a deploy document: `serve.yaml` as plain values, in the shape that Ray Serve asks for, or an error that names the key."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.schema import DeploymentSchema, RayActorOptionsSchema, ServeApplicationSchema, ServeDeploySchema

from deployments.config.names import ENHANCER_DEPLOYMENT, FRONT_DOOR, FUSED_DEPLOYMENT, STAGE_DEPLOYMENTS
from deployments.config.problems import MOVED_CODE, SCALING_MOVED, no_such_key, shown, violations
from deployments.config.scaling import ScalingSettings
from deployments.config.serve_values import wrong_environment, wrong_numbers, wrong_route
from model_core.errors import FieldViolation, InvalidRequest


class _Loader(yaml.SafeLoader):
    """Of a key that is given twice YAML's own loader takes the later value without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value if node.id == "mapping" else ():
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key.value[:64]!r} is given twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_document(path: Path) -> dict[str, Any]:
    """The document in `path`: one mapping that Serve's schema accepts. The application's own arguments are not looked at.

    Raises:
        InvalidRequest: the file is no YAML, or a key is not what Serve takes; it names the key, what it must be and what it is.
        OSError: the file cannot be read.
    """
    try:
        document = yaml.load(path.read_bytes(), _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # bytes that are no text, dates that do not exist, endless nesting
        raise _invalid(path.name, f"must be YAML; {_where(error)}") from None
    if not isinstance(document, dict):
        raise _invalid(path.name, f"must be a mapping with the key 'applications'; got {_shown(document)}")
    _check_blocks(document)
    try:
        ServeDeploySchema.model_validate(document)
    except ValidationError as error:
        raise InvalidRequest(violations("", error)) from None
    if found := tuple(_overlooked(document)) or tuple(wrong_numbers("", document, ServeDeploySchema)):
        raise InvalidRequest(found)
    return document


def check_deployments(blocks: list[dict[str, Any]], mode: str, *, enhances: bool = False) -> None:
    """Check that the application has a deployment for each block: Serve would only find out at the start.

    Raises:
        InvalidRequest: it names the block that has none.
    """
    stages = STAGE_DEPLOYMENTS.values() if mode == "staged" else (FUSED_DEPLOYMENT,)
    known = (*stages, *([ENHANCER_DEPLOYMENT] if enhances and mode == "staged" else ()), FRONT_DOOR)
    names = [block["name"] for block in blocks]
    for block in blocks:
        if names.count(block["name"]) > 1:
            raise _invalid("deployments.name", f"must be given once for each deployment; got {block['name']!r} twice")
        if block["name"] not in known:
            raise _invalid("deployments.name", f"must be one of {', '.join(known)} in mode {mode}; got {block['name']!r}")


def _check_blocks(document: dict[str, Any]) -> None:
    """Serve 2.60 takes for granted that a deployment is a mapping, and fails with an AttributeError."""
    apps = document.get("applications")
    for a, app in enumerate(apps if isinstance(apps, list) else []):
        blocks = app.get("deployments") if isinstance(app, dict) else None
        for b, block in enumerate(blocks if isinstance(blocks, list) else []):
            if not isinstance(block, dict):
                raise _invalid(f"applications.{a}.deployments.{b}", f"must be a mapping with the key 'name'; got {_shown(block)}")


def _overlooked(document: Mapping[str, Any]) -> Iterator[FieldViolation]:
    """What Serve 2.60 finds out after it has accepted the document, or never: it passes over keys that it does not know."""
    yield from _unknown("", document, ServeDeploySchema)
    for a, app in enumerate(document["applications"]):
        path = f"applications.{a}"
        yield from _unknown(path, app, ServeApplicationSchema)
        yield from wrong_route(f"{path}.route_prefix", app.get("route_prefix"))
        yield from wrong_environment(f"{path}.runtime_env", app.get("runtime_env"))
        yield from _policy(f"{path}.autoscaling_policy", app.get("autoscaling_policy"))
        for b, block in enumerate(app.get("deployments") or []):
            yield from _deployment(f"{path}.deployments.{b}", block)


def _deployment(path: str, block: Mapping[str, Any]) -> Iterator[FieldViolation]:
    yield from _unknown(path, block, DeploymentSchema)
    options, scaling = block.get("ray_actor_options"), block.get("autoscaling_config")
    if isinstance(options, Mapping):
        yield from _unknown(f"{path}.ray_actor_options", options, RayActorOptionsSchema)
        yield from wrong_environment(f"{path}.ray_actor_options.runtime_env", options.get("runtime_env"))
        for name, amount in (options.get("resources") or {}).items():
            if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < math.inf:
                yield FieldViolation(f"{path}.ray_actor_options.resources.{name}", f"must be a number from 0 on; got {_shown(amount)}")
    if isinstance(scaling, Mapping):
        path = f"{path}.autoscaling_config"
        yield from _unknown(path, scaling, AutoscalingConfig)
        try:
            AutoscalingConfig.model_validate({key: value for key, value in scaling.items() if key != "policy"})
        except ValidationError as error:
            yield from violations(path, error)
        yield from _policy(f"{path}.policy", scaling.get("policy"))


def _policy(path: str, policy: object) -> Iterator[FieldViolation]:
    if policy is None:
        return
    if not isinstance(policy, Mapping):
        yield FieldViolation(path, f"must be a mapping with the key 'policy_function'; got {_shown(policy)}")
        return
    yield from _unknown(path, policy, AutoscalingPolicy)
    yield from _moved(path, policy)
    try:
        AutoscalingPolicy(**{str(key): value for key, value in policy.items()})
    except ValidationError as error:
        yield from violations(path, error)
    except (ImportError, AttributeError, ValueError) as error:
        yield FieldViolation(f"{path}.policy_function", f"must be one that can be imported, MODULE:NAME; got {error}")


def _moved(path: str, policy: Mapping[str, Any]) -> Iterator[FieldViolation]:
    """What an earlier Headrace took in the block of its policy. Serve would fail with it only in its controller."""
    given, arguments = policy.get("policy_function"), policy.get("policy_kwargs")
    if (now := MOVED_CODE.get(str(given))) is not None:
        yield FieldViolation(f"{path}.policy_function", f"must be {now!r}, its name now; got {given!r}")
    for key in arguments if isinstance(arguments, Mapping) else ():
        if key in ScalingSettings.model_fields:
            field = f"{path}.policy_kwargs.{key}"
            yield FieldViolation(field, f"must be given as {SCALING_MOVED.format(key)}; got {key!r}, its old place")


def _unknown(path: str, block: Mapping[str, Any], schema: type[BaseModel]) -> Iterator[FieldViolation]:
    for key in block:
        if key not in schema.model_fields:
            field = f"{path}.{str(key)[:64]}".lstrip(".")
            yield FieldViolation(field, no_such_key(field, str(key), schema.model_fields, "that Serve knows"))


def _invalid(field: str, sentence: str) -> InvalidRequest:
    return InvalidRequest((FieldViolation(field, sentence),))


def _where(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"line {mark.line + 1}, column {mark.column + 1}: {getattr(error, 'problem', None) or 'it cannot be read'}"
    return ascii(f"{type(error).__name__}: {error}"[:120])[1:-1]


def _shown(value: object) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {shown(value)!r}"
