"""The page at `/`: a viewer in the browser, for who has no client. It is files alone; all that it does, it asks of our own API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.responses import JSONResponse, Response

from doors.http.page.files import INDEX, PageFile, page_files
from doors.http.room import Credentials, Endpoint, HttpRequest
from service.failures import Failure, Kind

_STATUSES = {Kind.INVALID: 400, Kind.FORBIDDEN: 403, Kind.NOT_FOUND: 404, Kind.STALLED: 408, Kind.TOO_LARGE: 413, Kind.UNAVAILABLE: 503}

# Nothing comes from elsewhere and nothing goes there. Scripts and styles are files of ours; what a viewer chose, and what plays, are blobs.
_ALLOWED = {
    "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self' blob:", "media-src": "'self' blob:",
    "connect-src": "'self'", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'", "trusted-types": "'none'",
}  # fmt: skip
_POLICY = "; ".join(f"{name} {value}" for name, value in _ALLOWED.items())
_HEADERS = {
    # Asked for again each time, and answered with 304 where nothing has changed: after an upgrade no page has parts of two versions.
    "cache-control": "no-cache",
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",  # the address of a page that watches holds a token
    "x-content-type-options": "nosniff",
}


class PageRoom:
    """See `doors.http.room.Room`. It holds the files, and knows nothing of the service."""

    name = "page"

    def __init__(self, files: Mapping[str, PageFile] | None = None) -> None:
        self._files = page_files() if files is None else files

    def endpoints(self) -> Sequence[Endpoint]:
        unguarded = Credentials.NONE  # the page asks for a key by itself, where the server wants one
        return (
            Endpoint(path="/", method="GET", operation="index", handler=self._index, credentials=unguarded),
            Endpoint(path="/assets/{name:path}", method="GET", operation="asset", handler=self._asset, credentials=unguarded),
        )

    async def _index(self, request: HttpRequest) -> Response:
        return self._answer(request, INDEX)

    async def _asset(self, request: HttpRequest) -> Response:
        return self._answer(request, request.raw.path_params["name"])

    def _answer(self, request: HttpRequest, name: str) -> Response:
        file = self._files.get(name)
        if file is None:
            return self.refuse(Failure(kind=Kind.NOT_FOUND, message=f"the page has no file {name[:64]!a}", request_id=request.request_id))
        headers = {**_HEADERS, "etag": file.etag}
        if _names(request.raw.headers.get("if-none-match", ""), file.etag):
            return Response(status_code=304, headers=headers)
        return Response(file.data, headers=headers, media_type=file.media_type)

    def refuse(self, failure: Failure) -> Response:
        error = {"code": failure.kind.value, "message": failure.message, "request_id": failure.request_id}
        return JSONResponse({"error": error}, _STATUSES.get(failure.kind, 500), {"x-content-type-options": "nosniff"})


def _names(wanted: str, etag: str) -> bool:
    """Whether a header If-None-Match names this version. Proxies mark those weak that they compress."""
    return wanted.strip() == "*" or etag in {each.strip().removeprefix("W/") for each in wanted.split(",")}
