"""Which web pages may call this server from a browser: those of its own origin, and those that it is told of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from service.identity.principal import Forbidden

ANY = "*"

_EXPOSED = (
    b"x-request-id, retry-after, retry-after-ms, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    b"x-headrace-model, x-headrace-seed, x-headrace-session, x-headrace-watch-token, x-headrace-next-frame, "
    b"location, link, etag, "
    b"grpc-status, grpc-message, grpc-status-details-bin"
)
_KEPT_S = 600


class Origins:
    """See the module.

    Args:
        allowed: as browsers write them, `https://example.com`; `*` for every one.
        public_url: of this server.
    """

    def __init__(self, allowed: Sequence[str], public_url: str = "") -> None:
        self._allowed = frozenset(allowed)
        self._own_host = urlsplit(public_url).netloc.lower()

    def allows(self, origin: str) -> bool:
        return ANY in self._allowed or origin in self._allowed

    def check(self, origin: str, host: str) -> None:
        """A page of another site cannot read the answer, but its request would be worked on: it is refused.

        Raises:
            Forbidden: it is from a page that is not allowed.
        """
        if not origin or self.allows(origin):
            return
        try:
            page = urlsplit(origin).netloc.lower()
        except ValueError:  # as of `http://[`
            page = ""
        if not page or page not in {host.lower(), self._own_host}:
            raise Forbidden(f"origin must be one that front_door.http.origins lists, or this server's own; got {ascii(origin[:128])[1:-1]}")

    def headers(self, origin: str) -> Iterator[tuple[bytes, bytes]]:
        """For an answer to a page."""
        if not self._allowed:
            return
        yield b"vary", b"origin"
        if origin and self.allows(origin):
            yield b"access-control-allow-origin", origin.encode("latin-1")
            yield b"access-control-expose-headers", _EXPOSED

    def preflight(self, methods: Sequence[str], wanted: bytes) -> Iterator[tuple[bytes, bytes]]:
        """For the question that comes before a page's request, which wants to send the headers `wanted`."""
        yield b"access-control-allow-methods", ", ".join(methods).encode()
        yield b"access-control-max-age", b"%d" % _KEPT_S
        if wanted:
            yield b"access-control-allow-headers", wanted
