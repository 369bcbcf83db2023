"""The stages of a product that has the toy besides its own families: what `headrace compile` is pointed at."""

from __future__ import annotations

from model_core import local
from model_core.config import EngineConfig, ModelConfig
from model_core.families.registry import FAMILIES
from model_core.graphs import GraphSpec

FOLDERS = (
    *FAMILIES,
    "tests.toy_family",
)


def build_graphs(config: ModelConfig, engine: EngineConfig) -> list[GraphSpec]:
    return local.build_graphs(config, engine, FOLDERS)
