"""A WHIP client: offers video that is coded already to a server elsewhere, and takes its answer. Imports aiortc."""

from __future__ import annotations

import asyncio
import http.client
import logging
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from doors.http.webrtc.connection import Connection, sending
from doors.http.webrtc.options import WebRtcOptions
from doors.http.webrtc.track import UnitTrack
from model_core.errors import HeadraceError, InvalidRequest

SCHEMES = {"whip+http": "http", "whip+https": "https", "http": "http", "https": "https"}

_TIMEOUT_S = 15.0
_MOST_ANSWER_BYTES = 256 * 1024
_SDP = "application/sdp"

log = logging.getLogger(__name__)


class PushRefused(HeadraceError):
    """The server does not take the video. `lasting`: nor will it, if it is asked the same again."""

    def __init__(self, sentence: str, *, lasting: bool) -> None:
        super().__init__(sentence)
        self.lasting = lasting


@dataclass(frozen=True, slots=True)
class Target:
    """A WHIP endpoint: its address, and what it asks for as a bearer token; empty for nothing."""

    url: str
    token: str = ""

    @classmethod
    def of(cls, url: str, token: str = "") -> Target:
        """Raises ValueError: it is no address of a WHIP endpoint."""
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES or not parts.hostname or parts.fragment or not url.isascii() or not url.isprintable():
            raise ValueError(f"must be whip+http://HOST/… or whip+https://HOST/…; got {ascii(url[:128])[1:-1]}")
        return cls(parts._replace(scheme=SCHEMES[parts.scheme]).geturl(), token)


@asynccontextmanager
async def pushing(target: Target, track: UnitTrack, options: WebRtcOptions) -> AsyncGenerator[Connection]:
    """`track` plays there as long as this is entered, and the connection is not `ended`.

    Raises:
        PushRefused: it does not.
    """
    connection = Connection(options, sending(track))
    place = ""
    try:
        status, place, answer = await asyncio.to_thread(_asked, "POST", target.url, target.token, await connection.offer())
        if status != http.client.CREATED:
            lasting = 400 <= status < 500 and status not in (408, 429)
            raise PushRefused(f"{urlsplit(target.url).netloc} answers {status}: {answer[:200]!a}", lasting=lasting)
        try:
            await connection.accept(answer)
        except InvalidRequest as error:
            raise PushRefused(f"{urlsplit(target.url).netloc} answers what cannot be agreed on: {error}", lasting=True) from None
        yield connection
    finally:
        await connection.close()
        if place:
            with suppress(PushRefused):
                await asyncio.to_thread(_asked, "DELETE", urljoin(target.url, place), target.token, "")


def _asked(method: str, url: str, token: str, body: str) -> tuple[int, str, str]:
    """The status, where the resource is, and what comes with it. Redirects are not followed. Blocks. Raises PushRefused."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    headers = {"content-type": _SDP, **({"authorization": f"Bearer {token}"} if token else {})}
    try:
        connection: http.client.HTTPConnection
        if secure:
            connection = http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=ssl.create_default_context())
        else:
            connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request(method, path, body.encode("latin-1"), headers)
            answer = connection.getresponse()
            return answer.status, answer.headers.get("location", ""), answer.read(_MOST_ANSWER_BYTES).decode("latin-1")
        finally:
            connection.close()
    except (OSError, http.client.HTTPException) as error:
        raise PushRefused(f"{parts.netloc} cannot be asked: {error!s:.200} ({type(error).__name__})", lasting=False) from None
