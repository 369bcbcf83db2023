"""Images and videos as callers send them, sound and not."""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image

from model_core.media import Frames, encode_mp4


def picture(height: int = 60, width: int = 80, seed: int = 1) -> Image.Image:
    """Smooth, and different everywhere."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def moving(frames: int, height: int = 64, width: int = 64) -> Frames:
    """`[N, H, W, 3]`: a bright square that goes right, a pixel a frame, on a grey ground whose brightness tells the frame."""
    out = np.empty((frames, height, width, 3), np.uint8)
    for index in range(frames):
        out[index] = min(40 + 3 * index, 220)
        out[index, 20:40, 4 + index : 24 + index] = 230
    return out


def video(frames: int, fps: int = 24, height: int = 64, width: int = 64) -> bytes:
    return encode_mp4(moving(frames, height, width), fps)


def coded(frames: Frames, codec: str, *more: Frames) -> bytes:
    """An MP4 of one stream by any encoder; `more` are coded on their own, and follow in the same stream."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream: Any = container.add_stream(codec, rate=24)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        at = 0
        for part in (frames, *more):
            encoder = stream if at == 0 else _encoder(codec, part)
            images = [av.VideoFrame.from_ndarray(frame, "rgb24") for frame in part]
            for packet in [packet for image in (*images, None) for packet in encoder.encode(image)]:
                if at:
                    packet.stream = stream
                    packet.pts = packet.dts = packet.pts + at
                container.mux(packet)
            at += len(part)
    return out.getvalue()


def _encoder(codec: str, frames: Frames) -> Any:
    encoder: Any = av.CodecContext.create(codec, "w")
    encoder.height, encoder.width, encoder.pix_fmt, encoder.time_base = frames.shape[1], frames.shape[2], "yuv420p", Fraction(1, 24)
    return encoder


def bomb(width: int, height: int) -> bytes:
    """A sound PNG of a few kilobytes that unpacks to `width * height` grey pixels."""

    def box(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + box(b"IHDR", header) + box(b"IDAT", rows) + box(b"IEND", b"")
