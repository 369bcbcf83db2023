"""WHIP over a real socket, with aiortc as the publisher: what comes is restyled and watched, and nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from model_core.access_units import Header
from model_core.media import fmp4_fragment, fmp4_init_segment
from tests.fakes import FakeStages, eventually
from tests.http_served import HttpServed, http_serving
from tests.pictures import moving
from tests.webrtc_peers import OPTIONS, Publisher, publisher, viewer

CONFIG = FakeStages().config
CHUNK, FPS = CONFIG.frames_per_chunk, CONFIG.fps
ASKED = "/v1/whip?prompt=a+blue+circle&strength=0.5"
SDP = {"content-type": "application/sdp"}


def units(first: int, count: int = CHUNK) -> list[bytes]:
    frames = moving(first + count)[first:]
    height, width = frames.shape[1:3]
    header = Header.of(fmp4_init_segment(width, height, FPS), width, height, FPS, CHUNK)
    return header.streamed(fmp4_fragment(frames, first, FPS), first, count)


@asynccontextmanager
async def sending(served: HttpServed, asked: str = ASKED) -> AsyncGenerator[Publisher]:
    """A publisher whose video never ends."""
    async with publisher(served.client, asked, FPS) as found:

        async def send() -> None:
            first = 0
            while found.track.readyState == "live":
                await found.track.put(first, units(first))
                first += CHUNK

        task = asyncio.create_task(send())
        try:
            yield found
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def peers(served: HttpServed) -> int:
    assert served.peers is not None
    return served.peers.peers


async def test_a_publisher_s_video_is_restyled_and_those_who_have_the_token_watch() -> None:
    async with http_serving(webrtc=OPTIONS) as served, sending(served) as found:
        assert found.link.endswith(f'/v1/watch/{found.token}/whep>; rel="alternate"')
        async with viewer(served.client, f"/v1/watch/{found.token}/whep") as seen:
            await eventually(lambda: len(seen.pictures.units) >= 2 * CHUNK)
        assert served.runner.open_sessions == 1


async def test_delete_ends_the_session_and_frees_everything() -> None:
    async with http_serving(webrtc=OPTIONS) as served, sending(served) as found:
        await eventually(lambda: served.metric("video_seconds_total") > 0)
        assert (await served.client.delete(found.location)).status_code == 200
        assert peers(served) == 0
        await served.nothing_left()


async def test_a_publisher_that_goes_away_ends_the_session() -> None:
    async with http_serving(webrtc=OPTIONS) as served, sending(served) as found:
        await eventually(lambda: served.metric("video_seconds_total") > 0)
        await found.pc.close()
        await eventually(lambda: peers(served) == 0)
        await served.nothing_left()


async def test_a_publisher_that_sends_nothing_ends_the_session() -> None:
    async with http_serving(webrtc=replace(OPTIONS, idle_s=0.3)) as served, publisher(served.client, ASKED, FPS):
        await eventually(lambda: peers(served) == 0)
        await served.nothing_left()


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "prompt"), ("?prompt=a&strength=2", "strength"), ("?prompt=a&strength=x", "strength"), ("?prompt=a&seed=-1", "seed"),
        ("?prompt=a&model=other", "model"), ("?prompt=a&colour=red", "colour"),
    ],
)  # fmt: skip
async def test_what_the_address_says_is_checked(query: str, field: str) -> None:
    async with http_serving(webrtc=OPTIONS) as served:
        client = Publisher(FPS)
        answer = await served.client.post(f"/v1/whip{query}", content=await client.offer(), headers=SDP)
        assert answer.status_code == 400
        assert [violation["field"] for violation in answer.json()["error"]["violations"]] == [field]
        await client.pc.close()
        await served.nothing_left()


async def test_where_there_is_no_slot_the_publisher_is_told() -> None:
    async with http_serving(webrtc=OPTIONS, max_sessions=1, max_waiting=0) as served, sending(served):
        second = Publisher(FPS)
        answer = await served.client.post(ASKED, content=await second.offer(), headers=SDP)
        assert answer.status_code == 503
        await second.pc.close()
        assert peers(served) == 1


async def test_an_offer_that_only_receives_is_refused() -> None:
    async with http_serving(webrtc=OPTIONS) as served:
        client = Publisher(FPS)
        offer = (await client.offer()).replace("a=sendonly", "a=recvonly")
        answer = await served.client.post(ASKED, content=offer, headers=SDP)
        assert (answer.status_code, "sendonly or sendrecv" in answer.text) == (400, True)
        await client.pc.close()
        await served.nothing_left()
