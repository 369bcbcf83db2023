"""Frames of any codec as pixels."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from headrace.cli.console import Failure
from headrace.cli.fragments import Fragments

if TYPE_CHECKING:
    from headrace.v1 import video_pb2 as wire
    from model_core.media import Frames


class Decoder:
    """Decodes what one session sends.

    Args:
        started: says how it is coded.
    """

    def __init__(self, started: wire.Started) -> None:
        self._started = started
        self._fragments = Fragments()

    def pixels(self, event: wire.Frames) -> Frames | None:
        """The frames `[N, H, W, 3]`; None for a part of a fragment that is not the last. Raises Failure: they cannot be decoded."""
        import numpy as np

        from headrace.v1 import video_pb2 as pb

        started = self._started
        match started.codec:
            case pb.CODEC_RAW_RGB:
                return np.frombuffer(b"".join(event.data), np.uint8).reshape(event.frame_count, started.height, started.width, 3)
            case pb.CODEC_JPEG:
                return np.stack([_picture(data) for data in event.data])
            case pb.CODEC_FMP4_H264:
                fragment = self._fragments.whole(event)
                return None if fragment is None else _fragment(started.codec_header + fragment)
            case unknown:
                raise Failure(f"the session's frames must be of a codec that this version knows; got {unknown}")


def _picture(data: bytes) -> Frames:
    import numpy as np
    from PIL import Image

    try:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except OSError as error:
        raise Failure(f"the server sent a picture that cannot be decoded: {error}") from None


def _fragment(data: bytes) -> Frames:
    import av
    import numpy as np

    try:
        with av.open(io.BytesIO(data), "r") as container:
            return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    except (av.FFmpegError, ValueError) as error:
        raise Failure(f"the server sent a fragment that cannot be decoded: {error}") from None
