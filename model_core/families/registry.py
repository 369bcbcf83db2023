"""Families by name. A family is imported when it is first wanted: their libraries are heavy."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from model_core.families.interface import Family

MODULES = {
    "anyflow-far": "model_core.families.anyflow.parts",
    "causal-wan": "model_core.families.causal_wan.parts",
    "millrace": "model_core.families.millrace.parts",
    "wan": "model_core.families.wan.parts",
    "ltx": "model_core.families.ltx.parts",
    "cogvideox": "model_core.families.cogvideox.parts",
    "wan-image": "model_core.families.wan_image.parts",
}


def family(name: str) -> Family:
    """The family called `name`: what `ModelConfig.family` says."""
    return cast("Family", import_module(MODULES[name]))
