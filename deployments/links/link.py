"""Bounded streams between replicas.

Serve streams items from one replica to another, but nothing stops a producer whose reader has stopped. So each stream
carries credit beside it: its first item is a `LinkOffer`, the reader dials the offer's address, presents the token, and then
sends one byte for each item it has consumed. The producer sends `window` items unasked and waits for a byte before each
further one. The connection lives as long as the stream; when it breaks, the stream ends at both ends. Each end also sends a beat now and
then, so that a peer which was cut off, or whose event loop stands still, is noticed although nothing breaks. A beat says nothing of the
work behind the stream: each stage watches its own device (`model_core.stages.watchdog`). Knows neither Ray nor gRPC.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TypeVar

from autoscaling.reports import LinkStatistics
from model_core.errors import StageDraining, StageUnavailable
from model_core.messages import Message
from model_core.tasks import cancel_and_wait

T = TypeVar("T")

TOKEN_BYTES = 16
CONNECT_TIMEOUT_S = 2.0
SILENCE_S = 2.0
CREDIT = b"\x01"
BEAT = b"\x00"
_BEATS_PER_SILENCE = 4
_LOOKS_PER_SILENCE = 8


DRAINING = "the replica is about to stop; another one serves"


@dataclass(frozen=True, slots=True)
class LinkOffer(Message):
    """First item of a linked stream: where its credit is accepted, and after how long without a beat an end counts as gone."""

    host: str
    port: int
    token: bytes
    silence_s: float = SILENCE_S


class ReaderGone(StageUnavailable):
    """Whoever read the stream has hung up, as the end of every session that is not pulled to its end does."""


class _Gate:
    """One stream's allowance."""

    def __init__(self, credit: int, connect_timeout_s: float) -> None:
        self.credit = credit
        self._connect_timeout_s = connect_timeout_s
        self.connected = False
        self.broken = False
        self.leaving = False
        self._changed = asyncio.Event()
        self._making: asyncio.Timeout | None = None
        self._deadline = asyncio.get_running_loop().call_later(connect_timeout_s, self.cut)

    def connect(self) -> None:
        self.connected = True
        self._deadline.cancel()
        self._changed.set()

    def grant(self, count: int) -> None:
        self.credit += count
        self._changed.set()

    def cut(self) -> None:
        self.broken = True
        self._deadline.cancel()
        self._changed.set()
        if self._making is not None:
            self._making.reschedule(asyncio.get_running_loop().time())

    def leave(self) -> None:
        self.leaving = True
        self._changed.set()

    async def take(self) -> None:
        """Wait for leave to send one item.

        Raises:
            StageDraining: the stream is to end here.
            ReaderGone: that is so.
            StageUnavailable: the reader never connected.
        """
        while self.credit == 0 and not (self.broken or self.leaving):
            self._changed.clear()
            await self._changed.wait()
        if self.broken:
            raise self._gone()
        if self.leaving:
            raise StageDraining(DRAINING)
        self.credit -= 1

    async def unless_cut(self, item: Awaitable[T]) -> T:
        """`item`, which is dropped the moment its reader goes.

        Raises:
            StageUnavailable: as in `take`.
        """
        try:
            async with asyncio.timeout(None) as self._making:
                return await item
        except TimeoutError:
            if not self.broken:
                raise
            raise self._gone() from None
        finally:
            self._making = None

    def close(self) -> None:
        self._deadline.cancel()

    def _gone(self) -> StageUnavailable:
        if self.connected:
            return ReaderGone("link: the reader has gone")
        return StageUnavailable(f"link: the reader did not connect within {self._connect_timeout_s:g} s")


class LinkServer:
    """The producer's end: one for each replica. `serve` wraps a stage's generator; the first one opens a free port of `host`."""

    def __init__(self, host: str, window: int, connect_timeout_s: float = CONNECT_TIMEOUT_S, silence_s: float = SILENCE_S) -> None:
        self._host = host
        self._window = window
        self._silence_s = silence_s
        self._connect_timeout_s = connect_timeout_s
        self._leaving = False
        self._gates: dict[bytes, _Gate] = {}
        self._listening: asyncio.Future[asyncio.Server] | None = None
        self._opened = 0
        self._sent = 0

    async def aclose(self) -> None:
        """Stop listening and break all streams."""
        if self._listening is not None:
            (await self._listening).close()
        for gate in self._gates.values():
            gate.cut()

    def hand_over(self, leaving: bool = True) -> None:
        """End each stream with `StageDraining` before its next item, and refuse new ones; or accept streams again."""
        self._leaving = leaving
        for gate in self._gates.values() if leaving else ():
            gate.leave()

    def statistics(self) -> LinkStatistics:
        return LinkStatistics(len(self._gates), self._opened, self._sent, sum(gate.credit for gate in self._gates.values()))

    async def serve(self, source: AsyncGenerator[T, None]) -> AsyncGenerator[LinkOffer | T, None]:
        """An offer, then the items of `source` as credit allows. Closing it closes `source`, at once even while it waits.

        Raises:
            StageDraining: at once or before any further item, after `hand_over`.
            ReaderGone: that is so.
            StageUnavailable: the reader never connected.
        """
        if self._leaving:
            await source.aclose()
            raise StageDraining(DRAINING)
        if self._listening is None:
            self._listening = asyncio.ensure_future(asyncio.start_server(self._accept, self._host, 0))
        listener = await asyncio.shield(self._listening)
        token = secrets.token_bytes(TOKEN_BYTES)
        gate = self._gates[token] = _Gate(self._window, self._connect_timeout_s)
        self._opened += 1
        try:
            async with aclosing(source):
                yield LinkOffer(self._host, int(listener.sockets[0].getsockname()[1]), token, self._silence_s)
                while True:
                    await gate.take()
                    try:
                        item = await gate.unless_cut(anext(source))
                    except StopAsyncIteration:
                        return
                    self._sent += 1
                    yield item
        finally:
            gate.close()
            del self._gates[token]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gate: _Gate | None = None
        beating: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                gate = self._gates.get(await reader.readexactly(TOKEN_BYTES))
            if gate is None:
                return  # its stream has ended already, or the token was guessed
            gate.connect()
            beating = asyncio.create_task(_beat(writer, self._silence_s))
            while received := await _heard(reader, self._silence_s):
                gate.grant(received.count(CREDIT))
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            return  # the same as an end of file: the reader has gone
        finally:
            if gate is not None:
                gate.cut()
            if beating is not None:
                await cancel_and_wait(beating)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


class CreditLine:
    """The reader's end of one stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, silence_s: float) -> None:
        self._writer = writer
        self._lost = False
        self._waiting: asyncio.Timeout | None = None
        self._tasks = (asyncio.create_task(_beat(writer, silence_s)), asyncio.create_task(self._listen(reader, silence_s)))

    @classmethod
    async def dial(cls, offer: LinkOffer) -> CreditLine:
        """Connect to the stream that the offer is for.

        Raises:
            StageUnavailable: the producer cannot be reached.
        """
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(offer.host, offer.port)
        except (OSError, TimeoutError) as error:
            raise StageUnavailable(f"link: no connection to {offer.host}:{offer.port}: {error}") from error
        writer.write(offer.token)
        return cls(reader, writer, offer.silence_s)

    async def watch(self, item: Awaitable[T]) -> T:
        """`item`, unless the producer falls silent first; a producer that has closed the connection may still have sent it.

        Raises:
            StageUnavailable: the producer is cut off, or stands still.
        """
        try:
            async with asyncio.timeout(0 if self._lost else None) as self._waiting:
                return await item
        except TimeoutError:
            raise StageUnavailable("link: the producer has fallen silent") from None
        finally:
            self._waiting = None

    def grant(self) -> None:
        """Allow one more item. Dropped when the connection has broken: then the stream's own error tells."""
        if not self._writer.is_closing():
            self._writer.write(CREDIT)

    async def aclose(self) -> None:
        self._writer.close()
        await cancel_and_wait(*self._tasks)

    async def _listen(self, reader: asyncio.StreamReader, silence_s: float) -> None:
        try:
            while await _heard(reader, silence_s):
                pass
        except TimeoutError:
            self._lost = True
            if self._waiting is not None:
                self._waiting.reschedule(asyncio.get_running_loop().time())
        except ConnectionError:
            pass  # the same as an end of file: the stream's own error tells


async def _heard(reader: asyncio.StreamReader, silence_s: float) -> bytes:
    """Some bytes from the peer, none at the end of file; TimeoutError if even beats stay away.

    It looks several times before it gives up: where this loop itself stood still, a time is over before what the peer sent is read. However
    long it stood, that is one of these times.
    """
    for _ in range(_LOOKS_PER_SILENCE - 1):
        with suppress(TimeoutError):
            async with asyncio.timeout(silence_s / _LOOKS_PER_SILENCE):
                return await reader.read(256)
    async with asyncio.timeout(silence_s / _LOOKS_PER_SILENCE):
        return await reader.read(256)


async def _beat(writer: asyncio.StreamWriter, silence_s: float) -> None:
    while not writer.is_closing():
        writer.write(BEAT)
        await asyncio.sleep(silence_s / _BEATS_PER_SILENCE)
