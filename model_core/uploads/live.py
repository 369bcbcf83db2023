"""Decodes video that a publisher sends live, in a process beside this one: access units in, pictures at the size that is served out."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from model_core.errors import StageUnavailable
from model_core.tasks import run_in_thread
from model_core.uploads import live_worker, worker

_COMMAND = (sys.executable, "-m", live_worker.__name__)
_KEPT_VARIABLES = ("LD_LIBRARY_PATH", "PATH")
_READY_WITHIN_S = 30.0
_MEMORY_BYTES = 512 * 1024 * 1024
_MAX_PIXELS = 4_000_000
_MOST_JSON_BYTES = 1024
_ENDED = "the decoder of a publisher's video has ended"


@dataclass(frozen=True, slots=True)
class Decoded:
    """One picture, raw RGB of the size that was asked for; `ticks` as they came with it. `data` is None for what cannot be decoded."""

    ticks: int
    data: bytes | None


class LiveDecoder:
    """One process. One task gives, and one takes.

    Args:
        source: what it says.
        target: what it is told.
        size: bytes of a picture.
    """

    def __init__(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, size: int) -> None:
        self._source, self._target = source, target
        self._size = size

    async def give(self, ticks: int, unit: bytes) -> None:
        """Returns when the process has taken it. Raises StageUnavailable: it has gone."""
        message = json.dumps({"bytes": len(unit), "ticks": ticks}).encode()
        try:
            self._target.write(worker.LENGTH.pack(len(message)) + message + unit)
            await self._target.drain()
        except ConnectionError as error:
            raise StageUnavailable(_ENDED) from error

    async def take(self) -> Decoded:
        """The next picture. Raises StageUnavailable: the process has gone, or is out of step."""
        answer = await self.message()
        if "ticks" not in answer:
            return Decoded(0, None)
        return Decoded(int(str(answer["ticks"])), await self._exactly(self._size))

    async def message(self) -> dict[str, object]:
        """Raises as `take`."""
        (size,) = worker.LENGTH.unpack(await self._exactly(worker.LENGTH.size))
        message = json.loads(await self._exactly(size)) if size <= _MOST_JSON_BYTES else None
        if not isinstance(message, dict):
            raise StageUnavailable("the decoder of a publisher's video is out of step")
        return message

    async def _exactly(self, size: int) -> bytes:
        try:
            return await self._source.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise StageUnavailable(_ENDED) from error


@asynccontextmanager
async def decoding(width: int, height: int, command: Sequence[str] = _COMMAND) -> AsyncGenerator[LiveDecoder]:
    """A process as long as this is entered. Raises StageUnavailable: it does not start."""
    popen = await run_in_thread(_process, width, height, command)
    transports: list[asyncio.BaseTransport] = []
    try:
        decoder = LiveDecoder(*await _streams(popen, transports), width * height * 3)
        async with asyncio.timeout(_READY_WITHIN_S):
            await decoder.message()
        yield decoder
    except TimeoutError as error:
        raise StageUnavailable("the decoder of a publisher's video did not start") from error
    finally:
        popen.kill()
        for transport in transports:
            transport.close()
        await run_in_thread(popen.wait)


def _process(width: int, height: int, command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Not asyncio's own, which needs a watcher of children that some policies of event loops do not have."""
    wanted = {"width": width, "height": height, "max_pixels": _MAX_PIXELS, "memory_bytes": _MEMORY_BYTES}
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    environment |= {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    pipe = subprocess.PIPE
    return subprocess.Popen([*command, json.dumps(wanted)], stdin=pipe, stdout=pipe, bufsize=0, env=environment, start_new_session=True)


async def _streams(
    popen: subprocess.Popen[bytes], transports: list[asyncio.BaseTransport]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """What it says, and what it is told. Both transports are added to `transports`."""
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    reading, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), popen.stdout)
    transports.append(reading)
    writing, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, popen.stdin)
    transports.append(writing)
    return reader, asyncio.StreamWriter(writing, protocol, None, loop)
