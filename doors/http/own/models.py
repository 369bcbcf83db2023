"""`GET /v1/models`: OpenAI's list, with what our own callers want to know beside it."""

from __future__ import annotations

import math
from typing import Any

from model_core.config import ModelConfig
from service.intake import Intake


def listed(intake: Intake, created: int) -> dict[str, Any]:
    """All models, in the order of their names."""
    models = intake.catalogue.models
    return {"object": "list", "data": [described(models[name], intake, created) for name in sorted(models)]}


def described(config: ModelConfig, intake: Intake, created: int) -> dict[str, Any]:
    """One of them."""
    catalogue, limits, frames = intake.catalogue, intake.limits, config.grid.max_frames
    longest = math.inf if frames is None else frames / config.fps
    return {
        "id": config.name, "object": "model", "created": created, "owned_by": "headrace",
        "description": config.description, "default": config.name == catalogue.default,
        "aliases": sorted(name for name, meant in catalogue.aliases.items() if meant == config.name),
        "width": config.width, "height": config.height, "fps": config.fps, "frames_per_chunk": config.frames_per_chunk,
        "steps": {"default": config.num_steps, "min": config.min_steps, "max": config.max_steps},
        "guidance": {"default": config.guidance, "max": config.max_guidance, "negative_prompt": config.negative_prompt},
        "enhances": config.name in catalogue.enhancing,
        "keys": list(config.keys),
        "max_prompt_bytes": limits.max_prompt_bytes, "max_prompt_tokens": config.max_prompt_tokens,
        "max_stream_seconds": min(limits.max_stream_seconds, longest), "max_job_seconds": min(intake.max_job_seconds, longest),
        "media": [
            {"kind": kind, "required": config.needs_media, "max_bytes": limits.uploads.max_bytes(kind)} for kind in config.media
        ],
        "restyles": config.restyles, "max_source_bytes": limits.max_source_bytes if config.restyles else 0,
    }  # fmt: skip
