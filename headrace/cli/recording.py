"""Files that frames are written to while they come: `.mp4`, `.gif`, `.npy`. Memory stays bounded however long the video is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from headrace.cli.console import Failure, bad_input

if TYPE_CHECKING:
    from model_core.media import Frames, Mp4Writer

# A GIF is put together in memory.
GIF_MAX_SECONDS = 20.0
MAX_SCALE = 16
SCALE_HELP = "Enlarge .mp4 and .gif. [default: 4 for the smallest frames, 1 for frames of 256 pixels and more]"
_SEEN_WELL = 512  # pixels: frames are not enlarged beyond that, and never by more than 4
_QUEUED_CHUNKS = 16


class Writer(Protocol):
    def write(self, frames: Frames) -> None: ...
    def close(self) -> None: ...


def default_scale(width: int, height: int) -> int:
    """How much frames of that size are enlarged where nobody says."""
    return max(1, min(4, _SEEN_WELL // max(width, height)))


def check_out(path: Path | None, seconds: float, scale: int | None) -> None:
    """Refuse what cannot be written before any video is made. `seconds` 0 is an endless stream.

    Raises:
        Failure: the suffix is unknown, the folder is missing, the GIF would be too long, or the scale is out of range.
    """
    if scale is not None and not 1 <= scale <= MAX_SCALE:
        raise bad_input("--scale", f"must be from 1 to {MAX_SCALE}; got {scale}")
    if path is None:
        return
    if path.suffix not in (".mp4", ".gif", ".npy"):
        raise bad_input("--out", f"must end in .mp4, .gif or .npy; got {str(path)!r}")
    if not path.parent.is_dir():
        raise bad_input("--out", f"must be in a folder that exists; got {str(path)!r}")
    if path.suffix == ".gif" and not 0 < seconds <= GIF_MAX_SECONDS:
        raise bad_input("--out", f"a .gif holds at most {GIF_MAX_SECONDS:g} seconds, use .mp4; got --seconds {seconds:g}")


class Recording:
    """Writes frames in a thread, behind a bounded queue, so that a slow disk or encoder does not distort the arrival times.

    The file appears with the first frames. Leaving the context finishes it, also after an error or Ctrl-C.
    """

    def __init__(self, path: Path, fps: int, scale: int) -> None:
        self._path = path
        self._fps = fps
        self._scale = scale
        self._queue: asyncio.Queue[Frames | None] = asyncio.Queue(_QUEUED_CHUNKS)
        self._error: Exception | None = None
        self.frames_written = 0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._queue.put(None)
        await self._task
        if error is None:
            self._raise()

    async def write(self, frames: Frames) -> None:
        """Queue `frames` `[N, H, W, 3]`.

        Raises:
            Failure: the file cannot be written.
        """
        self._raise()
        await self._queue.put(frames)

    def _raise(self) -> None:
        if isinstance(self._error, OSError):
            raise Failure(f"cannot write {str(self._path)!r}: {self._error}") from self._error
        if self._error is not None:
            raise self._error

    async def _work(self) -> None:
        writer: Writer | None = None
        while (frames := await self._queue.get()) is not None:
            # After an error the queue is still emptied, or a caller that waits for room would wait for ever.
            if self._error is not None:
                continue
            try:
                if writer is None:
                    writer = await asyncio.to_thread(_open_writer, self._path, self._fps, self._scale)
                await asyncio.to_thread(writer.write, frames)
                self.frames_written += len(frames)
            except Exception as error:  # noqa: BLE001 - raised in the task that writes or leaves
                self._error = error
        if writer is not None:
            try:
                await asyncio.to_thread(writer.close)
            except Exception as error:  # noqa: BLE001 - as above
                self._error = self._error or error


def _open_writer(path: Path, fps: int, scale: int) -> Writer:
    match path.suffix:
        case ".mp4":
            return _ScaledMp4(path, fps, scale)
        case ".gif":
            return _Gif(path, fps, scale)
        case _:
            return _Npy(path)


class _ScaledMp4:
    def __init__(self, path: Path, fps: int, scale: int) -> None:
        from model_core.media import Mp4Writer

        self._writer: Mp4Writer = Mp4Writer(path, fps)
        self._scale = scale

    def write(self, frames: Frames) -> None:
        from model_core.media import upscale

        self._writer.write(upscale(frames, self._scale))

    def close(self) -> None:
        self._writer.close()


class _Gif:
    def __init__(self, path: Path, fps: int, scale: int) -> None:
        self._path, self._fps, self._scale = path, fps, scale
        self._parts: list[Frames] = []
        path.touch()  # a file that cannot be written is known at the start

    def write(self, frames: Frames) -> None:
        self._parts.append(frames)

    def close(self) -> None:
        import numpy as np

        from model_core.media import encode_gif, upscale

        self._path.write_bytes(encode_gif(upscale(np.concatenate(self._parts), self._scale, "nearest"), self._fps))


class _Npy:
    """Raw frames `[N, H, W, 3]`. N is only known at the end: numpy pads its header so that the first axis can grow in place."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._frame_shape: tuple[int, ...] = ()
        self._count = 0

    def write(self, frames: Frames) -> None:
        if not self._count:
            self._frame_shape = frames.shape[1:]
            self._write_header()
        self._file.write(frames.tobytes())
        self._count += len(frames)

    def close(self) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def _write_header(self) -> None:
        import numpy as np

        header = {"descr": "|u1", "fortran_order": False, "shape": (self._count, *self._frame_shape)}
        np.lib.format.write_array_header_1_0(self._file, header)
