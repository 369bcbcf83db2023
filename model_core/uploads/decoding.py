"""Images and videos that callers send: bytes that nobody vouches for, in; frames at the size that is served, out.

What a file is, its content says, not its name. Only the formats below are opened, nothing is fetched, and pixels are judged before they are
decoded. Equal bytes give equal frames: an image keeps its proportions, is cut around its centre to those that are served, and is resampled
with a Lanczos filter; one that has the size already is left as it is. Of a video, frames are taken at the model's rate, as a player shows
them. This runs in a process whose memory and time are limited (`worker`), and never in one that serves.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from model_core.uploads.upload import IMAGE_FORMATS, Refused, Wanted

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

VIDEO_CODECS = ("h264", "hevc", "vp9", "av1", "mpeg4")
_IMAGE_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_DECODED_FOR_TAKEN = 8  # frames, at most
_SAME_TIME_S = 1e-3
# Decoders count the pixels of the buffers that they pad to whole blocks, so theirs is not the limit but a coarser one behind it.
_PADDED = 4


def decode(data: bytes, wanted: Wanted) -> list[NDArray[np.uint8]]:
    """Frames `[H, W, 3]`.

    Raises:
        Refused: the file cannot be decoded, or breaks a limit that only shows in its content.
        MemoryError: it takes more than this process may have.
    """
    try:
        return [_image(data, wanted)] if wanted.kind == "image" else _video(data, wanted)
    except (Refused, MemoryError):
        raise
    except Exception as error:  # a decoder of broken data raises errors of many kinds
        if getattr(error, "errno", None) == errno.ENOMEM:
            raise MemoryError from error
        if (limit := _text_limit(error)) is not None:
            raise Refused(limit) from error
        form = f"{_format(data)} image" if wanted.kind == "image" else "MP4 file"
        raise Refused(f"must be a whole {form}; got one that cannot be decoded: {_reason(error)}") from error


def _text_limit(error: Exception) -> str | None:
    """What Pillow's own limits on what a PNG says beside its pixels allow, if they are what `error` is about."""
    told = str(error)
    if "MAX_TEXT_CHUNK" in told:
        return f"must hold no text or colour profile that unpacks to more than {PngImagePlugin.MAX_TEXT_CHUNK} bytes; got one"
    if "MAX_TEXT_MEMORY" in told:
        return f"must hold at most {PngImagePlugin.MAX_TEXT_MEMORY} bytes of text, unpacked; got more"
    return None


def _format(data: bytes) -> str:
    return "PNG" if data[:1] == b"\x89" else "JPEG" if data[:1] == b"\xff" else "WEBP"


def _opened(data: bytes, wanted: Wanted) -> Image.Image:
    """Header read, no pixel decoded. That it begins as one of our formats was checked before (`Upload.problem`)."""
    Image.MAX_IMAGE_PIXELS = None  # the limit is ours
    try:
        image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
    except UnidentifiedImageError as error:
        raise Refused(f"must be a whole {_format(data)} image; got one that cannot be decoded: its header cannot be read") from error
    _check_pixels(image.width, image.height, wanted)
    if image.mode not in _IMAGE_MODES:
        raise Refused(f"must have 8 bits a channel; got mode {image.mode}")
    return image


def _check_pixels(width: int, height: int, wanted: Wanted) -> None:
    if not 0 < width * height <= wanted.max_pixels:
        raise Refused(f"must have 1 to {wanted.max_pixels} pixels; got {width}x{height}")


def _image(data: bytes, wanted: Wanted) -> NDArray[np.uint8]:
    _opened(data, wanted).verify()  # a PNG's checksums, which decoding does not look at; what was verified cannot be decoded
    image = _opened(data, wanted)
    ImageOps.exif_transpose(image, in_place=True)
    return _fitted(image if image.mode == "RGB" else image.convert("RGB"), wanted)  # each copy of a large image counts


def _video(data: bytes, wanted: Wanted) -> list[NDArray[np.uint8]]:
    if (missing := _missing_bytes(data)) > 0:
        raise Refused(f"must be a whole MP4 file; got one that is cut: {missing} bytes are missing")
    with av.open(io.BytesIO(data), "r", format="mp4") as container:
        frames = list(_taken(container, wanted))
    if not wanted.least <= len(frames) <= wanted.most:
        got = f"more than {wanted.most}" if len(frames) > wanted.most else str(len(frames))
        raise Refused(f"must last {wanted.least} to {wanted.most} frames at {wanted.fps} a second for model {wanted.model}; got {got}")
    return frames


def _missing_bytes(data: bytes) -> int:
    """Of the frames' data, by what the file says itself. A demuxer would take what is there for the whole, without a word."""
    at = 0
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16])
        if size < 8:  # 0: up to the end, whatever it is; others are no boxes, which is the demuxer's to judge
            return 0
        at += size
        if kind == b"mdat" and at > len(data):
            return at - len(data)
    return 0


def _taken(container: InputContainer, wanted: Wanted) -> Iterator[NDArray[np.uint8]]:
    """What is on screen at 0, 1/fps, 2/fps ... seconds; one frame more than the model takes, at most."""
    taken, start = 0, None
    for decoded, frame in enumerate(_decoded(container, wanted)):
        if decoded >= _DECODED_FOR_TAKEN * (wanted.most + 1):
            raise Refused(f"must have at most {_DECODED_FOR_TAKEN * wanted.fps} frames a second; got more")
        start = frame.time if start is None else start
        ends_at = frame.time - start + float(frame.duration * (frame.time_base or 0))
        shown_until = ends_at - _SAME_TIME_S
        if taken / wanted.fps >= shown_until:
            continue
        pixels = _fitted(Image.fromarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)), wanted)
        while taken / wanted.fps < shown_until:
            yield pixels
            taken += 1
            if taken > wanted.most:
                return


def _decoded(container: InputContainer, wanted: Wanted) -> Iterator[VideoFrame]:
    if not container.streams.video:
        raise Refused("must hold a video; got none")
    stream = container.streams.video[0]
    context = stream.codec_context
    # Not the context's name, which is the library's: AV1 is decoded by `libdav1d`.
    if (codec := context.codec.canonical_name) not in VIDEO_CODECS:
        raise Refused(f"must be coded as one of {', '.join(VIDEO_CODECS)}; got {codec}")
    if context.width and context.height:  # some decoders know no size before the first frame
        _check_pixels(context.width, context.height, wanted)
    context.options = {"max_pixels": str(_PADDED * max(wanted.max_pixels, 256 * 256))}
    context.thread_count = 1
    for frame in container.decode(stream):
        _check_pixels(frame.width, frame.height, wanted)  # it may change within the stream
        yield frame


def _fitted(image: Image.Image, wanted: Wanted) -> NDArray[np.uint8]:
    """`[H, W, 3]`."""
    return np.asarray(ImageOps.fit(image, (wanted.width, wanted.height), Image.Resampling.LANCZOS))


def _reason(error: Exception) -> str:
    """Short and plain: what a decoder says may quote the file."""
    return ascii(f"{type(error).__name__}: {error}"[:120])[1:-1]
