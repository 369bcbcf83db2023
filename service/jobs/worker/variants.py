"""Pictures of a finished video: a thumbnail, and a sheet of frames. They take their time, so call them in a thread."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from PIL import Image

_THUMBNAIL_SIZE = (640, 640)
_TILE_SIZE = (192, 192)
_COLUMNS, _ROWS = 5, 2


def thumbnail(video: Path) -> bytes:
    """The first frame as WebP, at most 640 pixels wide and high.

    Raises:
        ValueError: there is no frame.
    """
    for picture in _pictures(video, 1):
        picture.thumbnail(_THUMBNAIL_SIZE)
        out = io.BytesIO()
        picture.save(out, "WEBP", quality=85)
        return out.getvalue()
    raise ValueError("a thumbnail needs a frame; got none")


def spritesheet(video: Path) -> bytes:
    """Frames at equal distances as tiles of one JPEG, row by row. A short video fills the rest with black.

    Raises:
        ValueError: there is no frame.
    """
    tiles = []
    for picture in _pictures(video, _COLUMNS * _ROWS):
        picture.thumbnail(_TILE_SIZE)
        tiles.append(picture)
    if not tiles:
        raise ValueError("a sheet needs a frame; got none")
    width, height = tiles[0].size
    sheet = Image.new("RGB", (_COLUMNS * width, _ROWS * height))
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (number % _COLUMNS * width, number // _COLUMNS * height))
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=85)
    return out.getvalue()


def _pictures(video: Path, count: int) -> Iterator[Image.Image]:
    """Up to `count` frames at equal distances. Each is sought by itself: a long video is not decoded as a whole."""
    with av.open(str(video), "r") as container:
        stream = container.streams.video[0]
        frames, rate, unit = stream.frames, stream.average_rate, stream.time_base
        if not frames or not rate or not unit:
            return
        for number in sorted({index * frames // count for index in range(count)}):
            moment = round(number / rate / unit)
            container.seek(moment, stream=stream)
            for frame in container.decode(stream):
                if frame.pts is not None and frame.pts >= moment:
                    yield Image.fromarray(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
                    break
