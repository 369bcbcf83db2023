"""Latents of a source from one process to another: asked for one by one, over a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from deployments.links.source import SourceServer, dial
from model_core.errors import StageUnavailable
from model_core.types import Latents, SourceOffer
from tests.fakes import eventually


class Counting:
    """A `Source` of `chunks` chunks, each behind a permit of `gate`."""

    def __init__(self, chunks: int, permits: int = 1000) -> None:
        self._chunks = chunks
        self.gate = asyncio.Semaphore(permits)
        self.waiting = 0

    async def latents(self, chunk: int) -> Latents | None:
        self.waiting += 1
        try:
            await self.gate.acquire()
        finally:
            self.waiting -= 1
        if chunk == 66:
            raise StageUnavailable("the encoder is away")
        return np.full((2, 1, 3, 4), chunk, np.float32) if chunk < self._chunks else None


@asynccontextmanager
async def serving() -> AsyncGenerator[SourceServer, None]:
    server = await SourceServer.started("127.0.0.1")
    yield server
    await server.aclose()


async def test_chunks_cross_as_they_are_until_the_source_ends() -> None:
    async with serving() as server, dial(server.offer(Counting(3))) as source:
        got = [await source.latents(chunk) for chunk in (1, 2, 3, 0)]

    assert [None if latents is None else (latents.shape, float(latents[0, 0, 0, 0])) for latents in got] == [
        ((2, 1, 3, 4), 1.0), ((2, 1, 3, 4), 2.0), None, ((2, 1, 3, 4), 0.0),
    ]  # fmt: skip


async def test_a_leg_that_goes_leaves_nobody_waiting() -> None:
    held = Counting(3, permits=0)
    async with serving() as server:
        offer = server.offer(held)
        async with dial(offer) as source:
            asking = asyncio.ensure_future(source.latents(0))
            await eventually(lambda: held.waiting == 1)
            asking.cancel()
        await eventually(lambda: held.waiting == 0)


async def test_a_session_that_ends_cuts_off_who_asks() -> None:
    held = Counting(3, permits=0)
    async with serving() as server:
        offer = server.offer(held)
        async with dial(offer) as source:
            asking = asyncio.ensure_future(source.latents(0))
            await eventually(lambda: held.waiting == 1)
            server.withdraw(offer)
            with pytest.raises(StageUnavailable, match="the session's source has gone"):
                await asking
        async with dial(offer) as source:
            with pytest.raises(StageUnavailable, match="the session's source has gone"):
                await source.latents(0)


async def test_a_source_that_fails_ends_the_leg() -> None:
    async with serving() as server, dial(server.offer(Counting(99))) as source:
        with pytest.raises(StageUnavailable, match="the session's source has gone"):
            await source.latents(66)


async def test_a_token_that_was_guessed_opens_nothing() -> None:
    async with serving() as server:
        offer = server.offer(Counting(3))
        async with dial(SourceOffer(bytes(16), offer.host, offer.port)) as source:
            with pytest.raises(StageUnavailable, match="the session's source has gone"):
                await source.latents(0)


async def test_a_front_door_that_is_gone_is_said_with_its_address() -> None:
    async with serving() as server:
        offer = server.offer(Counting(3))
    with pytest.raises(StageUnavailable, match=rf"no connection to the session's source at 127.0.0.1:{offer.port}"):
        async with dial(offer):
            raise AssertionError("unreachable")
