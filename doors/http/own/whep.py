"""`POST /v1/watch/{token}/whep`: a session that somebody else runs, over WebRTC, as WHEP has it; and `/v1/whep/{id}`, to end it.

The packets of the session's H.264 are sent on as they are. So a viewer costs packets, and no work of a codec.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from doors.http.own import peering
from doors.http.room import HttpRequest, Services
from doors.http.webrtc.offers import checked_offer, ufrag_of, wrong
from doors.http.webrtc.peers import Peer, WebRtc
from model_core.access_units import Header
from model_core.errors import StageUnavailable
from model_core.tasks import cancel_and_wait
from model_core.types import Codec
from service.call import Call
from service.events import Frames, Started
from service.watching.show import Item
from service.watching.viewers import SendItem, Viewers

if TYPE_CHECKING:
    from doors.http.webrtc.track import UnitTrack

KIND = "whep"
# How long a session that waits for its slot may leave a viewer without an answer.
_STARTS_WITHIN_S = 10.0
# What was sent to a peer may still be on its way when the session has ended.
_PLAYED_WITHIN_S = 5.0


class Whep:
    """The endpoints' handlers.

    Args:
        services: what they work with.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    async def watch(self, request: HttpRequest) -> Response:
        webrtc, viewers = self._services.peers(), self._services.watching()
        text = await peering.sdp_of(request, webrtc.options, peering.OFFER_TYPE)
        offer = checked_offer(text, sends=False, takes_candidates=webrtc.options.takes_candidates)
        viewing = Viewing(webrtc, viewers, request.call.again())
        peer = await viewing.answered(request.raw.path_params["token"], offer)
        return peering.created(peer, viewing.answer, webrtc.options)

    async def patch(self, request: HttpRequest) -> Response:
        return await peering.patched(request, self._services.peers(), KIND)

    async def delete(self, request: HttpRequest) -> Response:
        return await peering.deleted(request, self._services.peers(), KIND)


class Viewing:
    """One viewer.

    Attributes:
        answer: to its offer, in SDP.
    """

    def __init__(self, webrtc: WebRtc, viewers: Viewers, call: Call) -> None:
        self._webrtc, self._viewers, self._call = webrtc, viewers, call
        self._track: UnitTrack | None = None
        self._peer: asyncio.Future[Peer] = asyncio.get_running_loop().create_future()
        self._header: Header | None = None
        self._started: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        self.answer = ""

    async def answered(self, token: str, offer: str) -> Peer:
        """Returns when there is an answer; the viewer watches from then on, in a task of its own.

        Raises:
            SessionNotFound, NotServed, CapacityExceeded, StageUnavailable: as `Viewers.run`, and `WebRtc.peer`.
            InvalidRequest: the session's frames are not of H.264, or the offer cannot be agreed on.
        """
        made: asyncio.Future[Peer] = asyncio.get_running_loop().create_future()
        return await peering.first_of(self._webrtc.own(self._serve(token, offer, made)), made)

    async def _serve(self, token: str, offer: str, made: asyncio.Future[Peer]) -> None:
        from doors.http.webrtc.connection import Connection, sending  # noqa: PLC0415 - aiortc is there only where it is wanted
        from doors.http.webrtc.track import UnitTrack  # noqa: PLC0415

        watching = asyncio.create_task(self._viewers.run(token, self._meet, self._call))
        try:
            started = await self._begun(watching)

            def connection() -> Connection:
                self._track = UnitTrack(started.fps)
                return Connection(self._webrtc.options, sending(self._track))

            async with self._webrtc.peer(KIND, ufrag_of(offer), connection) as peer:
                self._peer.set_result(peer)
                self.answer = await peer.run(peer.connection.answer(offer))
                made.set_result(peer)
                await self._until_over(peer, watching)
        finally:
            await cancel_and_wait(watching)

    async def _begun(self, watching: asyncio.Task[None]) -> Started:
        both: list[asyncio.Future[Any]] = [watching, self._started]
        await asyncio.wait(both, timeout=_STARTS_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
        if self._started.done():
            return self._started.result()
        if watching.done():
            watching.result()
        raise StageUnavailable(f"the session has not started within {_STARTS_WITHIN_S:g} s; it waits for a slot")

    async def _until_over(self, peer: Peer, watching: asyncio.Task[None]) -> None:
        """Until the session has ended and was played, or the viewer has gone."""
        gone = asyncio.create_task(peer.run(peer.connection.until_ended()))
        try:
            await asyncio.wait({watching, gone}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done() and not gone.done() and self._track is not None:
                playing = asyncio.create_task(peer.run(self._track.played()))
                await asyncio.wait({playing, gone}, timeout=_PLAYED_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
                await cancel_and_wait(playing)
        finally:
            await cancel_and_wait(gone)

    def _meet(self, started: Started) -> SendItem:
        if started.codec is not Codec.FMP4_H264:
            raise wrong("token", f"must be of a session whose frames are {Codec.FMP4_H264.value}; got one of {started.codec.value}")
        self._header = Header.of(started.codec_header, started.width, started.height, started.fps, started.frames_per_chunk)
        if not self._started.done():
            self._started.set_result(started)
        return self._show

    async def _show(self, item: Item) -> None:
        event, header = item.event, self._header
        if not isinstance(event, Frames) or header is None:
            return
        chunk = event.chunk
        peer = await self._peer
        units = item.once(("annexb", header.segment), lambda _: header.streamed(b"".join(chunk.data), chunk.first_frame, chunk.num_frames))
        if self._track is not None:
            await peer.run(self._track.put(chunk.first_frame, units))
