"""One room behind an edge that a test sees through: no sockets, no limits but on bytes, and a tenant for each key."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from doors.http.room import Authenticating, Credentials, Endpoint, Form, Room, Services
from model_core.errors import FieldViolation, InvalidRequest
from service.call import Call
from service.failures import failure_of
from service.identity.principal import NOBODY, Caller, Means, Principal, Unauthenticated
from tests.core import Core
from tests.unit.doors.http.fake_jobs import FakeJobDesk

BASE_URL = "http://headrace.test"
KEY, OTHER_KEY = "key-of-acme", "key-of-other"
PRINCIPALS = {
    KEY: Principal(tenant="acme", subject="key-1", means=Means.KEY),
    OTHER_KEY: Principal(tenant="other", subject="key-2", means=Means.KEY),
    "key-without-models": Principal(tenant="acme", subject="key-3", means=Means.KEY, models=frozenset()),
    "key-for-a-second": Principal(tenant="acme", subject="key-4", means=Means.KEY, max_seconds=1.0),
}


class FakeRequest:
    """See `doors.http.room.HttpRequest`."""

    def __init__(self, raw: Request, principal: Principal, door: str, request_id: str) -> None:
        self.raw = raw
        self.principal = principal
        self.call = Call(tenant=principal.tenant, principal=principal, door=door)
        self.request_id = request_id
        self.base_url = BASE_URL

    async def body(self, max_bytes: int | None = None) -> bytes:
        data = await self.raw.body()
        if max_bytes is not None and len(data) > max_bytes:
            raise _invalid("body", f"must be at most {max_bytes} bytes; got {len(data)}")
        return data

    async def json(self, max_bytes: int | None = None) -> dict[str, Any]:
        await self.body(max_bytes)
        try:
            value = await self.raw.json()
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise _invalid("body", "must be a JSON object")
        return value

    async def form(self, max_bytes: int | None = None) -> Form:
        await self.body(max_bytes)
        form = Form()
        for name, value in (await self.raw.form()).multi_items():
            if isinstance(value, UploadFile):
                form.files.setdefault(name, []).append(value)
            else:
                form.fields.setdefault(name, []).append(value)
        return form


@dataclass(frozen=True, slots=True)
class Door:
    """A room, what it works with, and a client whose calls it answers."""

    core: Core
    jobs: FakeJobDesk
    client: httpx.AsyncClient


class _Pairs:
    """Pairs of an access key and a secret, for rooms whose callers sign: a tenant, and its API key."""

    async def by_access_key(self, access_key: str, caller: Caller) -> tuple[Principal, tuple[str, ...]]:
        for key, principal in PRINCIPALS.items():
            if principal.tenant == access_key:
                return principal, (key,)
        raise Unauthenticated("the access key is not one of this server's")

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a room that verifies signatures has no business with {name}")


class _Guarded(Response):
    """An answer. What fails before its first byte is refused."""

    def __init__(self, response: Response, refused: Callable[[Exception], Response]) -> None:
        super().__init__()
        self._response = response
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noticed(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._response(scope, receive, noticed)
        except Exception as error:
            if begun:
                raise
            await self._refused(error)(scope, receive, send)


class _Nobody:
    """See `service.identity.principal.Authority`. The edge looks keys up by itself."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a room has no business with {name}")


def services(core: Core, jobs: FakeJobDesk | None) -> Services:
    return Services(intake=core.intake, runner=core.runner, jobs=jobs, authority=_Nobody(), public_url=BASE_URL)


@asynccontextmanager
async def door(room: Room, core: Core, jobs: FakeJobDesk | None) -> AsyncGenerator[Door, None]:
    """The room behind the edge, and a client with the key of the tenant `acme`."""
    numbers = itertools.count(1)

    def route(endpoint: Endpoint) -> Route:
        async def answer(raw: Request) -> Response:
            request_id = f"req-{next(numbers)}"

            def refused(error: Exception) -> Response:
                response = room.refuse(failure_of(error, request_id))
                response.headers["x-request-id"] = request_id
                return response

            try:
                principal = NOBODY if endpoint.credentials is Credentials.NONE else await _principal(room, raw)
                response = await endpoint.handler(FakeRequest(raw, principal, room.name, request_id))
            except Exception as error:  # noqa: BLE001 - this is what an edge is for
                return refused(error)
            response.headers["x-request-id"] = request_id
            return _Guarded(response, refused)

        return Route(endpoint.path, answer, methods=[endpoint.method])

    app = Starlette(routes=[route(endpoint) for endpoint in room.endpoints()])
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=BASE_URL, headers=headers) as client:
        yield Door(core, jobs or FakeJobDesk(core.intake, Path()), client)


async def _principal(room: Room, raw: Request) -> Principal:
    if isinstance(room, Authenticating) and (signer := await room.authenticate(raw, raw.body, _Pairs(), Caller())) is not None:
        return signer
    presented = raw.headers.get("api-key") or raw.headers.get("authorization", "").removeprefix("Bearer ")
    if presented not in PRINCIPALS:
        raise Unauthenticated("the API key is missing, or not one of this server's")
    return PRINCIPALS[presented]


def _invalid(field: str, description: str) -> InvalidRequest:
    return InvalidRequest((FieldViolation(field, description),))
