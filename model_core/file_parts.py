"""A file that is made part by part, so that it can be gone on with in another process: parts in order are joined into one MP4.

A part is the pictures of one chunk, a fragment that begins with an IDR picture and refers to nothing outside itself. It is compressed as a
file is, without pictures that refer forwards, so that parts of any length fit together. Equal frames give equal bytes, in parts and whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation

from model_core.media import FILE_OPTIONS, Frames, mp4_boxes, mux_fragment

# One thread, or the bytes would depend on how many cores there are. No mbtree: with it, x264 gives the same pictures other bytes now and
# then, where other threads of the process use memory meanwhile; see docs/other-software.md.
_PART_OPTIONS = FILE_OPTIONS | {"bf": "0", "threads": "1", "x264-params": "mbtree=0"}
# Without the last two, the bytes would depend on the instructions that the processor has.
_SCALING = (
    Interpolation.BICUBIC
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
)


@dataclass(frozen=True, slots=True)
class Placement:
    """A file of `width` by `height`, with the picture of `inner_width` by `inner_height` at `left` and `top`, and black around it.

    All numbers are even.
    """

    width: int
    height: int
    inner_width: int
    inner_height: int
    left: int = 0
    top: int = 0


def part_header(placed: Placement, fps: int) -> bytes:
    """What stands before the first part.

    Raises:
        ValueError: width or height is not a positive even number, or fps is not positive.
    """
    black = np.zeros((placed.height, placed.width, 3), np.uint8)
    picture = VideoFrame.from_ndarray(black, format="rgb24")
    picture.pts, picture.time_base = 0, Fraction(1, fps)
    boxes = mp4_boxes(mux_fragment((picture,), (placed.width, placed.height), 0, fps, _PART_OPTIONS))
    return b"".join(box for kind, box in boxes if kind in (b"ftyp", b"moov"))


def part(frames: Frames, first_frame: int, fps: int, placed: Placement) -> bytes:
    """`frames` `[N, H, W, 3]`, of which the first is the file's frame `first_frame`, as one part.

    Raises:
        ValueError: as `part_header`.
    """
    pictures = _pictures(frames, first_frame, fps, placed)
    boxes = mp4_boxes(mux_fragment(pictures, (placed.width, placed.height), first_frame, fps, _PART_OPTIONS))
    return b"".join(box for kind, box in boxes if kind in (b"moof", b"mdat"))


def joined(parts: Path, out: Path) -> None:
    """Write the finished MP4 to `out`, index in front, of the header and all parts in the file `parts`. Nothing is coded anew.

    Raises:
        OSError: the file cannot be written.
        ValueError: there is no part.
    """
    with (
        av.open(str(parts), "r", format="mp4") as source,
        av.open(str(out), "w", format="mp4", options={"movflags": "faststart"}) as target,
    ):
        read = source.streams.video[0]
        written = target.add_stream_from_template(read)
        written.time_base = read.time_base
        packets = 0
        for packet in source.demux(read):
            if packet.dts is None:  # the end
                continue
            packet.stream = written
            target.mux(packet)
            packets += 1
        if not packets:
            raise ValueError("a file needs at least one part; got none")


def placed(frames: Frames, placement: Placement) -> Frames:
    """`frames` `[N, H, W, 3]`, scaled and with black around them, `[N, height, width, 3]`."""
    return np.stack([_placed(np.ascontiguousarray(pixels), placement) for pixels in frames])


def _pictures(frames: Frames, first_frame: int, fps: int, placed: Placement) -> Iterator[VideoFrame]:
    """One by one: pictures may be much larger than frames."""
    for index, pixels in enumerate(frames, first_frame):
        picture = VideoFrame.from_ndarray(_placed(np.ascontiguousarray(pixels), placed), format="rgb24")
        picture.pts, picture.time_base = index, Fraction(1, fps)
        yield picture


def _placed(pixels: Frames, placed: Placement) -> Frames:
    """One frame `[H, W, 3]`, scaled and with black around it, `[height, width, 3]`."""
    height, width = placed.inner_height, placed.inner_width
    if pixels.shape[:2] != (height, width):
        frame = VideoFrame.from_ndarray(pixels, format="rgb24").reformat(width, height, "rgb24", interpolation=_SCALING)
        pixels = np.asarray(frame.to_ndarray(), np.uint8)
    if (width, height) == (placed.width, placed.height):
        return pixels
    canvas = np.zeros((placed.height, placed.width, 3), np.uint8)
    canvas[placed.top : placed.top + height, placed.left : placed.left + width] = pixels
    return canvas
