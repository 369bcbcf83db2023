"""Images and videos that callers send: bytes that nobody vouches for, in; frames at the size that is served, out.

What a file is, its content says, not its name. Only the formats below are opened, nothing is fetched, and size in bytes, pixels and frames
is judged before anything is decoded. Equal bytes give equal frames: an image keeps its proportions, is cut around its centre to those that
are served, and is resampled with a Lanczos filter; one that has the size already is left as it is. Of a video, frames are taken at the
model's rate, as a player shows them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from model_core.config import Media, ModelConfig
from model_core.errors import FieldViolation, InvalidRequest
from model_core.types import Footage

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")
VIDEO_FORMATS = ("MP4",)
VIDEO_CODECS = ("h264", "hevc", "vp9", "av1", "mpeg4")
_IMAGE_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_DECODED_FOR_TAKEN = 8  # frames, at most
_SAME_TIME_S = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadLimits:
    """Of an image, and of a video: bytes, and pixels of a frame (width times height)."""

    max_image_bytes: int = 8 * 1024 * 1024
    max_image_pixels: int = 24_000_000
    max_video_bytes: int = 8 * 1024 * 1024
    max_video_pixels: int = 4_000_000

    def max_bytes(self, kind: Media) -> int:
        return self.max_image_bytes if kind == "image" else self.max_video_bytes

    def max_pixels(self, kind: Media) -> int:
        return self.max_image_pixels if kind == "image" else self.max_video_pixels


@dataclass(frozen=True, slots=True)
class Upload:
    """A file as it came, not yet decoded. `field` is its path in the message."""

    kind: Media
    data: bytes
    field: str
    limits: UploadLimits

    def problem(self) -> str | None:
        """What can be said without decoding a pixel; None for nothing."""
        if (size := len(self.data)) > (most := self.limits.max_bytes(self.kind)):
            return f"must be at most {most} bytes; got {size}"
        if self.kind == "video":
            return None if self.data[4:8] == b"ftyp" else f"must be an {' or '.join(VIDEO_FORMATS)} file; got {_shown(self.data)}"
        try:
            self._checked_image()
        except _Refused as refused:
            return str(refused)
        return None

    def footage(self, config: ModelConfig) -> Footage:
        """Its frames at the size of `config`. Blocks for as long as decoding takes.

        Raises:
            InvalidRequest: it cannot be decoded, or breaks a limit that only shows in its content.
        """
        try:
            if self.kind == "image":
                return Footage(self._image(config)[None])
            return Footage(self._video(config))
        except _Refused as refused:
            raise InvalidRequest((FieldViolation(self.field, str(refused)),)) from None

    def _checked_image(self) -> Image.Image:
        """Header read, nothing decoded."""
        try:
            image = Image.open(io.BytesIO(self.data), formats=IMAGE_FORMATS)
        except Image.DecompressionBombError as error:
            raise _Refused(f"must have 1 to {self.limits.max_image_pixels} pixels; got far more") from error
        except Exception as error:
            raise _Refused(f"must be one of {', '.join(IMAGE_FORMATS)}; got {_shown(self.data)}") from error
        self._check_pixels(image.width, image.height)
        if image.mode not in _IMAGE_MODES:
            raise _Refused(f"must have 8 bits a channel; got mode {image.mode}")
        return image

    def _check_pixels(self, width: int, height: int) -> None:
        if not 0 < width * height <= (most := self.limits.max_pixels(self.kind)):
            raise _Refused(f"must have 1 to {most} pixels; got {width}x{height}")

    def _image(self, config: ModelConfig) -> NDArray[np.uint8]:
        image = self._checked_image()
        try:
            image.verify()  # a PNG's checksums, which decoding does not look at; what was verified cannot be decoded
            image = self._checked_image()
            ImageOps.exif_transpose(image, in_place=True)
            return _fitted(image if image.mode == "RGB" else image.convert("RGB"), config)  # each copy of a large image counts
        except Exception as error:  # a decoder of broken data raises errors of many kinds
            raise _Refused(f"must be a whole {image.format} image; got one that cannot be decoded: {_reason(error)}") from error

    def _video(self, config: ModelConfig) -> NDArray[np.uint8]:
        """`[N, H, W, 3]`: as many frames of its end as fill whole chunks."""
        import av  # noqa: PLC0415 - large, and only a video needs it

        try:
            with av.open(io.BytesIO(self.data), "r", format="mp4") as container:
                frames = list(self._taken(container, config))
        except _Refused:
            raise
        except Exception as error:  # as above
            raise _Refused(f"must be a whole MP4 file; got one that cannot be decoded: {_reason(error)}") from error
        grid = config.grid
        least, most = grid.first_frame(1), config.media_frames
        if not least <= len(frames) <= most:
            got = f"more than {most}" if len(frames) > most else str(len(frames))
            raise _Refused(f"must last {least} to {most} frames at {config.fps} a second for model {config.name}; got {got}")
        whole = grid.first_frame(grid.chunk_of(len(frames)))
        return np.stack(frames[len(frames) - whole :])

    def _taken(self, container: InputContainer, config: ModelConfig) -> Iterator[NDArray[np.uint8]]:
        """What is on screen at 0, 1/fps, 2/fps ... seconds; one frame more than the model takes, at most."""
        taken, start = 0, None
        for decoded, frame in enumerate(self._decoded(container)):
            if decoded >= _DECODED_FOR_TAKEN * (config.media_frames + 1):
                raise _Refused(f"must have at most {_DECODED_FOR_TAKEN * config.fps} frames a second; got more")
            start = frame.time if start is None else start
            ends_at = frame.time - start + float(frame.duration * (frame.time_base or 0))
            if taken / config.fps < ends_at - _SAME_TIME_S:
                pixels = _fitted(Image.fromarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)), config)
            while taken / config.fps < ends_at - _SAME_TIME_S:
                yield pixels
                taken += 1
                if taken > config.media_frames:
                    return

    def _decoded(self, container: InputContainer) -> Iterator[VideoFrame]:
        if not container.streams.video:
            raise _Refused("must hold a video; got none")
        stream = container.streams.video[0]
        context = stream.codec_context
        if context.name not in VIDEO_CODECS:
            raise _Refused(f"must be coded as one of {', '.join(VIDEO_CODECS)}; got {context.name}")
        self._check_pixels(context.width, context.height)
        # The size may change within the stream: the decoder then refuses what is larger.
        context.options = {"max_pixels": str(self.limits.max_video_pixels)}
        context.thread_count = 1
        yield from container.decode(stream)


class _Refused(Exception):
    """A sentence with the limit and the value."""


def _fitted(image: Image.Image, config: ModelConfig) -> NDArray[np.uint8]:
    """`[H, W, 3]`."""
    return np.asarray(ImageOps.fit(image, (config.width, config.height), Image.Resampling.LANCZOS))


def _shown(data: bytes) -> str:
    return f"{len(data)} bytes that begin with {data[:8]!a}" if data else "nothing"


def _reason(error: Exception) -> str:
    """Short and plain: what a decoder says may quote the file."""
    return ascii(f"{type(error).__name__}: {error}"[:120])[1:-1]
