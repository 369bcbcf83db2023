"""`/v1/webhook_endpoints` over a desk in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from model_core.errors import FieldViolation, InvalidRequest
from service.identity.principal import Caller, Forbidden, Principal, QuotaExceeded
from service.jobs.webhooks.endpoints import Endpoint, EndpointConflict, EndpointNotFound
from tests.http_served import HttpServed, OpenAuthority, http_serving

PATH = "/v1/webhook_endpoints"
SECRET = "whsec_c2VjcmV0"  # noqa: S105 - nobody's


class ByKey(OpenAuthority):
    """The tenant is the key."""

    async def by_secret(self, presented: str, caller: Caller) -> Principal:
        return Principal(tenant=presented)


class Desk:
    """An `EndpointDesk` in memory. `error` is raised by the next registration."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[str, Endpoint]] = {}
        self.error: Exception | None = None

    async def register(self, principal: Principal, url: str) -> Endpoint:
        if self.error is not None:
            raise self.error
        made = Endpoint(f"e{len(self.kept):011d}", url, 7.5, SECRET)
        self.kept[made.id] = (principal.tenant, made)
        return made

    async def list(self, principal: Principal) -> list[Endpoint]:
        return [endpoint for tenant, endpoint in self.kept.values() if tenant == principal.tenant]

    async def remove(self, principal: Principal, endpoint_id: str) -> None:
        if self.kept.get(endpoint_id, ("", None))[0] != principal.tenant:
            raise EndpointNotFound(f"no webhook endpoint has the id {endpoint_id!a}")
        del self.kept[endpoint_id]


@asynccontextmanager
async def served_with(desk: Desk | None) -> AsyncGenerator[HttpServed, None]:
    async with http_serving(authority=ByKey(), endpoints=desk) as served:
        served.client.headers["x-api-key"] = "acme"
        yield served


async def test_an_endpoint_is_made_listed_and_removed_and_its_secret_shown_once() -> None:
    desk = Desk()
    async with served_with(desk) as served:
        made = await served.client.post(PATH, json={"url": "https://hooks.example/a"})
        shown = {"id": "whe_e00000000000", "object": "webhook_endpoint", "url": "https://hooks.example/a", "created_at": 7.5}
        assert (made.status_code, made.json()) == (201, {**shown, "secret": SECRET})
        assert made.headers["cache-control"] == "no-store"
        listed = await served.client.get(PATH)
        assert listed.json() == {"object": "list", "data": [shown]}
        assert (await served.client.get(PATH, headers={"x-api-key": "other"})).json()["data"] == []
        foreign = await served.client.delete(f"{PATH}/{shown['id']}", headers={"x-api-key": "other"})
        assert (foreign.status_code, foreign.json()["error"]["code"]) == (404, "not_found")
        gone = await served.client.delete(f"{PATH}/{shown['id']}")
        assert gone.json() == {"id": shown["id"], "object": "webhook_endpoint.deleted", "deleted": True}
        assert (await served.client.delete(f"{PATH}/{shown['id']}")).status_code == 404
        assert desk.kept == {}


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "url"), ({"url": ""}, "url"), ({"url": 7}, "url"), ({"url": "https://a.example", "secret": "mine"}, "secret")],
)
async def test_a_body_that_is_none_is_refused_by_field(body: dict[str, object], field: str) -> None:
    async with served_with(Desk()) as served:
        answer = await served.client.post(PATH, json=body)
        assert answer.status_code == 400
        assert [violation["field"] for violation in answer.json()["error"]["violations"]] == [field]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidRequest((FieldViolation("url", "cannot be posted to"),)), 400),
        (EndpointConflict("registered already"), 409),
        (QuotaExceeded("too many", limit="webhook_endpoints", allowed=16, used=16), 429),
        (Forbidden("a token cannot"), 403),
    ],
)
async def test_what_the_desk_refuses_is_told(error: Exception, status: int) -> None:
    desk = Desk()
    desk.error = error
    async with served_with(desk) as served:
        answer = await served.client.post(PATH, json={"url": "https://hooks.example/a"})
        assert answer.status_code == status
        assert "x-ratelimit-limit-requests" not in answer.headers


async def test_a_server_without_a_database_has_none() -> None:
    async with served_with(None) as served:
        for answer in (await served.client.get(PATH), await served.client.post(PATH, json={"url": "https://a.example"})):
            assert (answer.status_code, answer.json()["error"]["code"]) == (501, "not_served")
