"""A contact sheet of what was evaluated: one row a prompt, its words above its frames. The first prompts of the evaluation, none picked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from model_core.media import upscale
from training.evaluate import Evaluator

STEADY_ROWS, SWITCH_ROWS = 10, 2
COLUMNS = 10
_SCALE, _GAP, _TEXT_PX = 2, 4, 15


@dataclass(frozen=True, slots=True)
class Strip:
    """One row: what it says, uint8 frames `[N, 3, H, W]`, and the first frame of the second prompt, if there is one."""

    text: str
    frames: Tensor
    switched_at: int | None = None


def draw_strips(evaluator: Evaluator, chunks: int) -> list[Strip]:
    """The first prompts as evaluated, then some that switch half-way; fewer where the evaluation has fewer."""
    n = evaluator.config.frames_per_chunk
    steady = range(min(STEADY_ROWS, evaluator.count))
    steered = range(len(steady), min(len(steady) + SWITCH_ROWS, evaluator.count))
    frames = evaluator.draw([evaluator.prompts[i] for i in steady], steady, chunks)
    strips = [Strip(evaluator.prompts[i], frames[i]) for i in steady]
    if steered:
        middle = chunks // 2
        prompts, after = ([items[i] for i in steered] for items in (evaluator.prompts, evaluator.next_prompts))
        frames = evaluator.draw(prompts, steered, chunks, middle, after)
        strips += [Strip(f"{a}   >>   {b}", f, middle * n) for a, b, f in zip(prompts, after, frames, strict=True)]
    return strips


def contact_sheet(strips: list[Strip], columns: int = COLUMNS) -> Image.Image:
    """Evenly spaced frames of each strip. Frame numbers stand on top; tiles of a second prompt are framed in red."""
    total = len(strips[0].frames)
    shown = [round(i * (total - 1) / (columns - 1)) for i in range(columns)]
    side = strips[0].frames.shape[-1] * _SCALE
    line = _TEXT_PX + 2 * _GAP
    sheet = Image.new("RGB", (columns * (side + _GAP) + _GAP, line + len(strips) * (side + line + _GAP)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT_PX)
    for column, index in enumerate(shown):
        draw.text((_GAP + column * (side + _GAP), _GAP), f"frame {index}", fill="gray", font=font)
    for row, strip in enumerate(strips):
        top = line + row * (side + line + _GAP)
        draw.text((_GAP, top + _GAP), strip.text, fill="black", font=font)
        for column, tile in enumerate(_tiles(strip.frames[shown])):
            x, y = _GAP + column * (side + _GAP), top + line
            sheet.paste(Image.fromarray(tile), (x, y))
            if strip.switched_at is not None and shown[column] >= strip.switched_at:
                draw.rectangle((x - 2, y - 2, x + side + 1, y + side + 1), outline=(220, 30, 30), width=2)
    return sheet


def _tiles(frames: Tensor) -> NDArray[np.uint8]:
    return upscale(frames.permute(0, 2, 3, 1).numpy(), _SCALE, "nearest")
