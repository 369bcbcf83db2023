"""Where a broadcast goes: URLs, read and checked. Whoever names them owns the machine; a server must never take one from a caller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

MOST_OUTPUTS = 8
_MOST_CHARS = 2048
_PORTS = {"rtmp": 1935, "rtmps": 443}
_FORMATS = {"rtmp": "flv", "rtmps": "flv", "udp": "mpegts", "srt": "mpegts"}


@dataclass(frozen=True, slots=True)
class Destination:
    """One receiver.

    Attributes:
        url: as it was given. It may hold a secret, such as a stream key.
        scheme: one of `rtmp`, `rtmps`, `udp`, `srt`.
        container: `flv` or `mpegts`.
        name: for people and logs, without anything that may be secret.
    """

    url: str
    scheme: str
    container: str
    name: str


def destinations(field: str, urls: Sequence[str]) -> list[Destination]:
    """All of them. Raises ValueError: there are too many, one is there twice, or one is none."""
    if len(urls) > MOST_OUTPUTS:
        raise ValueError(f"{field} must be given at most {MOST_OUTPUTS} times; got {len(urls)}")
    found = [destination(field, url) for url in urls]
    for number, each in enumerate(found):
        if each in found[:number]:
            raise ValueError(f"{field} must differ from each other; got {each.name} twice")
    return found


def destination(field: str, url: str) -> Destination:
    """Raises ValueError: it is no URL of a receiver. The sentence begins with `field`, and holds no secret."""
    if len(url) > _MOST_CHARS:
        raise ValueError(f"{field} must have at most {_MOST_CHARS} characters; got {len(url)}")
    if any(ord(character) <= ord(" ") or ord(character) == 0x7F for character in url):
        raise ValueError(f"{field} must have no spaces or control characters")
    scheme = url.partition("://")[0].lower()
    if "://" not in url or scheme not in _FORMATS:
        known = ", ".join(f"{each}://" for each in _FORMATS)
        raise ValueError(f"{field} must begin with one of {known}; got {scheme[:16]!a}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"{field} must be {scheme}://HOST:PORT with a port from 1 to 65535") from None
    if not host:
        raise ValueError(f"{field} must name a host: {scheme}://HOST:PORT")
    if port is None and scheme not in _PORTS:
        raise ValueError(f"{field} must name a port: {scheme}://{host}:PORT")
    if port == 0:
        raise ValueError(f"{field} must be {scheme}://HOST:PORT with a port from 1 to 65535; got 0")
    if scheme in _PORTS and len(_segments(parts)) < 1:
        raise ValueError(f"{field} must name an application and a stream: {scheme}://{host}/APP/KEY")
    return Destination(url, scheme, _FORMATS[scheme], _name(scheme, host, port, parts))


def _segments(parts: SplitResult) -> list[str]:
    return [segment for segment in parts.path.split("/") if segment]


def _name(scheme: str, host: str, port: int | None, parts: SplitResult) -> str:
    """Without user, password, query, and the last part of the path, which is the stream key."""
    shown = f"[{host}]" if ":" in host else host
    at = shown if port is None else f"{shown}:{port}"
    application = _segments(parts)[:-1]
    return "/".join([f"{scheme}://{at}", *application, *(["..."] if _segments(parts) else [])])
