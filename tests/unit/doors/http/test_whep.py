"""WHEP over a real socket, with aiortc as the viewer: which packets come, from where on, and that nothing is left."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest

from doors.http.webrtc.options import WebRtcOptions
from model_core.access_units import Header, nal_units_of_annex_b
from tests.fakes import FakeDenoiser, FakeStages, eventually
from tests.http_served import HttpServed, http_serving
from tests.unit.doors.http.test_own_watch import Owner
from tests.webrtc_peers import OPTIONS, Viewer, viewer

CONFIG = FakeStages().config
CHUNK = CONFIG.frames_per_chunk
IDR, SPS = 5, 7
SDP = {"content-type": "application/sdp"}


@asynccontextmanager
async def playing(
    codec: str = "fmp4", *, seconds: float = 20.0, made: int = 2, webrtc: WebRtcOptions = OPTIONS
) -> AsyncGenerator[tuple[HttpServed, Owner, asyncio.Semaphore]]:
    """A session of which so many chunks are made. Each further one takes a permit."""
    gate = asyncio.Semaphore(made)
    async with http_serving(FakeStages(FakeDenoiser(CONFIG, gate=gate)), webrtc=webrtc) as served:
        owner = Owner(served, codec, seconds)
        await eventually(lambda: owner.chunks() == made)
        try:
            yield served, owner, gate
        finally:
            owner.task.cancel()
            await asyncio.gather(owner.task, return_exceptions=True)


def made_units(owner: Owner) -> list[list[bytes]]:
    """The pictures that the session's own viewer was sent, as NAL units."""
    header = Header.of(base64.b64decode(dict(owner.events)["started"]["codec_header"]), CONFIG.width, CONFIG.height, CONFIG.fps, CHUNK)
    chunks = [fields for name, fields in owner.events if name == "frames"]
    units = [header.streamed(base64.b64decode("".join(c["data"])), c["first_frame"], c["frame_count"]) for c in chunks]
    return [list(nal_units_of_annex_b(unit)) for of_chunk in units for unit in of_chunk]


async def url(owner: Owner) -> str:
    return f"/v1/watch/{await owner.token()}/whep"


def peers(served: HttpServed) -> int:
    assert served.peers is not None
    return served.peers.peers


async def test_packets_are_those_that_were_made_and_a_late_viewer_begins_with_the_newest_key_picture() -> None:
    async with playing(made=3) as (served, owner, gate), viewer(served.client, await url(owner)) as seen:
        await eventually(lambda: len(seen.pictures.units) >= CHUNK - 1)  # the last one comes with the next
        for _ in range(2):
            gate.release()
        await eventually(lambda: len(seen.pictures.units) >= 3 * CHUNK - 1)
        got = [list(nal_units_of_annex_b(unit)) for unit in seen.pictures.units]
        assert got == made_units(owner)[2 * CHUNK : 2 * CHUNK + len(got)]
        assert {SPS, IDR} <= {unit[0] & 0x1F for unit in got[0]}
        assert seen.pictures.timestamps == sorted(set(seen.pictures.timestamps))


async def test_delete_frees_everything() -> None:
    async with playing() as (served, owner, _), viewer(served.client, await url(owner)) as seen:
        assert peers(served) == 1
        assert served.hub.watchers == 1
        assert (await served.client.delete(seen.location)).status_code == 200
        assert peers(served) == 0
        assert served.hub.watchers == 0
        await eventually(lambda: seen.over)
        assert (await served.client.delete(seen.location)).status_code == 404
    assert not [thread for thread in threading.enumerate() if thread.name == "webrtc"]


async def test_a_viewer_that_goes_away_frees_everything() -> None:
    async with playing() as (served, owner, _), viewer(served.client, await url(owner)) as seen:
        await seen.pc.close()
        await eventually(lambda: peers(served) == 0 and served.hub.watchers == 0)


async def test_it_ends_with_the_session() -> None:
    async with playing(seconds=1.0, made=2) as (served, owner, gate), viewer(served.client, await url(owner)) as seen:
        gate.release()
        await eventually(owner.task.done)
        await eventually(lambda: seen.over and peers(served) == 0)


async def test_a_browser_that_offers_sound_too_gets_the_video() -> None:
    async with playing() as (served, owner, _), viewer(served.client, await url(owner), audio=True) as seen:
        await eventually(lambda: len(seen.pictures.units) >= CHUNK - 1)


async def test_so_many_peers_and_no_more() -> None:
    async with playing(webrtc=replace(OPTIONS, max_peers=1)) as (served, owner, _), viewer(served.client, await url(owner)):
        second = Viewer()
        answer = await served.client.post(await url(owner), content=await second.offer(), headers=SDP)
        assert answer.status_code == 503
        assert "at most 1 peers" in answer.json()["error"]["message"]
        await second.pc.close()


async def test_candidates_are_taken_and_ice_is_not_begun_anew() -> None:
    async with playing() as (served, owner, _), viewer(served.client, await url(owner)) as seen:

        async def patch(body: str, **headers: str) -> httpx.Response:
            kind = {"content-type": "application/trickle-ice-sdpfrag"}
            return await served.client.patch(seen.location, content=body, headers={**kind, **headers})

        fragment = "a=mid:0\r\na=candidate:1 1 udp 2130706431 127.0.0.1 9 typ host\r\na=end-of-candidates\r\n"
        assert (await patch(fragment)).status_code == 428
        assert (await patch(fragment, **{"if-match": '"another"'})).status_code == 412
        assert (await patch(fragment, **{"if-match": seen.etag})).status_code == 204
        assert (await patch(fragment, **{"if-match": "*"})).status_code == 422
        restart = "a=ice-ufrag:other\r\na=ice-pwd:aaaaaaaaaaaaaaaaaaaaaaaa\r\n"
        assert (await patch(restart, **{"if-match": seen.etag})).status_code == 422
        assert seen.pc.connectionState == "connected"


async def test_a_peer_that_never_connects_is_forgotten() -> None:
    async with playing(webrtc=replace(OPTIONS, connect_s=0.2)) as (served, owner, _):
        silent = Viewer()
        answer = await served.client.post(await url(owner), content=await silent.offer(), headers=SDP)
        assert answer.status_code == 201
        await eventually(lambda: peers(served) == 0 and served.hub.watchers == 0)
        await silent.pc.close()


@pytest.mark.parametrize("codec", ["jpeg", "raw"])
async def test_frames_that_are_no_video_are_refused(codec: str) -> None:
    async with playing(codec) as (served, owner, _):
        client = Viewer()
        answer = await served.client.post(await url(owner), content=await client.offer(), headers=SDP)
        assert answer.status_code == 400
        assert f"got one of {codec}" in answer.json()["error"]["message"]
        assert peers(served) == 0
        await client.pc.close()


def changed(offer: str, old: str, new: str) -> str:
    assert old in offer
    return offer.replace(old, new)


HOSTILE: dict[str, tuple[Any, int, str]] = {
    "nothing": (lambda _: "", 400, "must be SDP; got nothing"),
    "no SDP": (lambda _: "<html>", 400, "lines of printable ASCII"),
    "too large": (lambda offer: offer + "a=x:" + "y" * 70_000, 413, "at most 65536 bytes"),
    "a long line": (lambda offer: offer + "a=x:" + "y" * 3000 + "\r\n", 400, "at most 2048 characters"),
    "many lines": (lambda offer: offer + "a=x\r\n" * 1000, 400, "at most 1000 lines"),
    "many candidates": (lambda offer: offer + "a=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\n" * 20, 400, "at most 16 candidates"),
    "a data channel": (lambda offer: offer + "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n", 400, "one section of video"),
    "two videos": (lambda offer: offer + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n", 400, "one section of video"),
    "no H.264": (lambda offer: changed(offer, "H264/90000", "H265/90000"), 400, "H264/90000"),
    "it sends": (lambda offer: changed(offer, "a=recvonly", "a=sendonly"), 400, "recvonly or sendrecv"),
    "no fingerprint": (lambda offer: changed(offer, "a=fingerprint:", "a=finger:"), 400, "fingerprint"),
    "no password": (lambda offer: changed(offer, "a=ice-pwd:", "a=ice-word:"), 400, "ice-pwd"),
    "a port of letters": (lambda offer: changed(offer, "m=video ", "m=video 9 9"), 400, "offer"),
    "an odd payload type": (lambda offer: changed(offer, "a=rtpmap:", "a=rtpmap:x"), 400, "offer"),
    "no setup": (lambda offer: changed(offer, "a=setup:actpass", "a=setup:wrong"), 400, "offer"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_offer_is_refused_and_leaves_nothing(name: str) -> None:
    change, status, told = HOSTILE[name]
    async with playing() as (served, owner, _):
        client = Viewer()
        answer = await served.client.post(await url(owner), content=change(await client.offer()), headers=SDP)
        assert answer.status_code == status, answer.text
        assert told in answer.text
        await eventually(lambda: peers(served) == 0 and served.hub.watchers == 0)
        await client.pc.close()


async def test_an_offer_of_another_media_type_or_token_is_refused() -> None:
    async with playing() as (served, owner, _):
        assert "Content-Type" in (await served.client.post(await url(owner), content="v=0\r\n")).text
        client = Viewer()
        offer = await client.offer()
        assert (await served.client.post(f"/v1/watch/{'x' * 43}/whep", content=offer, headers=SDP)).status_code == 404
        assert (await served.client.get(await url(owner))).status_code == 405
        await client.pc.close()


async def test_without_webrtc_it_is_not_served() -> None:
    async with http_serving() as served:
        assert (await served.client.post(f"/v1/watch/{'x' * 43}/whep", content="v=0\r\n", headers=SDP)).status_code == 501


def test_aiortc_is_loaded_only_where_it_is_wanted() -> None:
    said = "import sys, doors.http.app, deployments.config.application, headrace.cli; print('aiortc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True).stdout == "False\n"
