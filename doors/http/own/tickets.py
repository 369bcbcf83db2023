"""`POST /v1/tickets`: a credential for the request for a WebSocket, to which a page can add no header."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from doors.http.own.schemas import NothingBody, read
from doors.http.room import HttpRequest, Services
from service.checks import Problems


class Tickets:
    """The endpoint's handler.

    Args:
        services: what it works with.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    async def create(self, request: HttpRequest) -> Response:
        """The body may be left out."""
        if await request.body():
            problems = Problems()
            read(NothingBody, await request.json(), problems)
            problems.check()
        ticket, expires_at = await self._services.authority.ticket(request.principal)
        return JSONResponse({"ticket": ticket, "expires_at": expires_at}, 201, {"cache-control": "no-store"})
