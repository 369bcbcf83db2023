"""Frames of a video file whose owner runs this process, as the source of a session. What callers send is decoded elsewhere: `uploads`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

_SAME_TIME_S = 1e-3


class NoVideo(Exception):
    """A sentence that says why."""


def frames_of(path: Path, height: int, width: int, fps: int) -> Iterator[NDArray[np.uint8]]:
    """What is on screen at 0, 1/fps, 2/fps ... seconds: `[H, W, 3]` each, cut around the centre and scaled. Nothing is stretched.

    Raises:
        NoVideo: the file holds none that can be decoded.
    """
    try:
        with av.open(str(path), "r") as container:
            if not container.streams.video:
                raise NoVideo("it holds no video")
            taken, start = 0, None
            for frame in container.decode(container.streams.video[0]):
                start = frame.time if start is None else start
                shown_until = frame.time - start + float(frame.duration * (frame.time_base or 0)) - _SAME_TIME_S
                if taken / fps >= shown_until:
                    continue
                image = Image.fromarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))
                pixels = np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS))
                while taken / fps < shown_until:
                    yield pixels
                    taken += 1
    except (av.FFmpegError, OSError) as error:
        raise NoVideo(f"{type(error).__name__}: {error}") from error
