"""A receiver behind a process of its own: see `doors.push.worker`. Implements `service.broadcast.output.Sink`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from doors.push.framing import CONNECTED, ENDED, MOST_LINE_BYTES, TAKEN, Start, write_group, write_start
from model_core.access_units import Group, Header
from model_core.tasks import finished
from service.broadcast.destination import Destination
from service.broadcast.output import SinkFailed

_ROOT = Path(__file__).parents[2]


class NoFfmpeg(Exception):
    """A receiver needs FFmpeg, and there is none that can speak to it. A sentence that says what to do."""


def srt_program() -> str:
    """The FFmpeg that the package imageio-ffmpeg brings; it speaks SRT, which PyAV's libav does not. Raises NoFfmpeg."""
    try:
        from imageio_ffmpeg import get_ffmpeg_exe  # noqa: PLC0415 - optional
    except ImportError as error:
        raise NoFfmpeg("srt:// needs the package imageio-ffmpeg: pip install -r requirements-quality.txt") from error
    try:
        return str(get_ffmpeg_exe())
    except RuntimeError as error:
        raise NoFfmpeg("srt:// needs an FFmpeg that the package imageio-ffmpeg finds; it found none") from error


class ProcessSink:
    """One worker that is connected."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def open(cls, destination: Destination, header: Header, *, silent_audio: bool = False, program: str = "") -> ProcessSink:
        """Start a worker, and return when it has connected. Raises SinkFailed."""
        surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
        # In a group of its own: Ctrl-C is for this process, which ends workers in order, and a kill takes the worker's children along.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "doors.push.worker", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL, limit=MOST_LINE_BYTES, start_new_session=True, env=surroundings,
        )  # fmt: skip
        sink = cls(process)
        start = Start(
            url=destination.url, scheme=destination.scheme, container=destination.container, fps=header.fps,
            segment=header.segment.hex(), silent_audio=silent_audio, program=program,
        )  # fmt: skip
        try:
            await sink._ask(write_start(start), CONNECTED)
        except BaseException:
            await finished(sink.abort())
            raise
        return sink

    @property
    def pid(self) -> int:
        return self._process.pid

    async def send(self, group: Group) -> None:
        await self._ask(write_group(group.first_frame, len(group.units), group.fragment), TAKEN)

    async def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._ask(b"", ENDED)
        await self._ended()

    async def abort(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._ended()

    async def _ended(self) -> None:
        """Its pipes are read to their end, so that nothing of it is left."""
        if self._process.stdout is not None:
            with suppress(ValueError):
                await self._process.stdout.read()
        await self._process.wait()

    async def _ask(self, data: bytes, expected: str) -> None:
        """Write, and read the answer. Raises SinkFailed."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise SinkFailed("the worker has no pipes")
        with suppress(ConnectionError):  # its last line says why
            if data:
                stdin.write(data)
                await stdin.drain()
        try:
            line = (await stdout.readline()).decode(errors="replace").strip()
        except ValueError as error:
            raise SinkFailed("the worker said too much") from error
        if line != expected:
            raise SinkFailed(line or f"the worker ended with {await self._process.wait()}")
