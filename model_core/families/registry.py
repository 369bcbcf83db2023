"""The list of model families, and what is read of it. A family is a folder with a description; see `model_core.families.common.family`.

Everything that lists families reads it here. It loads without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType

from model_core.families.checkpoints.networks import Network
from model_core.families.common.family import Family, Kind, Tiny

# Folders, one line a family. Where `model_index.json` names a pipeline that two families take, the first is meant.
FAMILIES = (
    "model_core.families.millrace",
    "model_core.families.wan",
    "model_core.families.wan_image",
    "model_core.families.ltx",
    "model_core.families.cogvideox",
    "model_core.families.causal_wan",
    "model_core.families.anyflow",
)


@cache
def families(folders: tuple[str, ...] = FAMILIES) -> Mapping[str, Family]:
    """By name: what `ModelConfig.family` says."""
    described: list[Family] = [import_module(f"{folder}.family").FAMILY for folder in folders]
    return MappingProxyType({family.name: family for family in described})


def family(name: str, folders: tuple[str, ...] = FAMILIES) -> Family:
    """The family called `name`; raises KeyError: there is none."""
    return families(folders)[name]


def kinds(folders: tuple[str, ...] = FAMILIES) -> dict[str, Kind]:
    """Of the families that come as checkpoints, by name."""
    return {name: family.kind for name, family in families(folders).items() if family.kind is not None}


def networks(folders: tuple[str, ...] = FAMILIES) -> dict[str, Network]:
    """Of all checkpoints, by the name of their classes."""
    return {network.name: network for kind in kinds(folders).values() for network in kind.networks}


def family_of_tiny(name: str, folders: tuple[str, ...] = FAMILIES) -> Family:
    """The family of a small checkpoint; raises KeyError: there is none of that name."""
    return {tiny.name: family for family in families(folders).values() for tiny in family.tiny}[name]


def tiny_checkpoints(folders: tuple[str, ...] = FAMILIES) -> dict[str, Tiny]:
    """All small checkpoints, by name."""
    return {tiny.name: tiny for family in families(folders).values() for tiny in family.tiny}
