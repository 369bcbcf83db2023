"""An answer whose body is written while it is made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

Write = Callable[[bytes], Awaitable[None]]
"""Returns when the caller has taken it. Whoever writes waits for it, so a slow reader slows its own session and no other."""

_LIVE = {"cache-control": "no-store", "x-accel-buffering": "no"}


class PushedResponse(Response):
    """Runs `produce`, which writes the body. The session stays in the request's own task: nothing is handed from one task to another.

    The head goes out with the first write. What fails before that is refused as any other call is; what fails later breaks off the answer,
    so that no caller takes a part for the whole.

    Args:
        produce: writes the body; it may add headers until its first write.
        media_type: of the body.
        headers: beside those that keep caches and proxies from holding the body back.
    """

    def __init__(self, produce: Callable[[Write], Awaitable[None]], media_type: str, headers: Mapping[str, str] | None = None) -> None:
        # As Starlette's own streams: without a body, whose length would be announced.
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self.init_headers({**_LIVE, **(headers or {})})
        self._produce = produce

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def begin() -> None:
            nonlocal begun
            if not begun:
                begun = True
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})

        async def write(data: bytes) -> None:
            await begin()
            if data:
                await send({"type": "http.response.body", "body": data, "more_body": True})

        await self._produce(write)
        await begin()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
