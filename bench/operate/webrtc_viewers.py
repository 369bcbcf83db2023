"""Viewers by WHEP that take packets and decode nothing, so that what they cost is what the server does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from doors.http.webrtc.connection import bind
from doors.http.webrtc.ingest import tapped

_CONNECTS_WITHIN_S = 20.0
_HOSTS = ("127.0.0.1",)


class Taking:
    """Counts what comes to all of them."""

    def __init__(self) -> None:
        self.pictures = 0

    def put(self, given: Any) -> None:
        self.pictures += given is not None

    def get(self) -> None:
        """Nothing is decoded."""


@asynccontextmanager
async def taking(url: str, count: int) -> AsyncGenerator[Taking]:
    """So many that are connected."""
    found, peers = Taking(), [RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(count)]
    connected = [_connected(pc) for pc in peers]
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=_CONNECTS_WITHIN_S) as client:
            for pc in peers:
                transceiver = pc.addTransceiver("video", "recvonly")
                tapped(transceiver, found)
                bind(transceiver, _HOSTS)
                await pc.setLocalDescription(await pc.createOffer())
                answer = await client.post(url, content=pc.localDescription.sdp, headers={"content-type": "application/sdp"})
                if answer.status_code != httpx.codes.CREATED:
                    raise RuntimeError(f"a viewer is refused: {answer.status_code}: {answer.text}")
                await pc.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
            async with asyncio.timeout(_CONNECTS_WITHIN_S):
                await asyncio.gather(*(event.wait() for event in connected))
        found.pictures = 0
        yield found
    finally:
        await asyncio.gather(*(pc.close() for pc in peers))


def _connected(pc: RTCPeerConnection) -> asyncio.Event:
    """Is set once `pc` is."""
    event = asyncio.Event()

    def changed() -> None:
        if pc.connectionState == "connected":
            event.set()

    pc.on("connectionstatechange", changed)
    return event
