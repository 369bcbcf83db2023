"""What a vendor's room in the HTTP door is: routes over the service, and its own way to say what went wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, NoReturn, Protocol, runtime_checkable

from starlette.datastructures import UploadFile
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from doors.http.webrtc.peers import WebRtc
from service.call import Call
from service.failures import Failure, NotServed
from service.identity.principal import Authority, Caller, Principal
from service.identity.standings import Standings
from service.intake import Intake
from service.jobs.desk.interface import BatchDesk, JobDesk
from service.jobs.job import Content
from service.jobs.webhooks.endpoints import EndpointDesk
from service.ledger.denials import Denials
from service.sessions.runner import SessionRunner
from service.watching.hub import NOBODY
from service.watching.viewers import Viewers


class Links(Protocol):
    """Files that whoever holds a link to one may fetch. See `service.jobs.files.folder`."""

    async def linked(self, key: str, media_type: str, expires: str, signature: str) -> Content:
        """Raises LinkRefused, or ArtifactMissing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What rooms work with.

    Attributes:
        jobs: None where the server has no database, and so no jobs.
        batches: many jobs at once; as `jobs`.
        endpoints: webhooks that tenants register; as `jobs`.
        denials: for the audit log.
        standings: what tenants have left of their limits; None where nobody has any.
        viewers: serves those who watch sessions of others; None where nobody may.
        webrtc: connects peers; None where none may.
        links: None where a store serves results by itself, or there are none.
        public_url: of this server, as callers reach it, without a slash at the end; empty: as the request's Host says.
    """

    intake: Intake
    runner: SessionRunner
    jobs: JobDesk | None
    authority: Authority
    public_url: str = ""
    batches: BatchDesk | None = None
    endpoints: EndpointDesk | None = None
    denials: Denials = field(default_factory=Denials)
    standings: Standings | None = None
    links: Links | None = None
    viewers: Viewers | None = None
    webrtc: WebRtc | None = None

    def peers(self) -> WebRtc:
        """Raises NotServed: nobody connects by WebRTC."""
        if self.webrtc is None:
            raise NotServed("this server serves no WebRTC; front_door.webrtc.enabled would have it do so")
        return self.webrtc

    def watching(self) -> Viewers:
        """Raises NotServed: nobody may watch sessions of others."""
        if self.viewers is None:
            raise NotServed(NOBODY)
        return self.viewers

    def desk(self) -> JobDesk:
        """Raises NotServed: the server has no database, and so no jobs."""
        if self.jobs is None:
            raise NotServed("this server has no database, and so no jobs")
        return self.jobs


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart or URL-encoded form, read within its limits. Files are in memory up to 1 MB and on disk beyond."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, list[UploadFile]] = field(default_factory=dict)


class HttpRequest(Protocol):
    """One request, with the caller known. Reading a body is bounded in bytes and time, and does not hold up the loop."""

    @property
    def raw(self) -> Request: ...

    @property
    def principal(self) -> Principal: ...

    @property
    def call(self) -> Call: ...

    @property
    def request_id(self) -> str: ...

    @property
    def base_url(self) -> str:
        """How callers reach this server, without a slash at the end."""
        ...

    async def body(self, max_bytes: int | None = None) -> bytes:
        """Raises BodyTooLarge, or InvalidRequest where it does not come in time. None: the most that any request may need."""
        ...

    async def json(self, max_bytes: int | None = None) -> dict[str, Any]:
        """An object. Raises as `body`, and InvalidRequest: it is no JSON object."""
        ...

    async def form(self, max_bytes: int | None = None) -> Form:
        """Raises as `body`, and InvalidRequest: it is no form."""
        ...


class Credentials(Enum):
    """Where a route expects to find who calls."""

    USUAL = auto()  # Authorization: Bearer, X-API-Key, api-key, x-goog-api-key, ?key=, or SigV4
    NONE = auto()  # open to all: health, the OpenAPI document, signed links


Handler = Callable[[HttpRequest], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One route.

    Attributes:
        path: as Starlette has it, from the root.
        operation: short name, for metrics, traces and the audit log; the same for aliases of a path.
    """

    path: str
    method: str
    operation: str
    handler: Handler
    credentials: Credentials = Credentials.USUAL


class Socket(Protocol):
    """One WebSocket, with the caller known. One task sends, and one receives.

    The handler is cancelled when the caller goes away, when it says goodbye, and when it does not answer pings.
    """

    @property
    def raw(self) -> HTTPConnection:
        """The request for it."""
        ...

    @property
    def principal(self) -> Principal: ...

    @property
    def call(self) -> Call: ...

    @property
    def request_id(self) -> str: ...

    async def accept(self, max_bytes: int | None = None) -> None:
        """Answer the request. What the handler raises before is an answer of HTTP; what it raises later is the room's `farewell`.

        Args:
            max_bytes: of a message; None for as many as the body of a request may have.
        """
        ...

    async def first(self, name: str, seconds: float) -> dict[str, Any]:
        """The first message, as `json`; it must begin within so many `seconds`. Errors call it `name`.

        Raises as `json`, and StageUnavailable: the server is told to stop.
        """
        ...

    async def json(self, max_bytes: int | None = None) -> dict[str, Any]:
        """The next message, an object. Nothing more is read while nobody asks for what came.

        Args:
            max_bytes: of this message and those after it; None for as many as before.

        Raises:
            InvalidRequest: it is no JSON object, or does not come in time.
            BodyTooLarge, CapacityExceeded.
        """
        ...

    async def receive(self, max_bytes: int | None = None) -> str | bytes:
        """The next message, text or binary. Raises as `json`."""
        ...

    async def silence(self) -> NoReturn:
        """For callers who are only told something: waits, beside whoever sends. Raises InvalidRequest: a message came."""
        ...

    async def send(self, *messages: str | bytes) -> None:
        """Send messages, text or binary, one after the other. Returns when the caller takes them.

        Raises:
            ReaderStalled: it takes nothing.
            ClientDisconnect: it is gone.
        """
        ...

    def ending(self) -> None:
        """The handler's last words follow. Should the caller go away now, the handler is not cancelled."""
        ...

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye, other than as `Call.outcome` has it: 1012 for a session that ended in a drain, and 1000 otherwise."""
        ...


SocketHandler = Callable[[Socket], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketEndpoint:
    """One route to a WebSocket.

    Attributes:
        path: as Starlette has it, from the root.
        operation: as an `Endpoint`'s.
        subprotocols: those that the handler speaks, the best first. A caller who offers some must offer one of these.
    """

    path: str
    operation: str
    handler: SocketHandler
    subprotocols: tuple[str, ...] = ()
    credentials: Credentials = Credentials.USUAL

    @property
    def method(self) -> str:
        return "GET"


@dataclass(frozen=True, slots=True)
class Farewell:
    """How a WebSocket that failed ends: its last message, if any, and why it is closed. A drain has its own code, 1012."""

    message: str
    code: int
    reason: str = ""


class Room(Protocol):
    """Made from `Services`; knows no other room."""

    @property
    def name(self) -> str:
        """The door's name in metrics, usage and audit."""
        ...

    def endpoints(self) -> Sequence[Endpoint]: ...

    def refuse(self, failure: Failure) -> Response:
        """The answer to a call that failed, in the vendor's shape."""
        ...


@runtime_checkable
class WithSockets(Protocol):
    """What a room adds that has WebSockets."""

    def sockets(self) -> Sequence[SocketEndpoint]: ...

    def farewell(self, failure: Failure) -> Farewell:
        """The end of a WebSocket that failed once it was accepted. Before that, `Room.refuse` answers."""
        ...


ReadBody = Callable[[], Awaitable[bytes]]
"""Reads the whole body, within its limits, once; a later call returns the same bytes. Raises as `HttpRequest.body`."""


@runtime_checkable
class Authenticating(Protocol):
    """What a room adds whose clients prove by the request itself who they are, as AWS's signatures do.

    The edge asks it for `Credentials.USUAL` endpoints, before it looks for the usual credentials.
    """

    async def authenticate(self, request: Request, body: ReadBody, authority: Authority, caller: Caller) -> Principal | None:
        """Who calls; None where the request holds no such proof, so that the usual credentials count.

        Raises:
            Unauthenticated, StageUnavailable: as `Authority`; and whatever `body` raises.
        """
        ...
