"""`GET /v1/watch/{token}/hls/…`: a session that somebody else runs, in playlists and segments, as players of HLS fetch them.

Playlists have parts, and wait for the part that a player asks for: `_HLS_msn` and `_HLS_part` in the query, as
draft-pantos-hls-rfc8216bis has it.
"""

from __future__ import annotations

import re
import time

from starlette.responses import Response

from doors.http.given import shown
from doors.http.room import HttpRequest, Services
from model_core.errors import FieldViolation, InvalidRequest, StageUnavailable
from service.broadcast.channels import Channel, Channels
from service.broadcast.playlist import INIT, MEDIA, MULTIVARIANT
from service.broadcast.window import Window
from service.clock import MonotonicClock
from service.records.store import SessionNotFound

PLAYLIST_TYPE, SEGMENT_TYPE = "application/vnd.apple.mpegurl", "video/mp4"
_NAME = re.compile(r"(part|segment)-(\d{1,12})\.m4s")
_FIRST_WITHIN_S = 15.0
# A playlist that is asked for may come so many target durations later, and be of so many segments that are still to come.
_WAIT_TARGETS, _MOST_AHEAD = 3, 2
_LARGEST = 10**12
_MISSING = "the playlist does not list it any more, or not yet"


class Hls:
    """The endpoint's handler.

    Args:
        services: what it works with.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._channels: Channels | None = None

    async def fetch(self, request: HttpRequest) -> Response:
        name: str = request.raw.path_params["name"]
        if name not in {MULTIVARIANT, MEDIA, INIT} and _NAME.fullmatch(name) is None:
            raise SessionNotFound(f"there is no such file: {shown(name)}")
        asked = _asked(request) if name == MEDIA else None
        channel = self._all().channel(request.raw.path_params["token"], request.call)
        window = await channel.until(lambda _: True, _FIRST_WITHIN_S)
        match name:
            case "index.m3u8":
                return _playlist(window.multivariant())
            case "init.mp4":
                return _segment(window.header.segment)
            case "media.m3u8":
                return _playlist((await _advanced(channel, window, asked)).playlist())
        data = await _data(channel, window, name)
        if data is None:
            raise SessionNotFound(f"{shown(name)}: {_MISSING}")
        return _segment(data)

    def _all(self) -> Channels:
        viewers = self._services.watching()
        if self._channels is None:
            self._channels = Channels(viewers, MonotonicClock(), time.time)
        return self._channels


async def _advanced(channel: Channel, window: Window, asked: tuple[int, int | None] | None) -> Window:
    """The window, once it has what was asked for.

    Raises:
        InvalidRequest: that is too far ahead.
        StageUnavailable: it has not come in time.
    """
    if asked is None or window.has(*asked):
        return window
    number, part = asked
    newest, _ = window.newest
    if number > newest + _MOST_AHEAD:
        raise InvalidRequest((FieldViolation("_HLS_msn", f"must be at most {newest + _MOST_AHEAD} now; got {number}"),))
    window = await channel.until(lambda now: now.has(number, part), _WAIT_TARGETS * window.shape.target_s)
    if not window.has(number, part):
        raise StageUnavailable("the session is late; ask again")
    return window


async def _data(channel: Channel, window: Window, name: str) -> bytes | None:
    """A segment, or a part. The part that comes next may be asked for before it is there: the playlist names it."""
    kind, _, number = name.removesuffix(".m4s").partition("-")
    if kind == "segment":
        return window.segment(int(number))
    frame = int(number)
    if not window.has_frame(frame) and window.next_frame == frame:
        window = await channel.until(lambda now: now.has_frame(frame), _WAIT_TARGETS * window.shape.target_s)
    return window.part(frame)


def _asked(request: HttpRequest) -> tuple[int, int | None] | None:
    """The segment and the part that a playlist must have. Raises InvalidRequest."""
    query = request.raw.query_params
    values: dict[str, int] = {}
    for field in ("_HLS_msn", "_HLS_part"):
        text = query.get(field)
        if text is None:
            continue
        if not text.isdecimal() or not text.isascii() or len(text) > len(str(_LARGEST)):
            raise InvalidRequest((FieldViolation(field, f"must be a whole number from 0 to {_LARGEST}; got {shown(text)}"),))
        values[field] = int(text)
    if "_HLS_part" in values and "_HLS_msn" not in values:
        raise InvalidRequest((FieldViolation("_HLS_part", "must come with _HLS_msn"),))
    return (values["_HLS_msn"], values.get("_HLS_part")) if values else None


def _playlist(text: str) -> Response:
    return Response(text, media_type=PLAYLIST_TYPE, headers={"cache-control": "no-store"})


def _segment(data: bytes) -> Response:
    return Response(data, media_type=SEGMENT_TYPE, headers={"cache-control": "private, max-age=60"})
