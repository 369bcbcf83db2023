"""Frames of video files, one after the other: of all formats that are common, and of nothing that leads to other files.

Equal files give equal frames on any replica. Errors name the option that the file came with.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from av.error import ArgumentError, FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from model_core.errors import FieldViolation, InvalidRequest
from model_core.media import Frames

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Names of FFmpeg's demuxers. Images, playlists and text, which it would also take for videos, are none of them.
FORMATS = ("mov", "matroska", "avi", "mpegts", "mpeg", "flv", "ogg", "ivf", "gif", "yuv4mpegpipe", "nut", "h264", "hevc", "obu")
# Without the last two, the pixels would depend on the instructions that the processor has.
SCALING = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP | Interpolation.ACCURATE_RND
SCALING |= Interpolation.BITEXACT
_RUN = 40  # frames, where only some are looked at


@dataclass(frozen=True, slots=True)
class Most:
    """What a file may have: pixels of a frame, and frames, of which there are more than four hours at 30 a second."""

    pixels: int = 8192 * 4320
    frames: int = 500_000


MOST = Most()


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a file.

    Attributes:
        number: from 0.
        picture: as it was decoded.
        begins: the one before was left out.
    """

    number: int
    picture: VideoFrame
    begins: bool = False


def bad_file(field: str, description: str) -> InvalidRequest:
    """The error that names the file by the option that it came with."""
    return InvalidRequest((FieldViolation(field, description),))


class Video:
    """An open file.

    Attributes:
        width, height: in pixels.
        fps: frames a second; 0 where the file does not say.
        frames: how many there are, as far as the file says; 0 where it does not.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, field: str, most: Most) -> None:
        self._container, self._stream, self._field, self._most = container, stream, field, most
        self.width, self.height = stream.codec_context.width, stream.codec_context.height
        self.fps = float(stream.average_rate or 0)
        self.frames = stream.frames

    def pictures(self, most: int | None = None) -> Iterator[Frame]:
        """All frames, in the order in which they are shown.

        Args:
            most: where the file has more frames, only so many are decoded, in runs of 40 at equal distances.

        Raises:
            InvalidRequest: the file is damaged, or too long, or its pictures change their size.
        """
        try:
            yield from self._all() if most is None or not self.frames or self.frames <= most else self._some(most)
        except FFmpegError as error:
            raise bad_file(self._field, f"must be a whole video; got one that cannot be decoded: {_reason(error)}") from error

    def _all(self) -> Iterator[Frame]:
        for number, picture in enumerate(self._container.decode(self._stream)):
            if number >= self._most.frames:
                raise bad_file(self._field, f"must have at most {self._most.frames} frames; got more")
            yield self._checked(Frame(number, picture))

    def _some(self, most: int) -> Iterator[Frame]:
        rate, unit = self._stream.average_rate, self._stream.time_base
        if not rate or not unit:
            raise bad_file(self._field, "must say how many frames a second it has; got none")
        start = self._stream.start_time or 0
        for run in runs(self.frames, most):
            moment = start + round(run.start / rate / unit)
            self._container.seek(moment, stream=self._stream)
            number = run.start
            for picture in self._container.decode(self._stream):
                if picture.pts is None or picture.pts < moment:
                    continue
                yield self._checked(Frame(number, picture, begins=number == run.start))
                number += 1
                if number == run.stop:
                    break

    def _checked(self, frame: Frame) -> Frame:
        picture = frame.picture
        if (picture.width, picture.height) != (self.width, self.height):
            raise bad_file(self._field, f"must have pictures of one size, {self.width}x{self.height}; got {picture.width}x{picture.height}")
        return frame


@contextmanager
def opened(path: Path, field: str, most: Most = MOST) -> Iterator[Video]:
    """The file's first video.

    Args:
        field: how errors name the file.

    Raises:
        InvalidRequest: it is no video, or is too large.
        OSError: it cannot be read.
    """
    with path.open("rb"):  # its own error, where there is one
        pass
    options = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}
    try:
        container = av.open(f"file:{path.resolve()}", "r", container_options=options)
    except FFmpegError as error:
        # FFmpeg says no more than this of a format that is not among ours.
        reason = "its format is not read here" if isinstance(error, ArgumentError) else _reason(error)
        raise bad_file(field, f"must be a video; got a file that is none: {path.name[:128]}: {reason}") from error
    with container:
        if not container.streams.video:
            raise bad_file(field, f"must hold a video; got none in {path.name[:128]}")
        stream = container.streams.video[0]
        video = Video(container, stream, field, most)
        if not 0 < video.width * video.height <= most.pixels:
            raise bad_file(field, f"must have 1 to {most.pixels} pixels a frame; got {video.width}x{video.height}")
        if video.frames > most.frames:
            raise bad_file(field, f"must have at most {most.frames} frames; got {video.frames}")
        stream.codec_context.thread_count = 1
        yield video


class Reader:
    """Pictures to frames of RGB."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def rgb(self, picture: VideoFrame) -> Frames:
        """`[H, W, 3]`."""
        made = self._reformatter.reformat(picture, format="rgb24", interpolation=SCALING, threads=1)
        return np.asarray(made.to_ndarray(), np.uint8)


def runs(frames: int, most: int) -> list[range]:
    """Runs of up to 40 of `frames` frames, at most `most` of them together, at equal distances from the first frame to the last."""
    if frames <= most:
        return [range(frames)]
    length = min(_RUN, most)
    count = most // length
    if count == 1:
        return [range(length)]
    starts = sorted({number * (frames - length) // (count - 1) for number in range(count)})
    return [range(start, start + length) for start in starts]


def _reason(error: Exception) -> str:
    """Short and plain: what a decoder says may quote the file."""
    return ascii(str(getattr(error, "strerror", "") or error)[:120])[1:-1]
