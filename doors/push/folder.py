"""A broadcast as files in a folder: playlists and segments of HTTP Live Streaming, for any web server to serve.

Each file is written beside its name and moved there, so that no reader sees a part of one. Segments that no playlist lists any more are
deleted after a while.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

from model_core.access_units import Group, Header
from model_core.tasks import run_in_thread
from service.broadcast.output import SinkFailed
from service.broadcast.playlist import segment_name
from service.broadcast.window import LISTED, Window

_KEPT_FILES = LISTED + 4


class FolderSink:
    """See the module. Implements `service.broadcast.output.Sink`.

    Args:
        folder: is made where it is missing.
        header: of the session.
        wall: seconds since 1970.
    """

    def __init__(self, folder: Path, header: Header, wall: Callable[[], float]) -> None:
        self._folder = folder
        self._wall = wall
        self._window = Window(header, parts=False)
        self._written: deque[int] = deque()

    async def send(self, group: Group) -> None:
        self._window.add(group, self._wall())
        await self._write()

    async def close(self) -> None:
        """The playlist says that nothing follows."""
        self._window.end()
        await self._write()

    async def abort(self) -> None:
        """What is written stays."""

    async def _write(self) -> None:
        try:
            await run_in_thread(self._write_now)
        except OSError as error:
            raise SinkFailed(f"{self._folder}: {error.strerror or error}") from error

    def _write_now(self) -> None:
        """Segments first, so that a playlist lists only what is there."""
        whole = [number for number in self._window.numbers if self._window.segment(number) is not None]
        new = [number for number in whole if not self._written or number > self._written[-1]]
        if not new and not self._window.over:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for number in new:
            data = self._window.segment(number)
            if data is not None:
                self._replace(segment_name(number), data)
                self._written.append(number)
        for name, data in reversed(self._window.files().items()):
            self._replace(name, data)
        while len(self._written) > _KEPT_FILES:
            (self._folder / segment_name(self._written.popleft())).unlink(missing_ok=True)

    def _replace(self, name: str, data: bytes) -> None:
        beside = self._folder / f".{name}.new"
        beside.write_bytes(data)
        beside.replace(self._folder / name)
