"""One connection of aiortc's: what a peer offers, answered; and its end. Runs in the event loop of `peers`, and imports aiortc.

Names inside aiortc and aioice are used in `bind`, so a new release of theirs needs a look.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpSender,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.rtcrtpparameters import RTCRtpCodecCapability
from aiortc.sdp import candidate_from_sdp

from doors.http.webrtc.offers import OFFER, announced, wrong
from doors.http.webrtc.options import WebRtcOptions

_H264 = ("video/h264", "video/rtx")
_CLOSES_WITHIN_S = 5.0
_ENDED = ("failed", "closed")

log = logging.getLogger(__name__)


class Connection:
    """See the module.

    Attributes:
        ended: is set when the peer has gone, did not come, or `close` was called.

    Args:
        options: where packets go, and how long a peer may take.
        transceive: what is asked of a new connection, before there is an offer.
    """

    def __init__(self, options: WebRtcOptions, transceive: Callable[[RTCPeerConnection], RTCRtpTransceiver]) -> None:
        self._options = options
        servers = [RTCIceServer(options.stun)] if options.stun else []
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self.transceiver = transceive(self._pc)
        self.transceiver.setCodecPreferences(_h264())
        self.ended = asyncio.Event()
        self.connected = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._pc.on("connectionstatechange", self._changed)

    async def answer(self, offer: str) -> str:
        """To an offer that was checked. Raises InvalidRequest: aiortc does not take it."""
        try:
            await self._pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        except Exception as error:  # noqa: BLE001 - of whatever kind, it came of what the peer sent
            said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            log.info("an offer was refused: %s", said)
            raise wrong(OFFER, f"must be a session that can be agreed on; got one that is refused with {said[:200]!a}") from None
        for transceiver in self._pc.getTransceivers():
            bind(transceiver, self._options.hosts)
        await self._pc.setLocalDescription()
        return announced(self._pc.localDescription.sdp, self._options.public_host)

    async def offer(self) -> str:
        """What this side would like to do."""
        bind(self.transceiver, self._options.hosts)
        await self._pc.setLocalDescription(await self._pc.createOffer())
        return announced(self._pc.localDescription.sdp, self._options.public_host)

    async def accept(self, answer: str) -> None:
        """Of the other side, to our offer. Raises InvalidRequest: aiortc does not take it."""
        try:
            await self._pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        except Exception as error:  # noqa: BLE001 - of whatever kind, it came of what the peer sent
            raise wrong("answer", f"must fit the offer; got one that is refused with {type(error).__name__}") from None

    async def add(self, candidates: Sequence[tuple[str, str]]) -> None:
        """Candidates of the peer, by the section's `mid`."""
        for mid, text in candidates:
            candidate = candidate_from_sdp(text)
            candidate.sdpMid = mid
            await self._pc.addIceCandidate(candidate)

    async def until_begun(self) -> None:
        """Returns when the peer is connected, or it is clear that it will not be; `ended` is set then."""
        try:
            async with asyncio.timeout(self._options.connect_s):
                await self.connected.wait()
        except TimeoutError:
            log.info("a peer did not connect within %g s", self._options.connect_s)
            self.ended.set()

    async def until_ended(self) -> None:
        """Returns when the peer has gone, or has not come in time."""
        await self.until_begun()
        await self.ended.wait()

    async def close(self) -> None:
        """Free everything. Every caller waits for the one close."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self.ended.set()
        try:
            async with asyncio.timeout(_CLOSES_WITHIN_S):
                await self._pc.close()
        except TimeoutError:
            log.warning("a connection could not be closed in order within %g s", _CLOSES_WITHIN_S)

    def _changed(self) -> None:
        if self._pc.connectionState == "connected":
            self.connected.set()
        elif self._pc.connectionState in _ENDED:
            self.connected.set()
            self.ended.set()


def sending(track: MediaStreamTrack) -> Callable[[RTCPeerConnection], RTCRtpTransceiver]:
    """A connection that sends `track`."""
    return lambda pc: pc.addTransceiver(track, "sendonly")


def _h264() -> list[RTCRtpCodecCapability]:
    return [codec for codec in RTCRtpSender.getCapabilities("video").codecs if codec.mimeType.lower() in _H264]


def bind(transceiver: RTCRtpTransceiver, hosts: Sequence[str]) -> None:
    """Have the connection take packets on `hosts` alone. aioice itself takes all addresses, and never loopback."""
    ice: Any = transceiver.receiver.transport.transport.iceGatherer._connection  # noqa: SLF001 - there is no setting for it
    gather: Callable[..., Awaitable[Any]] = ice.get_component_candidates
    if hosts and not isinstance(gather, partial):
        ice.get_component_candidates = partial(_gather_on, gather, list(hosts))


async def _gather_on(gather: Callable[..., Awaitable[Any]], hosts: list[str], component: int, addresses: list[str]) -> Any:
    del addresses  # those that aioice has found
    return await gather(component=component, addresses=hosts)
