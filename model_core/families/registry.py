"""Families by name. A family is imported when it is first wanted: their libraries are heavy."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from model_core.families.interface import Family

MODULES = {
    "anyflow-far": "model_core.families.anyflow",
    "causal-wan": "model_core.families.causal_wan",
    "millrace": "model_core.families.millrace",
    "wan": "model_core.families.wan",
    "ltx": "model_core.families.ltx",
    "cogvideox": "model_core.families.cogvideox",
    "wan-image": "model_core.families.wan_image",
}


def family(name: str) -> Family:
    """The family called `name`: what `ModelConfig.family` says."""
    return cast("Family", import_module(MODULES[name]))
