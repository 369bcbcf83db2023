"""The file of one job, on this node's disk, while it grows.

Its bytes are a function of the frames, their rate and the size of the file, whoever made which part of it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from model_core.file_parts import Placement, joined, part, part_header
from model_core.media import Frames

_READ_BYTES = 1024 * 1024
_SPARE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RenderedFile:
    path: Path
    size_bytes: int
    sha256: str


class Rendering:
    """Parts in order, then the whole. Methods take their time, so call them in a thread, one at a time.

    After an error of `add` the file is as it was before.

    Args:
        folder: empty, and this rendering's own.
        fps: media rate.
        placed: the size of the file.

    Raises:
        OSError: as all methods, where the disk is full.
    """

    def __init__(self, folder: Path, fps: int, placed: Placement) -> None:
        self._parts, self._whole = folder / "parts.mp4", folder / "video.mp4"
        self._fps = fps
        self._placed = placed
        self._parts.touch()
        self._size = 0
        self._append(part_header(placed, fps))
        self._begins = self._saved = self._size

    @property
    def unsaved_bytes(self) -> int:
        """Of the parts since `mark_saved`."""
        return self._size - self._saved

    def add(self, frames: Frames, first_frame: int) -> None:
        """The next frames `[N, H, W, 3]`: a whole chunk, or the job's last frames."""
        self._append(part(frames, first_frame, self._fps, self._placed))

    def restore(self, parts: bytes) -> None:
        """What `unsaved` returned in another process, whole or piece by piece."""
        self._append(parts)
        self._saved = self._size

    def unsaved(self, begin: int = 0, most: int | None = None) -> bytes:
        """The parts since `mark_saved`, from their byte `begin` on: all of them, or at most `most` bytes."""
        first, left = self._saved + begin, self._size - self._saved - begin
        with self._parts.open("rb") as file:
            file.seek(first)
            return file.read(left if most is None else min(most, left))

    def mark_saved(self, count: int) -> None:
        """`count` bytes of `unsaved` are safe elsewhere."""
        self._saved += count

    def clear(self) -> None:
        """Begin anew."""
        self._size = self._saved = self._begins

    def finish(self) -> RenderedFile:
        """The whole file. Nothing can be added to it."""
        with self._parts.open("r+b") as file:
            file.truncate(self._size)
        if shutil.disk_usage(self._whole.parent).free < self._size + _SPARE_BYTES:
            # PyAV would find out with the file's header, and keep the file open for ever.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        joined(self._parts, self._whole)
        digest = hashlib.sha256()
        with self._whole.open("rb") as whole:
            while block := whole.read(_READ_BYTES):
                digest.update(block)
        return RenderedFile(self._whole, self._whole.stat().st_size, digest.hexdigest())

    def _append(self, data: bytes) -> None:
        with self._parts.open("r+b") as file:
            file.seek(self._size)
            file.truncate()
            file.write(data)
        self._size += len(data)
