"""Shapes and resolutions, as vendors name them, to the size of a file."""

from __future__ import annotations

import re

from service.jobs.job import Presentation

LINES = {"360p": 360, "480p": 480, "540p": 540, "720p": 720, "768p": 768, "1080p": 1080, "2k": 1440, "4k": 2160}
"""Pixels of the shorter side, by the name of the resolution."""

_RATIO = re.compile(r"([1-9][0-9]{0,3}):([1-9][0-9]{0,3})", re.ASCII)


def ratio(text: str) -> tuple[int, int] | None:
    """Width and height of `16:9`, or of `1280:720`; None if it is neither."""
    found = _RATIO.fullmatch(text)
    return None if found is None else (int(found[1]), int(found[2]))


def sized(shape: tuple[int, int], lines: int) -> Presentation:
    """A file of that shape, whose shorter side has `lines` pixels. Both sides are even, as H.264 needs them."""
    width, height = shape
    longer = 2 * round(lines * max(shape) / min(shape) / 2)
    return Presentation(longer, lines) if width >= height else Presentation(lines, longer)
