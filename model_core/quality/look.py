"""Measures a video file: every frame once, with bounded memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from model_core.quality.measures import Meter
from model_core.quality.values import Quality
from model_core.quality.video import Reader, bad_file, opened
from model_core.quality.wish import Wish
from model_core.quality.words import asked_for

if TYPE_CHECKING:
    from model_core.quality.adherence import Judge


def look(path: Path, field: str, wish: Wish) -> Quality:
    """Measure the file at `path`, which errors name `field`.

    Raises:
        InvalidRequest: it is no video, or too large, or damaged.
        OSError: it cannot be read.
    """
    judge, meter, reader = _judge(wish.prompt), Meter(), Reader()
    with opened(path, field) as video:
        left, top, width, height = wish.content or (0, 0, video.width, video.height)
        for frame in video.pictures(wish.most_frames):
            pixels = reader.rgb(frame.picture)[top : top + height, left : left + width]
            if frame.begins:
                meter.cut()
            meter.add(pixels[None])
            if judge is not None and (wish.prompt_frames is None or frame.number < wish.prompt_frames):
                if frame.begins:
                    judge.cut()
                judge.add(pixels)
    if not meter.frames:
        raise bad_file(field, "must have a frame; got none")
    return Quality(measures=meter.measures(), adherence=None if judge is None else judge.adherence())


def _judge(prompt: str) -> Judge | None:
    asked = asked_for(prompt)
    if not asked:
        return None
    from model_core.quality.adherence import Judge  # noqa: PLC0415 - torch takes longer to load than most videos to measure

    return Judge(asked)
