"""`POST /v1/whip`: video that a publisher sends over WebRTC, as WHIP has it, restyled while it comes; and `/v1/whip/{id}`, to end it.

The session is one that restyles a source, as gRPC's Live has it. Its frames go to those who watch it: the answer says the token.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from starlette.datastructures import QueryParams
from starlette.responses import Response

from doors.http.given import Given, check_all
from doors.http.own import peering
from doors.http.room import HttpRequest, Services
from doors.http.webrtc.offers import checked_offer, ufrag_of
from doors.http.webrtc.peers import Peer, WebRtc
from model_core.tasks import cancel_and_wait
from model_core.types import Codec
from service.call import Call
from service.checks import Limits, Problems
from service.controls import Control, EndSource, GiveSource
from service.events import Event, SourceDropped, SourceTaken, Started
from service.failures import NotServed
from service.intake import Intake
from service.orders import Doorway, Mode, Order, VideoRequest
from service.sessions.runner import SessionRunner
from service.watching.hub import NOBODY

if TYPE_CHECKING:
    from doors.http.webrtc.ingest import Ingest

KIND = "whip"
DEFAULT_STRENGTH = 0.6
_QUERY = Doorway(Mode.LIVE)
_KNOWN = ("prompt", "strength", "model", "seed", "steps", "key")
# So much of the source waits for the session: what is older is not worth restyling any more.
_WAITING_CHUNKS = 2
_ENDS_WITHIN_S = 10.0

log = logging.getLogger(__name__)


class Whip:
    """The endpoints' handlers.

    Args:
        services: what they work with.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    async def publish(self, request: HttpRequest) -> Response:
        webrtc = self._services.peers()
        if self._services.viewers is None:
            raise NotServed(NOBODY)
        order = ordered(request.raw.query_params, self._services.intake)
        request.principal.check_model(order.config.name)
        text = await peering.sdp_of(request, webrtc.options, peering.OFFER_TYPE)
        offer = checked_offer(text, sends=True, takes_candidates=webrtc.options.takes_candidates)
        publishing = Publishing(webrtc, self._services.runner, order, request.call.again(), self._services.intake.limits)
        peer = await publishing.answered(offer)
        response = peering.created(peer, publishing.answer, webrtc.options)
        response.headers["x-headrace-watch-token"] = order.watch_token
        response.headers.append("link", f'<{request.base_url}/v1/watch/{order.watch_token}/whep>; rel="alternate"')
        return response

    async def patch(self, request: HttpRequest) -> Response:
        return await peering.patched(request, self._services.peers(), KIND)

    async def delete(self, request: HttpRequest) -> Response:
        return await peering.deleted(request, self._services.peers(), KIND)


def ordered(query: QueryParams, intake: Intake) -> Order:
    """The order that the address asks for. Raises InvalidRequest, with everything that is wrong."""
    problems = Problems()
    given = Given({name: query[name] for name in query}, problems)
    given.only(*_KNOWN)
    strength = given.number("strength")
    video = VideoRequest(
        prompt=given.text("prompt", required=True), model=given.text("model"), strength=DEFAULT_STRENGTH if strength is None else strength,
        seed=given.integer("seed", 0, 2**64 - 1), steps=given.integer("steps", 1, 1000) or 0, codec=Codec.FMP4_H264,
        max_lead_seconds=intake.limits.live_lead_seconds,
    )  # fmt: skip
    check_all(problems, intake, video, _QUERY)
    return intake.order(video, _QUERY, problems)


class Publishing:
    """One publisher, with its session.

    Attributes:
        answer: to its offer, in SDP.
    """

    def __init__(self, webrtc: WebRtc, runner: SessionRunner, order: Order, call: Call, limits: Limits) -> None:
        self._webrtc, self._runner, self._order, self._call = webrtc, runner, order, call
        self._most_bytes = limits.max_source_bytes
        self._begun = asyncio.Event()
        self._room = asyncio.Event()
        self._next = self._until = 0
        self._ended = False
        self._ingest: Ingest | None = None
        self._peer: asyncio.Future[Peer] = asyncio.get_running_loop().create_future()
        self.answer = ""

    async def answered(self, offer: str) -> Peer:
        """Returns when there is an answer. The session runs from then on, in a task of its own.

        Raises:
            CapacityExceeded, StageUnavailable, Forbidden, QuotaExceeded: as `SessionRunner.run`, and `WebRtc.peer`.
            InvalidRequest: the offer cannot be agreed on.
        """
        made: asyncio.Future[Peer] = asyncio.get_running_loop().create_future()
        return await peering.first_of(self._webrtc.own(self._serve(offer, made)), made)

    async def _serve(self, offer: str, made: asyncio.Future[Peer]) -> None:
        from doors.http.webrtc.connection import Connection  # noqa: PLC0415 - aiortc is there only where it is wanted
        from doors.http.webrtc.ingest import Ingest  # noqa: PLC0415

        config = self._order.config

        def connection() -> Connection:
            self._ingest = Ingest(config.width, config.height, config.fps, _WAITING_CHUNKS * config.frames_per_chunk)
            return Connection(self._webrtc.options, self._ingest.receiving)

        session = asyncio.create_task(self._runner.run(self._order, self._see, self._call, self._next_control))
        beginning = asyncio.create_task(self._begun.wait())
        try:
            await asyncio.wait({session, beginning}, return_when=asyncio.FIRST_COMPLETED)
            if session.done():
                return session.result()
            async with self._webrtc.peer(KIND, ufrag_of(offer), connection) as peer:
                self.answer = await peer.run(peer.connection.answer(offer))
                self._peer.set_result(peer)
                made.set_result(peer)
                await self._until_over(peer, session)
        finally:
            await cancel_and_wait(session, beginning)

    async def _until_over(self, peer: Peer, session: asyncio.Task[None]) -> None:
        """Until the session has ended, or the publisher has gone and what it sent was restyled."""
        ingest = self._ingest
        if ingest is None:
            return
        gone = asyncio.create_task(peer.run(peer.connection.until_ended()))
        decoding = asyncio.create_task(peer.run(ingest.run()))
        try:
            await asyncio.wait({session, gone, decoding}, return_when=asyncio.FIRST_COMPLETED)
            if decoding.done() and (error := decoding.exception()) is not None:
                log.warning("what a publisher sends cannot be decoded: %s: %s", type(error).__name__, error)
            await cancel_and_wait(decoding)
            await asyncio.wait({session}, timeout=_ENDS_WITHIN_S)
        finally:
            await cancel_and_wait(gone, decoding)
            log.info("a publisher has gone: session %s, %d pictures dropped", self._order.request.session_id, ingest.dropped)

    async def _see(self, event: Event) -> None:
        match event:
            case Started(source=source) if source is not None:
                self._next, self._until = source.next_frame, source.until_frame
            case SourceTaken(until_frame=until):
                self._until = until
            case SourceDropped(next_frame=following):
                self._next = following
        self._begun.set()
        self._room.set()

    async def _next_control(self) -> Control | None:
        """See `service.controls.Controls`: the frames that the session may take now."""
        if self._ended:
            return None
        peer = await self._peer
        while (room := self._until - self._next) <= 0:
            self._room.clear()
            await self._room.wait()
        ingest, config = self._ingest, self._order.config
        most = max(1, min(room, self._most_bytes // (config.width * config.height * 3)))
        frames = () if ingest is None else await peer.run(ingest.next(most, self._webrtc.options.idle_s))
        if not frames:
            self._ended = True
            return EndSource()
        first, self._next = self._next, self._next + len(frames)
        return GiveSource(first, Codec.RAW_RGB, frames)
