"""Images and videos that callers send: what can be said of them without a decoder.

Size and signature are checked here, which takes no time. Everything else about a file is found out in a separate process (`decoders`),
because whoever wrote the file decides how much a decoder allocates and how long it takes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from model_core.config import Media, ModelConfig

# A request is one message, whose bytes gRPC counts in 32 bits. The other two are for the process that decodes, whose limits have 64.
_MOST_BYTES, _MOST_SECONDS, _MOST_MEMORY = 256 * 1024 * 1024, 24 * 3600, 1 << 40
MEDIA: tuple[Media, ...] = ("image", "video")

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")
VIDEO_FORMATS = ("MP4",)


def bounded(name: str, value: float, most: float = math.inf) -> None:
    """Raises ValueError where a limit is not above 0, or above `most`, or no number."""
    if not (0 < value <= most and math.isfinite(value)):
        upto = "" if math.isinf(most) else f" up to {most}"
        raise ValueError(f"{name} must be a number above 0{upto}; got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadLimits:
    """Of an image, and of a video.

    Attributes:
        max_image_bytes, max_video_bytes: of the file.
        max_image_pixels, max_video_pixels: of a frame, width times height.
        max_image_seconds, max_video_seconds: of processor time that decoding may take.
        max_decode_bytes: of memory that decoding may take, for both.
    """

    max_image_bytes: int = 8 * 1024 * 1024
    max_image_pixels: int = 24_000_000
    max_image_seconds: int = 5
    max_video_bytes: int = 8 * 1024 * 1024
    max_video_pixels: int = 4_000_000
    max_video_seconds: int = 30
    max_decode_bytes: int = 768 * 1024 * 1024

    def __post_init__(self) -> None:
        """Raises ValueError where a limit would let nothing through, or a file that no request can hold."""
        for kind in MEDIA:
            bounded(f"max_{kind}_bytes", self.max_bytes(kind), _MOST_BYTES)
            bounded(f"max_{kind}_pixels", self.max_pixels(kind))
            bounded(f"max_{kind}_seconds", self.max_seconds(kind), _MOST_SECONDS)
        bounded("max_decode_bytes", self.max_decode_bytes, _MOST_MEMORY)

    def max_bytes(self, kind: Media) -> int:
        return self.max_image_bytes if kind == "image" else self.max_video_bytes

    def max_pixels(self, kind: Media) -> int:
        return self.max_image_pixels if kind == "image" else self.max_video_pixels

    def max_seconds(self, kind: Media) -> int:
        return self.max_image_seconds if kind == "image" else self.max_video_seconds


@dataclass(slots=True)
class Upload:
    """A file as it came, not yet decoded. `field` is its path in the message. Call `forget` once it is decoded."""

    kind: Media
    data: bytes
    field: str
    limits: UploadLimits

    def problem(self) -> str | None:
        """What its size and its first bytes say; None for nothing."""
        if (size := len(self.data)) > (most := self.limits.max_bytes(self.kind)):
            return f"must be at most {most} bytes; got {size}"
        if self.kind == "image":
            known = self.data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")) or (self.data[:4], self.data[8:12]) == (b"RIFF", b"WEBP")
            return None if known else f"must be one of {', '.join(IMAGE_FORMATS)}; got {shown(self.data)}"
        return None if self.data[4:8] == b"ftyp" else f"must be an {' or '.join(VIDEO_FORMATS)} file; got {shown(self.data)}"

    def forget(self) -> None:
        """Let go of the bytes: a session lasts much longer than they are of use."""
        self.data = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a decoder is to make of a file: `least` to `most` frames of `height` by `width`, at `fps` for `model`."""

    kind: Media
    max_pixels: int
    height: int
    width: int
    fps: int
    least: int
    most: int
    model: str

    @classmethod
    def of(cls, upload: Upload, config: ModelConfig) -> Wanted:
        least, most = (1, 1) if upload.kind == "image" else (config.grid.first_frame(1), config.media_frames)
        return cls(
            kind=upload.kind, max_pixels=upload.limits.max_pixels(upload.kind), height=config.height, width=config.width, fps=config.fps,
            least=least, most=most, model=config.name,
        )  # fmt: skip


class Refused(Exception):
    """A sentence with the limit and the value."""


def shown(data: bytes) -> str:
    """The beginning of a file, for a status message."""
    return f"{len(data)} bytes that begin with {data[:8]!a}" if data else "nothing"
