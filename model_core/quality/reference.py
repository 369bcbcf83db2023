"""How far a video is from another one that it should be like: PSNR, SSIM and XPSNR by FFmpeg's filters, frame by frame.

Pictures are compared in order, whatever their times are, in YUV 4:2:0 with 8 bits. Of equal ones PSNR and XPSNR are infinite, which JSON
has no number for: they are None, and `identical` says why.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from av.error import BlockingIOError as NothingYet
from av.error import EOFError as Over
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from model_core.quality.video import SCALING, Frame, Video, bad_file, opened

_FORMAT = "yuv420p"
_UNIT = Fraction(1, 1000)
_DECIMALS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """Of a video to its reference.

    Attributes:
        frames: that were compared.
        identical: all pictures are equal, in YUV 4:2:0.
        psnr_db: of the mean squared error of all planes and frames; None where they are equal.
        worst_psnr_db: of the frame that differs most.
        ssim: mean over planes and frames, as FFmpeg weighs them; 1 where they are equal.
        worst_ssim: of the frame that differs most.
        xpsnr_db: of brightness alone, weighed by what eyes see; None where it is equal.
    """

    frames: int
    identical: bool
    psnr_db: float | None
    worst_psnr_db: float | None
    ssim: float
    worst_ssim: float
    xpsnr_db: float | None

    def as_json(self) -> dict[str, Any]:
        return {name: round(value, _DECIMALS) if isinstance(value, float) else value for name, value in asdict(self).items()}


def likeness(path: Path, field: str, reference: Path, reference_field: str) -> Likeness:
    """Compare the file at `path` with the one at `reference`; errors name them by their fields.

    Raises:
        InvalidRequest: one of them is no video or is damaged, or they differ in size or in length.
        OSError: one of them cannot be read.
    """
    with opened(path, field) as one, opened(reference, reference_field) as other:
        _check(one, other, field, reference_field)
        size = (one.width, one.height)
        psnr, ssim = _Filter("psnr", "lavfi.psnr.psnr_avg", size), _Filter("ssim", "lavfi.ssim.All", size)
        xpsnr = _Filter("xpsnr", "lavfi.xpsnr.xpsnr.y", size)
        errors, likes, distances = _Sum(), _Sum(), _Sum()
        for picture, wanted in itertools.chain(_pairs(one, other, field, reference_field), ((None, None),)):
            for told in psnr.told(picture, wanted):
                errors.add(10 ** (-told / 10))
            for told in ssim.told(picture, wanted):
                likes.add(1 - told)
            for told in xpsnr.told(picture, wanted):
                distances.add(10 ** (-told / 20))  # FFmpeg, too, takes the mean of these
    return Likeness(
        frames=errors.count, identical=not errors.worst, psnr_db=_decibels(errors.mean, 10), worst_psnr_db=_decibels(errors.worst, 10),
        ssim=1 - likes.mean, worst_ssim=1 - likes.worst, xpsnr_db=_decibels(distances.mean, 20),
    )  # fmt: skip


class _Sum:
    """Of numbers from 0 on, and the greatest of them."""

    def __init__(self) -> None:
        self.count, self.total, self.worst = 0, 0.0, 0.0

    def add(self, number: float) -> None:
        self.count += 1
        self.total += number
        self.worst = max(self.worst, number)

    @property
    def mean(self) -> float:
        return self.total / self.count


class _Filter:
    """One of FFmpeg's filters that compare two videos of `size` (width, height). It writes what it finds into the metadata of frames."""

    def __init__(self, name: str, key: str, size: tuple[int, int]) -> None:
        self._key, self._number = key, 0
        self._graph = Graph()
        self._graph.threads = 1
        self._sources = [
            self._graph.add_buffer(width=size[0], height=size[1], format=VideoFormat(_FORMAT), time_base=_UNIT) for _ in range(2)
        ]
        comparing, self._sink = self._graph.add(name), self._graph.add("buffersink")
        for number, source in enumerate(self._sources):
            source.link_to(comparing, 0, number)
        comparing.link_to(self._sink)
        self._graph.configure()

    def told(self, picture: VideoFrame | None, wanted: VideoFrame | None) -> Iterator[float]:
        """What is found of this pair, or of earlier ones; None for both: there are no more."""
        for source, each in zip(self._sources, (picture, wanted), strict=True):
            if each is not None:
                each.pts, each.time_base = self._number, _UNIT
            source.push(each)
        self._number += 1
        while True:
            try:
                found = self._sink.pull()
            except (NothingYet, Over):
                return
            yield float(found.metadata[self._key])


def _pairs(one: Video, other: Video, field: str, reference_field: str) -> Iterator[tuple[VideoFrame, VideoFrame]]:
    number = 0
    readers = (VideoReformatter(), VideoReformatter())
    for number, (mine, wanted) in enumerate(itertools.zip_longest(one.pictures(), other.pictures()), 1):
        if mine is None or wanted is None:
            short, long = (field, reference_field) if mine is None else (reference_field, field)
            raise bad_file(reference_field, f"must have as many frames as {field}; {short} has {number - 1}, and {long} has more")
        yield _plain(readers[0], mine), _plain(readers[1], wanted)
    if not number:
        raise bad_file(field, "must have a frame; got none")


def _plain(reader: VideoReformatter, frame: Frame) -> VideoFrame:
    return reader.reformat(frame.picture, format=_FORMAT, interpolation=SCALING, threads=1)


def _check(one: Video, other: Video, field: str, reference_field: str) -> None:
    if (one.width, one.height) != (other.width, other.height):
        raise bad_file(reference_field, f"must have the size of {field}, {one.width}x{one.height}; got {other.width}x{other.height}")
    if one.frames and other.frames and one.frames != other.frames:
        raise bad_file(reference_field, f"must have as many frames as {field}, {one.frames}; got {other.frames}")


def _decibels(error: float, factor: int) -> float | None:
    """None for no error."""
    return -factor * math.log10(error) if error else None
