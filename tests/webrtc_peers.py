"""The other side of a WebRTC connection, with what a test looks at: encoded pictures, before anybody decodes them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from doors.http.webrtc.connection import bind
from doors.http.webrtc.ingest import tapped
from doors.http.webrtc.options import WebRtcOptions
from doors.http.webrtc.track import UnitTrack
from tests.fakes import eventually

LOOPBACK = ("127.0.0.1",)
OPTIONS = WebRtcOptions(max_peers=2, hosts=LOOPBACK, connect_s=20.0, idle_s=20.0)


class Pictures:
    """Stands where aiortc has the queue to its decoder."""

    def __init__(self) -> None:
        self.units: list[bytes] = []
        self.timestamps: list[int] = []

    def put(self, given: Any) -> None:
        if given is not None:
            _, frame = given
            self.units.append(frame.data)
            self.timestamps.append(frame.timestamp)

    def get(self) -> None:
        """The decoder's thread ends at once."""


class Viewer:
    """A WHEP client."""

    def __init__(self) -> None:
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.pictures = Pictures()
        self.location = ""
        self.etag = ""

    async def offer(self, *, audio: bool = False) -> str:
        if audio:
            self.pc.addTransceiver("audio", "recvonly")
        transceiver = self.pc.addTransceiver("video", "recvonly")
        tapped(transceiver, self.pictures)
        for each in self.pc.getTransceivers():
            bind(each, LOOPBACK)
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return str(self.pc.localDescription.sdp)

    async def join(self, client: httpx.AsyncClient, path: str, *, audio: bool = False) -> None:
        answer = await client.post(path, content=await self.offer(audio=audio), headers={"content-type": "application/sdp"})
        assert answer.status_code == 201, answer.text
        assert answer.headers["content-type"] == "application/sdp"
        self.location, self.etag = answer.headers["location"], answer.headers["etag"]
        await self.pc.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))

    @property
    def over(self) -> bool:
        return self.pc.connectionState in ("closed", "failed")


class Publisher:
    """A WHIP client that sends pictures which are coded already.

    Args:
        fps: of them.
    """

    def __init__(self, fps: int) -> None:
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.track = UnitTrack(fps)
        self.location = self.token = self.link = ""

    async def offer(self) -> str:
        transceiver = self.pc.addTransceiver(self.track, "sendonly")
        bind(transceiver, LOOPBACK)
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return str(self.pc.localDescription.sdp)

    async def join(self, client: httpx.AsyncClient, path: str) -> None:
        answer = await client.post(path, content=await self.offer(), headers={"content-type": "application/sdp"})
        assert answer.status_code == 201, answer.text
        self.location, self.token = answer.headers["location"], answer.headers["x-headrace-watch-token"]
        self.link = answer.headers["link"]
        await self.pc.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))


@asynccontextmanager
async def publisher(client: httpx.AsyncClient, path: str, fps: int) -> AsyncGenerator[Publisher]:
    """One that is connected."""
    found = Publisher(fps)
    try:
        await found.join(client, path)
        await eventually(lambda: found.pc.connectionState == "connected")
        yield found
    finally:
        await found.pc.close()


@asynccontextmanager
async def viewer(client: httpx.AsyncClient, path: str, *, audio: bool = False) -> AsyncGenerator[Viewer]:
    """One that is connected."""
    found = Viewer()
    try:
        await found.join(client, path, audio=audio)
        await eventually(lambda: found.pc.connectionState == "connected")
        yield found
    finally:
        await found.pc.close()
