"""The size of a file, and where in it the model's pictures stand: as large as they fit, in the middle. Pure."""

from __future__ import annotations

from model_core.config import ModelConfig
from model_core.file_parts import Placement
from service.jobs.job import Presentation


def placement(presentation: Presentation, config: ModelConfig) -> Placement:
    """Where the pictures of `config` stand in a file of that presentation.

    A side that is 0 follows the other one in the model's shape; both are the model's own where both are 0.
    """
    width, height = presentation.width, presentation.height
    if not width and not height:
        width, height = config.width, config.height
    elif not width:
        width = _even(height * config.width / config.height)
    elif not height:
        height = _even(width * config.height / config.width)
    scale = min(width / config.width, height / config.height)
    inner_width, inner_height = min(width, _even(config.width * scale)), min(height, _even(config.height * scale))
    return Placement(width, height, inner_width, inner_height, (width - inner_width) // 4 * 2, (height - inner_height) // 4 * 2)


def _even(length: float) -> int:
    return max(2, 2 * round(length / 2))
