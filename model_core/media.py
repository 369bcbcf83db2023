"""Pixels to media and back to nothing else: JPEG, H.264 in MP4 (whole, or one fragment a chunk), GIF, contact sheets, hashes.

Pure functions of their arguments: equal frames give equal bytes on any replica. Frames are uint8 RGB, N frames · H, W height and width.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import struct
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.codec.context import Flags
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Frames = NDArray[np.uint8]
Resample = Literal["nearest", "lanczos"]

# One thread: the output then never depends on the machine's core count, and small pictures gain nothing from more.
_LIVE_OPTIONS = {"preset": "ultrafast", "tune": "zerolatency", "crf": "18"}
FILE_OPTIONS = {"preset": "fast", "crf": "16"}
# `avoid_negative_ts` must be off, or the muxer shifts each fragment back to time 0.
_FRAGMENT_OPTIONS = {"movflags": "empty_moov+default_base_moof+frag_discont+skip_trailer", "avoid_negative_ts": "disabled"}
_SEI_NAL_TYPE = 6
_BT601 = 6  # SMPTE 170M in H.273, for matrix, primaries and transfer: what swscale makes of RGB by default
_TV_RANGE = 1


def jpeg(frame: Frames, quality: int = 90) -> bytes:
    """One frame `[H, W, 3]` as a JPEG without chroma subsampling, which would blur the edges of small pictures."""
    out = io.BytesIO()
    Image.fromarray(_checked(frame[None])[0]).save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue()


def fmp4_init_segment(width: int, height: int, fps: int) -> bytes:
    """The initialisation segment (`ftyp`, `moov`) that every fragment of this size and rate follows.

    Raises:
        ValueError: width or height is not a positive even number, or fps is not positive.
    """
    boxes = mp4_boxes(_live_fragment(np.zeros((1, height, width, 3), np.uint8), 0, fps))
    return b"".join(box for kind, box in boxes if kind in (b"ftyp", b"moov"))


def fmp4_fragment(frames: Frames, first_frame: int, fps: int) -> bytes:
    """One fragment (`moof`, `mdat`) holding `frames` `[N, H, W, 3]`, which play from `first_frame / fps` seconds on.

    It begins with an IDR picture and refers to nothing outside itself, so any replica can make the next one.
    The sequence number is `first_frame + 1`: increasing, and known without knowing the fragments before.

    Raises:
        ValueError: as `fmp4_init_segment`; also for no frames, or a negative `first_frame`.
    """
    if first_frame < 0:
        raise ValueError(f"first_frame must be at least 0, got {first_frame}")
    return b"".join(box for kind, box in mp4_boxes(_live_fragment(frames, first_frame, fps)) if kind in (b"moof", b"mdat"))


def encode_mp4(frames: Frames, fps: int) -> bytes:
    """A finished MP4 of `frames` `[N, H, W, 3]`, index in front so that it plays while it loads.

    Raises:
        ValueError: odd width or height, or no frames.
    """
    _checked(frames)
    # Moving the index to the front is a second pass over the file, which the muxer does only for a real file.
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        path = Path(folder) / "video.mp4"
        writer = Mp4Writer(path, fps)
        writer.write(frames)
        writer.close()
        return path.read_bytes()


@dataclass(frozen=True, slots=True)
class FileBound:
    """An MP4 of `frames` frames that should take at most `max_bytes`."""

    max_bytes: int
    frames: int

    def options(self, width: int, height: int, fps: int) -> dict[str, str]:
        """What x264 is told, so that the file fits; nothing where any file of that size does. Noise may still be larger."""
        index_bytes = 4096 + 32 * self.frames
        # A picture in 4:2:0 is 1.5 bytes a pixel, and x264 stores what it cannot compress.
        if index_bytes + 2 * width * height * self.frames <= self.max_bytes:
            return {}
        # The buffer may be full of bits at the start: it counts as one more second.
        rate = int(8 * max(1, self.max_bytes - index_bytes) / (self.frames / fps + 1))
        return {"maxrate": str(rate), "bufsize": str(rate)}


class Mp4Writer:
    """Writes an MP4 as frames come, so that memory does not grow with length. The first frames set the size.

    With `bound`, pictures that would make the file too large are compressed harder.
    """

    def __init__(self, path: Path, fps: int, bound: FileBound | None = None) -> None:
        self._fps = fps
        self._bound = bound
        self._next_frame = 0
        self._container: OutputContainer = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        self._stream: VideoStream | None = None
        self._sound = True

    def write(self, frames: Frames) -> None:
        """Append `frames` `[N, H, W, 3]`.

        Raises:
            ValueError: odd width or height.
            OSError: the file cannot be written. It can only be closed then.
        """
        _checked(frames)
        if self._stream is None:
            height, width = frames.shape[1:3]
            bound = {} if self._bound is None else self._bound.options(width, height, self._fps)
            self._stream = _add_h264(self._container, width, height, self._fps, FILE_OPTIONS | bound)
        for picture in _pictures(frames, self._next_frame, self._fps):
            self._mux(self._stream.encode(picture))
        self._next_frame += len(frames)

    def close(self) -> None:
        """Finish the file. With no frames written, it holds no video. After an error it is only let go of.

        Raises:
            OSError: as in `write`.
        """
        try:
            if self._stream is not None and self._sound:
                self._mux(self._stream.encode())
        finally:
            with nullcontext() if self._sound else suppress(OSError):  # the end of a file that is told broken cannot be written either
                self._container.close()

    def _mux(self, packets: list[Packet[VideoStream]]) -> None:
        """PyAV writes the header with the first packet, and if it cannot, as on a full disk, again with the next, where libav crashes."""
        try:
            self._container.mux(packets)
        except BaseException:
            self._sound = False
            raise


def encode_gif(frames: Frames, fps: int) -> bytes:
    """A looping GIF of `frames` `[N, H, W, 3]`. Frame times are whole centiseconds; their sum keeps to `fps`."""
    _checked(frames)
    ends = [round(100 * i / fps) for i in range(len(frames) + 1)]
    images = [Image.fromarray(f).quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE) for f in frames]
    durations_ms = [10 * (b - a) for a, b in pairwise(ends)]
    out = io.BytesIO()
    images[0].save(out, "GIF", save_all=True, append_images=images[1:], duration=durations_ms, loop=0)
    return out.getvalue()


def upscale(frames: Frames, scale: int, resample: Resample = "lanczos") -> Frames:
    """`frames` `[N, H, W, 3]` enlarged `scale` times for viewing.

    Raises:
        ValueError: `scale` is less than 1.
    """
    if scale < 1:
        raise ValueError(f"scale must be at least 1, got {scale}")
    if scale == 1:
        return frames
    if resample == "nearest":
        return frames.repeat(scale, axis=1).repeat(scale, axis=2)
    size = (frames.shape[2] * scale, frames.shape[1] * scale)
    return np.stack([np.asarray(Image.fromarray(f).resize(size, Image.Resampling.LANCZOS)) for f in frames])


def contact_sheet(
    frames: Frames,
    columns: int = 8,
    every: int = 1,
    scale: int = 2,
    captions: Sequence[str] | None = None,
    marked: Collection[int] = (),
) -> Image.Image:
    """Every `every`-th frame of `frames` `[N, H, W, 3]` as tiles on one picture.

    `captions` and `marked` count tiles, not frames. A caption stands below its tile, cut to its width; marked tiles are framed in red.

    Raises:
        ValueError: a number is less than 1, or captions and tiles differ in number.
    """
    for name, value in (("columns", columns), ("every", every), ("scale", scale)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    tiles = upscale(_checked(frames)[::every], scale, "nearest")
    if captions is not None and len(captions) != len(tiles):
        raise ValueError(f"captions must be as many as tiles, {len(tiles)}, got {len(captions)}")
    height, width = tiles.shape[1:3]
    gap, text_px = 4, 12
    cell_height = height + gap + (text_px + 4 if captions else 0)
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * cell_height + gap), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(text_px)
    for i, tile in enumerate(tiles):
        x, y = gap + i % columns * (width + gap), gap + i // columns * cell_height
        sheet.paste(Image.fromarray(tile), (x, y))
        if i in marked:
            draw.rectangle((x - 3, y - 3, x + width + 2, y + height + 2), outline=(220, 30, 30), width=3)
        if captions:
            draw.text((x, y + height + 3), _fit(captions[i], width, draw, font), fill="black", font=font)
    return sheet


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


class FrameHash:
    """SHA-256 over raw RGB frames in order. How the frames were grouped into chunks does not matter."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, frames: Frames | bytes) -> None:
        """Append frames: an array `[N, H, W, 3]` or `[H, W, 3]`, or their row-major bytes."""
        self._hash.update(frames if isinstance(frames, bytes) else np.ascontiguousarray(frames).data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def frames_sha256(chunks: Iterable[Frames | bytes]) -> str:
    """`FrameHash` over all of `chunks`."""
    digest = FrameHash()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _live_fragment(frames: Frames, first_frame: int, fps: int) -> bytes:
    height, width = _checked(frames).shape[1:3]
    return mux_fragment(_pictures(frames, first_frame, fps), (width, height), first_frame, fps, _LIVE_OPTIONS)


def mux_fragment(pictures: Iterable[VideoFrame], size: tuple[int, int], first_frame: int, fps: int, options: dict[str, str]) -> bytes:
    """A whole fragmented MP4 with one fragment: `ftyp`, `moov`, `moof`, `mdat`. `size` is width and height; `options` are x264's.

    Raises:
        ValueError: as `fmp4_init_segment`.
    """
    out = io.BytesIO()
    with av.open(out, "w", format="mp4", options={**_FRAGMENT_OPTIONS, "fragment_index": str(first_frame + 1)}) as container:
        stream = _add_h264(container, *size, fps, options)
        stream.codec_context.flags |= Flags.global_header
        container.start_encoding()
        # x264 signs its first picture with its settings: some 600 bytes which each fragment would carry.
        unsigned = BitStreamFilterContext(f"filter_units=remove_types={_SEI_NAL_TYPE}", stream)
        for picture in itertools.chain(pictures, (None,)):
            for packet in stream.encode(picture):
                container.mux(unsigned.filter(packet))
    return out.getvalue()


def _add_h264(container: OutputContainer, width: int, height: int, fps: int, options: dict[str, str]) -> VideoStream:
    if width < 2 or height < 2 or width % 2 or height % 2:
        raise ValueError(f"width and height must be positive and even for H.264 in 4:2:0, got {width}x{height}")
    if fps < 1:
        raise ValueError(f"fps must be at least 1, got {fps}")
    stream = container.add_stream("libx264", rate=fps, options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.time_base = Fraction(1, fps)
    context = stream.codec_context
    context.thread_count = 1
    context.colorspace = context.color_primaries = context.color_trc = _BT601
    context.color_range = _TV_RANGE
    return stream


def _pictures(frames: Frames, first_frame: int, fps: int) -> Iterator[VideoFrame]:
    for index, pixels in enumerate(frames, first_frame):
        picture = VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        picture.pts, picture.time_base = index, Fraction(1, fps)
        yield picture


def mp4_boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Top-level MP4 boxes, as (type, whole box)."""
    offset = 0
    while offset < len(data):
        size, kind = struct.unpack_from(">I4s", data, offset)
        yield kind, data[offset : offset + size]
        offset += size


def _checked(frames: Frames) -> Frames:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or frames.shape[0] < 1:
        raise ValueError(f"frames must be uint8 [N, H, W, 3] with N at least 1, got {frames.dtype} {list(frames.shape)}")
    return frames


def _fit(text: str, width: int, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "…", font=font) > width:
        text = text[:-1]
    return text + "…"
