"""Signed links: results of jobs for whoever holds the link, without a key, until it expires."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from doors.http.contents import content_response
from doors.http.room import Credentials, Endpoint, HttpRequest, Links, Services
from service.failures import Failure, Kind, NotServed
from service.identity.principal import Forbidden
from service.jobs.files.artifacts import ArtifactMissing
from service.jobs.files.folder import LINK_PATH, LinkRefused
from service.jobs.job import Content, JobNotFound

_STATUSES = {Kind.INVALID: 400, Kind.FORBIDDEN: 403, Kind.NOT_FOUND: 404, Kind.NOT_SERVED: 501, Kind.UNAVAILABLE: 503}


class LinksRoom:
    """See `doors.http.room.Room`."""

    name = "links"

    def __init__(self, services: Services) -> None:
        self._links = services.links

    def endpoints(self) -> Sequence[Endpoint]:
        path = f"{LINK_PATH}{{key:path}}"
        return [Endpoint(path=path, method="GET", operation="get_linked", handler=self._get, credentials=Credentials.NONE)]

    async def _get(self, request: HttpRequest) -> Response:
        if self._links is None:
            raise NotServed("this server keeps no files, so it makes no links to them")
        content = await _linked(self._links, request.raw)
        response = await content_response(content, request.raw.path_params["key"].rpartition("/")[2])
        response.headers["x-content-type-options"] = "nosniff"
        return response

    def refuse(self, failure: Failure) -> Response:
        return JSONResponse({"error": {"code": failure.kind.value, "message": failure.message}}, _STATUSES.get(failure.kind, 500))


async def _linked(links: Links, request: Request) -> Content:
    query = request.query_params
    try:
        return await links.linked(
            request.path_params["key"], query.get("type", ""), query.get("expires", ""), query.get("signature", "")
        )  # fmt: skip
    except LinkRefused as error:
        raise Forbidden(str(error)) from None
    except ArtifactMissing:
        raise JobNotFound("the file is gone") from None
