"""A model by what a person calls it: a preset's name, or the folder of a checkpoint. Without torch."""

from __future__ import annotations

import os

from model_core.config import ModelConfig
from model_core.errors import FieldViolation, InvalidRequest
from model_core.families.checkpoints.checkpoint import Checkpoint
from model_core.families.described import Choice, describe
from model_core.presets import DEFAULT_MODEL, MODELS


def model_named(model: str = "", *, height: int = 0, width: int = 0, frames: int = 0) -> ModelConfig:
    """The model; empty means the default. Of a checkpoint, zeros leave size and length to its family.

    Raises:
        InvalidRequest: there is no such preset or folder, or a preset was to have another size or length than its own.
        WeightsError: the checkpoint cannot be served, or not in that size or length.
    """
    if (name := model or DEFAULT_MODEL) in MODELS:
        if height or width or frames:
            must = f"must be the folder of a checkpoint where size or frames are given; got {name}"
            raise InvalidRequest((FieldViolation("model", must),))
        return MODELS[name]()
    folder = os.path.abspath(os.path.expanduser(model))  # noqa: PTH100, PTH111 - where pathlib raises for a text that can be no path
    if not os.path.exists(folder):  # noqa: PTH110
        must = f"must be one of: {', '.join(sorted(MODELS))}, or the folder of a checkpoint; got {model[:256]!r}"
        raise InvalidRequest((FieldViolation("model", must),))
    return describe(Choice(checkpoint=Checkpoint(folder=folder), height=height, width=width, frames=frames))
