"""A picture and a clip to send. It needs PyAV, and nothing of Headrace."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import av

SIDE = 64
FPS = 24
_RED = b"\xd0\x20\x20"


def png() -> bytes:
    """A red square."""
    return _encoded("png", "image2pipe", 1, "rgb24")


def mp4(frames: int = 24) -> bytes:
    """A red square for so many frames."""
    return _encoded("libx264", "mp4", frames, "yuv420p")


def _encoded(codec: str, container: str, frames: int, pixels: str) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format=container) as written:
        stream: Any = written.add_stream(codec, rate=Fraction(FPS))
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, pixels
        for number in range(frames):
            frame = av.VideoFrame(SIDE, SIDE, "rgb24")
            line = frame.planes[0].line_size
            frame.planes[0].update((_RED * SIDE).ljust(line, b"\0") * SIDE)
            frame.pts = number
            written.mux(stream.encode(frame.reformat(format=pixels)))
        written.mux(stream.encode(None))
    return out.getvalue()
