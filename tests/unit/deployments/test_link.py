from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from types import SimpleNamespace
from typing import cast

import pytest

from deployments.links.link import TOKEN_BYTES, CreditLine, LinkOffer, LinkServer
from deployments.replicas.stages import DenoiserReplica
from model_core.errors import StageUnavailable
from tests.fakes import eventually

HOST = "127.0.0.1"


class Source:
    """Counts without end, and knows how far it was asked to go."""

    def __init__(self, stop: int | None = None) -> None:
        self.made = 0
        self.closed = False
        self._stop = stop

    async def items(self) -> AsyncGenerator[int, None]:
        try:
            while self._stop is None or self.made < self._stop:
                self.made += 1
                yield self.made
        finally:
            self.closed = True


class Buffer:
    """What Serve does with a stream: takes every item at once, without regard for the reader."""

    def __init__(self, stream: AsyncGenerator[LinkOffer | int, None]) -> None:
        self.items: list[LinkOffer | int] = []
        self.error: StageUnavailable | None = None
        self._stream = stream
        self.task = asyncio.create_task(self._take())

    async def _take(self) -> None:
        try:
            async with aclosing(self._stream) as stream:
                async for item in stream:
                    self.items.append(item)
        except StageUnavailable as error:
            self.error = error

    async def offer(self) -> LinkOffer:
        await eventually(lambda: bool(self.items))
        assert isinstance(self.items[0], LinkOffer)
        return self.items[0]


@asynccontextmanager
async def link(window: int, source: Source, connect_timeout_s: float = 10.0) -> AsyncGenerator[tuple[LinkServer, Buffer], None]:
    server = LinkServer(HOST, window, connect_timeout_s)
    buffer = Buffer(server.serve(source.items()))
    try:
        yield server, buffer
    finally:
        buffer.task.cancel()
        await asyncio.gather(buffer.task, return_exceptions=True)
        await server.aclose()


@pytest.mark.parametrize("window", [1, 3])
async def test_the_source_runs_exactly_the_window_ahead_of_the_reader(window: int) -> None:
    source = Source()
    async with link(window, source) as (server, buffer):
        line = await CreditLine.dial(await buffer.offer())
        await eventually(lambda: server.statistics().sent == window)
        for consumed in range(1, 6):
            line.grant()
            await eventually(lambda expected=window + consumed: server.statistics().sent == expected)  # type: ignore[misc]
        await asyncio.sleep(0.05)  # room for an item too many
        assert source.made == window + 5
        assert buffer.items[1:] == list(range(1, window + 6))
        await line.aclose()


async def test_a_finished_source_ends_the_stream_and_leaves_nothing() -> None:
    source = Source(stop=2)
    async with link(4, source) as (server, buffer):
        await asyncio.wait_for(buffer.task, 10)
        assert buffer.items[1:] == [1, 2]
        assert buffer.error is None
        assert source.closed
        assert server.statistics().open == 0


async def test_a_reader_that_leaves_ends_the_stream_at_the_producer() -> None:
    source = Source()
    async with link(1, source) as (server, buffer):
        line = await CreditLine.dial(await buffer.offer())
        await eventually(lambda: server.statistics().sent == 1)
        await line.aclose()
        await asyncio.wait_for(buffer.task, 10)
        assert "has gone" in str(buffer.error)
        assert source.closed
        assert server.statistics().open == 0


async def test_a_reader_that_never_connects_is_given_up() -> None:
    source = Source()
    async with link(1, source, connect_timeout_s=0.05) as (server, buffer):
        await asyncio.wait_for(buffer.task, 10)
        assert "did not connect within 0.05 s" in str(buffer.error)
        assert source.closed
        assert server.statistics().open == 0


async def test_a_slow_but_connected_reader_is_not_given_up() -> None:
    source = Source()
    async with link(1, source, connect_timeout_s=0.5) as (server, buffer):
        line = await CreditLine.dial(await buffer.offer())
        await asyncio.sleep(0.7)
        line.grant()
        await eventually(lambda: server.statistics().sent == 2)
        assert buffer.error is None
        await line.aclose()


async def test_closing_the_stream_while_it_waits_for_credit_closes_the_source() -> None:
    source = Source()
    async with link(1, source) as (server, buffer):
        line = await CreditLine.dial(await buffer.offer())
        await eventually(lambda: server.statistics().sent == 1)
        buffer.task.cancel()
        await asyncio.gather(buffer.task, return_exceptions=True)
        assert source.closed
        assert server.statistics().open == 0
        await line.aclose()


async def test_a_wrong_token_grants_nothing_and_harms_nobody() -> None:
    source = Source()
    async with link(1, source) as (server, buffer):
        offer = await buffer.offer()
        stranger = await CreditLine.dial(LinkOffer(offer.host, offer.port, bytes(16)))
        for _ in range(5):
            stranger.grant()
        reader = await CreditLine.dial(offer)
        reader.grant()
        await eventually(lambda: server.statistics().sent == 2)
        await asyncio.sleep(0.05)
        assert server.statistics().sent == 2
        await stranger.aclose()
        await reader.aclose()


async def test_streams_of_one_server_have_credit_of_their_own() -> None:
    server = LinkServer(HOST, 1)
    first, second = Source(), Source()
    buffers = [Buffer(server.serve(first.items())), Buffer(server.serve(second.items()))]
    lines = [await CreditLine.dial(await buffer.offer()) for buffer in buffers]
    lines[0].grant()
    await eventually(lambda: (first.made, second.made) == (2, 1))
    await server.aclose()  # breaks what is still open
    await asyncio.wait_for(asyncio.gather(*(buffer.task for buffer in buffers)), 10)
    assert [str(buffer.error) for buffer in buffers] == ["link: the reader has gone"] * 2
    for line in lines:
        await line.aclose()


async def test_a_replica_ends_the_stream_of_a_reader_that_has_gone_without_an_error() -> None:
    """Serve logs every error of a stream with its traceback, and viewers leave all the time."""
    source, server = Source(), LinkServer(HOST, 1)
    shell = SimpleNamespace(_links=server, _drain=SimpleNamespace(start=lambda: None))
    stream = DenoiserReplica._linked(cast("DenoiserReplica", shell), source.items())  # noqa: SLF001 - what Serve iterates over
    buffer = Buffer(stream)
    reader = await CreditLine.dial(await buffer.offer())
    await reader.aclose()
    await asyncio.wait_for(buffer.task, 10)
    assert buffer.error is None
    assert source.closed
    await server.aclose()


async def test_an_unreachable_producer_is_a_stage_that_is_unavailable() -> None:
    with socket.socket() as closed:
        closed.bind((HOST, 0))
        port = closed.getsockname()[1]
    with pytest.raises(StageUnavailable, match=f"no connection to 127.0.0.1:{port}"):
        await CreditLine.dial(LinkOffer(HOST, port, bytes(16)))


async def test_a_producer_that_falls_silent_ends_the_stream_at_the_reader() -> None:
    """A peer that was cut off closes nothing: it accepts, and then says no more."""
    heard: list[bytes] = []

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readexactly(TOKEN_BYTES))
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(mute, HOST, 0)
    line = await CreditLine.dial(LinkOffer(HOST, listener.sockets[0].getsockname()[1], bytes(TOKEN_BYTES), silence_s=0.1))
    never: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    with pytest.raises(StageUnavailable, match="silent"):
        await line.watch(never)
    with pytest.raises(StageUnavailable, match="silent"):  # it stays lost
        await line.watch(asyncio.get_running_loop().create_future())
    assert heard
    await line.aclose()
    listener.close()


async def test_a_reader_that_falls_silent_ends_the_stream_at_the_producer() -> None:
    server = LinkServer(HOST, 1, silence_s=0.1)
    source = Source()
    buffer = Buffer(server.serve(source.items()))
    offer = await buffer.offer()
    _, writer = await asyncio.open_connection(offer.host, offer.port)
    writer.write(offer.token)
    await eventually(buffer.task.done)
    assert buffer.error is not None
    assert source.closed
    assert server.statistics().open == 0
    writer.close()
    await server.aclose()


async def test_ends_that_only_beat_stay_connected_and_grant_nothing() -> None:
    server = LinkServer(HOST, 1, silence_s=0.5)
    source = Source()
    buffer = Buffer(server.serve(source.items()))
    line = await CreditLine.dial(await buffer.offer())
    await asyncio.sleep(1.2)  # more than two silences
    assert not buffer.task.done()
    assert source.made == 1
    line.grant()
    await eventually(lambda: source.made == 2)
    await line.aclose()
    await eventually(buffer.task.done)
    await server.aclose()


@pytest.mark.real_time
async def test_a_process_that_stood_still_itself_does_not_take_its_peer_for_gone() -> None:
    server = LinkServer(HOST, 1, silence_s=0.5)
    source = Source()
    buffer = Buffer(server.serve(source.items()))
    line = await CreditLine.dial(await buffer.offer())
    await eventually(lambda: source.made == 1)
    for made in range(2, 5):
        time.sleep(0.6)  # noqa: ASYNC251 - a loop that stands still is the point
        line.grant()
        await eventually(lambda made=made: source.made == made)  # type: ignore[misc]
    assert buffer.error is None
    await line.aclose()
    await server.aclose()
