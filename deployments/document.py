"""Reads a deploy document: `serve.yaml` as plain values, in the shape that Ray Serve asks for, or an error that names the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from deployments.config import FRONT_DOOR, FUSED_DEPLOYMENT, STAGE_DEPLOYMENTS
from deployments.scaling_config import violations
from model_core.errors import FieldViolation, InvalidRequest


def read_document(path: Path) -> dict[str, Any]:
    """The document in `path`: one mapping that Serve's schema accepts. The application's own arguments are not looked at.

    Raises:
        InvalidRequest: the file is no YAML, or a key is not what Serve takes; it names the key, what it must be and what it is.
        OSError: the file cannot be read.
    """
    try:
        document = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # bytes that are no text, dates that do not exist, endless nesting
        raise _invalid(path.name, f"must be YAML; {_where(error)}") from None
    if not isinstance(document, dict):
        raise _invalid(path.name, f"must be a mapping with the key 'applications'; got {_shown(document)}")
    _check_blocks(document)
    try:
        ServeDeploySchema.model_validate(document)
    except ValidationError as error:
        raise InvalidRequest(violations("", error)) from None
    for index, app in enumerate(document["applications"]):
        runtime_env = app.get("runtime_env", {})
        env_vars = runtime_env.get("env_vars", {})
        if not isinstance(env_vars, dict) or not all(isinstance(v, str) for pair in env_vars.items() for v in pair):
            raise _invalid(f"applications.{index}.runtime_env.env_vars", f"must map names to quoted text; got {_shown(env_vars)}")
    return document


def check_deployments(blocks: list[dict[str, Any]], mode: str) -> None:
    """Check that the application has a deployment for each block: Serve would only find out at the start.

    Raises:
        InvalidRequest: it names the block that has none.
    """
    stages = STAGE_DEPLOYMENTS.values() if mode == "staged" else (FUSED_DEPLOYMENT,)
    known = (*stages, FRONT_DOOR)
    for block in blocks:
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


def _invalid(field: str, sentence: str) -> InvalidRequest:
    return InvalidRequest((FieldViolation(field, sentence),))


def _where(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"line {mark.line + 1}, column {mark.column + 1}: {getattr(error, 'problem', None) or 'it cannot be read'}"
    return ascii(f"{type(error).__name__}: {error}"[:120])[1:-1]


def _shown(value: object) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {str(value)[:64]!r}"
