"""Frames to VP9, one packet a frame: the stock client shows each packet as one frame, and decodes them in order."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame

# `lag-in-frames` 0, so that no packet waits for later frames, and no frame that is never shown is made. One thread: pictures are small.
_OPTIONS = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "error-resilient": "0", "crf": "24", "b": "0"}


class Vp9Encoder:
    """Encodes one stream. One thread at a time may use it.

    Args:
        width, height: even.
        fps: media rate.
    """

    def __init__(self, width: int, height: int, fps: int) -> None:
        self._width, self._height = width, height
        context = av.CodecContext.create("libvpx-vp9", "w")
        if not isinstance(context, VideoCodecContext):
            raise TypeError("libvpx-vp9 is no video encoder")
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.time_base, context.framerate = Fraction(1, fps), Fraction(fps)
        context.thread_count = 1
        context.options = _OPTIONS
        self._context = context
        self._frames = 0

    def encode(self, frames: Sequence[bytes], *, fresh: bool = False) -> list[bytes]:
        """A packet for each of `frames`, which are RGB, row by row. With `fresh`, the first one can be decoded by itself.

        Raises:
            RuntimeError: the encoder kept a frame back.
        """
        packets: list[bytes] = []
        for index, pixels in enumerate(frames):
            shaped = np.frombuffer(pixels, np.uint8).reshape(self._height, self._width, 3)
            picture = VideoFrame.from_ndarray(shaped, format="rgb24")
            picture.pts, picture.time_base = self._frames, self._context.time_base
            picture.pict_type = PictureType.I if fresh and index == 0 else PictureType.NONE
            self._frames += 1
            packets += [bytes(packet) for packet in self._context.encode(picture)]
        if len(packets) != len(frames):
            raise RuntimeError(f"libvpx made {len(packets)} packets of {len(frames)} frames")
        return packets
