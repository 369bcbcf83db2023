"""How frames leave the stage that makes them last."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_core import media
from model_core.types import Codec

JPEG_QUALITY = 90


def coded(codec: Codec, pixels: NDArray[np.uint8], first_frame: int, fps: int) -> tuple[bytes, ...]:
    """Frames `[N, H, W, 3]` as `FrameChunk.data`; the first of them is `first_frame` of the session."""
    match codec:
        case Codec.RAW_RGB:
            return tuple(frame.tobytes() for frame in pixels)
        case Codec.JPEG:
            return tuple(media.jpeg(frame, JPEG_QUALITY) for frame in pixels)
        case Codec.FMP4_H264:
            return (media.fmp4_fragment(pixels, first_frame, fps),)
