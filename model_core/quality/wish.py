"""What to measure of a file. Loads without torch and without a decoder."""

from __future__ import annotations

from dataclasses import dataclass

from model_core.config import MillraceConfig, ModelConfig
from model_core.quality.words import SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What to measure of a file.

    Attributes:
        prompt: that a detector compares it with; empty for none.
        prompt_frames: the first so many frames show that prompt; None for all.
        most_frames: of a longer file, so many are looked at, in runs of 40 at equal distances; None for all.
        content: left, top, width and height of what is looked at, in pixels; None for the whole picture.
    """

    prompt: str = ""
    prompt_frames: int | None = None
    most_frames: int | None = None
    content: tuple[int, int, int, int] | None = None


def has_detector(config: ModelConfig) -> bool:
    """Whether what the model draws can be compared with a prompt."""
    return isinstance(config, MillraceConfig) and (config.width, config.height) == (SIZE, SIZE)
