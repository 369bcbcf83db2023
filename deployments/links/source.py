"""Sources of restyled sessions, from the front door to the denoise replica that asks for them.

A leg's context carries a `SourceOffer`. The replica dials it, presents the token, and asks for one chunk after the other; each answer is
the chunk's latents, or nothing at the source's end. Only numbers and raw float32 cross, so nothing is executed. A connection lasts as long
as its leg: it ends at both ends when either closes it. Knows neither Ray nor gRPC.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import struct
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np

from deployments.links.link import CONNECT_TIMEOUT_S
from model_core.errors import StageUnavailable
from model_core.stages.sources import TOKEN_BYTES, Source
from model_core.tasks import cancel_and_wait
from model_core.types import Latents, SourceOffer

_ASK = struct.Struct(">I")  # the chunk
_ANSWER = struct.Struct(">I4I")  # bytes, then C, F, H, W; all zero at the end of the source
_MAX_BYTES = 256 * 1024 * 1024  # of a chunk's latents: more is no answer
_FLOAT = np.dtype("<f4")

log = logging.getLogger(__name__)


class SourceServer:
    """`Sources` that other processes dial, on a free port of `host`; one for each front door. Make it with `started`."""

    def __init__(self, host: str, connect_timeout_s: float) -> None:
        self._host, self._port = host, 0
        self._connect_timeout_s = connect_timeout_s
        self._sources: dict[bytes, Source] = {}
        self._calls: dict[bytes, set[asyncio.Task[None]]] = {}
        self._listening: asyncio.Server | None = None

    @classmethod
    async def started(cls, host: str, connect_timeout_s: float = CONNECT_TIMEOUT_S) -> SourceServer:
        """One that listens."""
        server = cls(host, connect_timeout_s)
        server._listening = await asyncio.start_server(server._accept, host, 0)
        server._port = int(server._listening.sockets[0].getsockname()[1])
        return server

    async def aclose(self) -> None:
        """Stop listening and end all connections."""
        if self._listening is not None:
            self._listening.close()
        await cancel_and_wait(*(call for calls in self._calls.values() for call in calls))

    def offer(self, source: Source) -> SourceOffer:
        """See `Sources.offer`."""
        token = secrets.token_bytes(TOKEN_BYTES)
        self._sources[token] = source
        return SourceOffer(token, self._host, self._port)

    def withdraw(self, offer: SourceOffer) -> None:
        """See `Sources.withdraw`. Whoever has dialled it is cut off."""
        self._sources.pop(offer.token, None)
        for call in self._calls.pop(offer.token, ()):
            call.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        token = b""
        call: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                token = await reader.readexactly(TOKEN_BYTES)
            if (source := self._sources.get(token)) is None:
                return  # its session has ended, or the token was guessed
            call = asyncio.ensure_future(_answer(source, reader, writer))
            self._calls.setdefault(token, set()).add(call)
            await asyncio.wait({call})
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            return  # the reader has gone
        finally:
            if call is not None:
                self._calls.get(token, set()).discard(call)
                await cancel_and_wait(call)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def _answer(source: Source, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer what one reader asks until it goes, or the source fails; then the connection ends, and the leg with it."""
    try:
        while True:
            (chunk,) = _ASK.unpack(await reader.readexactly(_ASK.size))
            latents = await _unless_gone(source.latents(chunk), reader)
            if latents is None:
                writer.write(_ANSWER.pack(0, 0, 0, 0, 0))
            else:
                writer.write(_ANSWER.pack(latents.nbytes, *latents.shape))
                writer.write(latents.astype(_FLOAT, copy=False).tobytes())
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    except Exception as error:  # noqa: BLE001 - whatever a source raises ends the leg, which is tried again
        log.warning("a source has no latents for its session: %s: %s", type(error).__name__, error)


async def _unless_gone(latents: Coroutine[Any, Any, Latents | None], reader: asyncio.StreamReader) -> Latents | None:
    """Raises ConnectionError: the reader went while it waited. It sends nothing meanwhile, so all that can come is its end."""
    wanted, gone = asyncio.ensure_future(latents), asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait({wanted, gone}, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            raise ConnectionError("the reader has gone")
        return wanted.result()
    finally:
        await cancel_and_wait(wanted, gone)


class _Remote:
    """The denoise replica's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def latents(self, chunk: int) -> Latents | None:
        """See `Source.latents`."""
        try:
            self._writer.write(_ASK.pack(chunk))
            size, *shape = _ANSWER.unpack(await self._reader.readexactly(_ANSWER.size))
            if not size:
                return None
            if size != int(np.prod(shape, dtype=np.int64)) * _FLOAT.itemsize or size > _MAX_BYTES:
                raise StageUnavailable(f"the session's source answered with {size} bytes for a chunk of {shape}")
            data = await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise StageUnavailable(f"the session's source has gone: {type(error).__name__}") from error
        return np.frombuffer(data, _FLOAT).astype(np.float32).reshape(shape)


@asynccontextmanager
async def dial(offer: SourceOffer) -> AsyncGenerator[Source, None]:
    """See `model_core.stages.sources.Dial`."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(offer.host, offer.port)
    except (OSError, TimeoutError) as error:
        raise StageUnavailable(f"no connection to the session's source at {offer.host}:{offer.port}: {error}") from error
    try:
        writer.write(offer.token)
        yield _Remote(reader, writer)
    finally:
        writer.close()
