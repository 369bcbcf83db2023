"""What WHIP and WHEP have in common over HTTP: offers and fragments in, answers out, and resources that are changed and ended."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.responses import Response

from doors.http.own import words
from doors.http.room import HttpRequest
from doors.http.webrtc.offers import FRAGMENT, Restarting, checked_fragment, wrong
from doors.http.webrtc.options import WebRtcOptions
from doors.http.webrtc.peers import Peer, WebRtc
from model_core.tasks import cancel_and_wait
from service.failures import Failure, Kind

OFFER_TYPE = "application/sdp"
FRAGMENT_TYPE = "application/trickle-ice-sdpfrag"


async def sdp_of(request: HttpRequest, options: WebRtcOptions, kind: str) -> str:
    """The body, which is of the media type `kind`. Raises InvalidRequest, or BodyTooLarge."""
    given = request.raw.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != kind:
        raise wrong("Content-Type", f"must be {kind}; got {given[:64]!a}")
    body = await request.body(options.max_offer_bytes)
    return body.decode("latin-1")


def created(peer: Peer, answer: str, options: WebRtcOptions) -> Response:
    """The answer to an offer."""
    headers = {
        "location": f"/v1/{peer.kind}/{peer.id}", "etag": peer.etag, "accept-patch": FRAGMENT_TYPE, "cache-control": "no-store",
    }  # fmt: skip
    if options.stun:
        headers["link"] = f'<{options.stun}>; rel="ice-server"'
    return Response(answer, 201, headers, OFFER_TYPE)


async def patched(request: HttpRequest, webrtc: WebRtc, kind: str) -> Response:
    """Candidates that are added; an ICE session is not begun anew, which is refused with 422, as the standard has it.

    Raises:
        NotFound: there is no such peer.
        InvalidRequest, BodyTooLarge: it is no fragment.
    """
    peer = webrtc.find(kind, request.raw.path_params["id"])
    match = request.raw.headers.get("if-match", "")
    if not match:
        return _refused(request, 428, "If-Match must be the ETag of the answer; got none")
    try:
        if match == "*":
            raise Restarting
        if match != peer.etag:
            return _refused(request, 412, f"If-Match must be the ETag of the answer; got {match[:64]!a}")
        text = await sdp_of(request, webrtc.options, FRAGMENT_TYPE)
        candidates = checked_fragment(text, peer.ufrag)
    except Restarting:
        return _refused(request, 422, f"{FRAGMENT}: ICE is not begun anew here; end this connection, and make another one")
    await webrtc.add(peer, candidates)
    return Response(status_code=204)


async def deleted(request: HttpRequest, webrtc: WebRtc, kind: str) -> Response:
    """The end of a peer: nothing of it is left. Raises NotFound."""
    await webrtc.end(webrtc.find(kind, request.raw.path_params["id"]))
    return Response(status_code=200)


async def first_of(task: asyncio.Task[None], made: asyncio.Future[Peer]) -> Peer:
    """The peer that `task` makes and goes on to own. Raises what the task raises before that."""
    both: list[asyncio.Future[Any]] = [task, made]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        await cancel_and_wait(task)
        raise
    if not made.done():
        task.result()
    return made.result()


def _refused(request: HttpRequest, status: int, sentence: str) -> Response:
    response = words.refusal(Failure(kind=Kind.INVALID, message=sentence, request_id=request.request_id))
    response.status_code = status
    return response
