"""The room behind the real edge of the HTTP door, without a socket."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
from prometheus_client import CollectorRegistry

from doors.http.edge import HttpEdge
from doors.http.guard import Guards
from doors.http.openai.room import OpenAiRoom
from doors.http.options import HttpOptions
from doors.http.room import Services
from observability.metrics import Metrics
from observability.tracing import Tracing
from service.identity.principal import Caller, Principal, Unauthenticated
from service.jobs.desk.interface import JobDesk
from tests.core import Core
from tests.http_served import OpenAuthority
from tests.unit.doors.http.fake_edge import KEY, PRINCIPALS
from tests.unit.doors.http.fake_jobs import FakeJobDesk


@dataclass(frozen=True, slots=True)
class Served:
    """Jobs that the test moves on, and a client with a key."""

    jobs: FakeJobDesk
    client: httpx.AsyncClient


class Keys(OpenAuthority):
    """Knows the keys of `PRINCIPALS`."""

    async def by_secret(self, presented: str, caller: Caller) -> Principal:
        if presented not in PRINCIPALS:
            raise Unauthenticated("the API key is not one of this server's")
        return PRINCIPALS[presented]

    async def without_secret(self, caller: Caller) -> Principal:
        raise Unauthenticated("an API key is needed")


@asynccontextmanager
async def served(core: Core, jobs: JobDesk | None) -> AsyncGenerator[httpx.AsyncClient, None]:
    """A client with the key of the tenant `acme`."""
    keys, numbers = Keys(), itertools.count(1)
    room = OpenAiRoom(Services(intake=core.intake, runner=core.runner, jobs=jobs, authority=keys))
    edge = HttpEdge([room], Guards(keys, Metrics(CollectorRegistry()), Tracing(), lambda: f"req-{next(numbers)}", HttpOptions()))
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(edge), base_url="http://headrace.test", headers=headers) as client:
        yield client
