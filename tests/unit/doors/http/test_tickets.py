"""`POST /v1/tickets`, and what a page does with a ticket."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from service.identity.principal import Caller
from tests.http_served import http_serving
from tests.identities import MASTER, NOW, kept
from tests.live_socket import live

START = {"prompt": "a red circle", "seconds": 0.1, "codec": "raw", "max_lead_seconds": 30}


def offers(ticket: str) -> list[str]:
    return ["headrace.v1", f"ticket.{ticket}"]


async def refused(port: int, ticket: str) -> int:
    """The status of the answer to a page with this ticket."""
    with pytest.raises(InvalidStatus) as caught:
        async with live(port, offered=offers(ticket)):
            pass
    return caught.value.response.status_code


async def test_a_ticket_stands_for_its_caller_at_every_front_door_for_a_minute(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with kept(tmp_path) as door, http_serving(authority=door.authority) as one, http_serving(authority=door.authority) as two:
            secret = await door.key()
            made = await one.client.post("/v1/tickets", headers={"authorization": f"Bearer {secret.key}"})
            assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
            ticket, expires_at = made.json()["ticket"], made.json()["expires_at"]
            assert expires_at == NOW + 60
            for served in (one, two, two):
                async with live(served.port, offered=offers(ticket)) as caller:
                    assert caller.socket.subprotocol == "headrace.v1"
                    await caller.say(start=START)
                    assert await caller.rest() == 1000
            door.wall.now += 61
            assert await refused(two.port, ticket) == 401
            assert two.metric("calls_total", rpc="own.live", outcome="unauthenticated") == 1
            assert "of studio from 127.0.0.1: completed" in caplog.text
    ours = [record.getMessage() for record in caplog.records if record.name.startswith(("doors", "service", "deployments"))]
    assert [line for line in ours if ticket in line or secret.key in line or MASTER in line] == []


async def test_a_ticket_that_was_changed_or_made_elsewhere_counts_for_nothing(tmp_path: Path) -> None:
    async with kept(tmp_path) as door, http_serving(authority=door.authority) as served:
        secret = await door.key()
        made = await served.client.post("/v1/tickets", headers={"x-api-key": secret.key})
        ticket = made.json()["ticket"]
        changed = ticket[:-5] + ("AAAAA" if not ticket.endswith("AAAAA") else "BBBBB")
        head, _, _ = ticket.rpartition(".")
        for wrong in (changed, f"{head}.", "hr_token_x", ticket.removeprefix("hr_token_"), "x"):
            assert await refused(served.port, wrong) == 401
        with pytest.raises(InvalidStatus) as caught:
            async with live(served.port):
                pass
        assert caught.value.response.status_code == 401


async def test_a_ticket_of_a_token_may_no_more_than_the_token_and_stays_on_its_page(tmp_path: Path) -> None:
    async with kept(tmp_path) as door, http_serving(authority=door.authority) as served:
        key = await door.authority.by_secret((await door.key()).key, Caller(address="192.0.2.1"))
        page = f"http://127.0.0.1:{served.port}"
        token, _ = await door.authority.client_token(key, seconds=600, models=["other"], max_seconds=0.5, origin=page)
        headers = {"authorization": f"Bearer {token}", "origin": page}
        ticket = (await served.client.post("/v1/tickets", headers=headers)).json()["ticket"]
        assert await refused(served.port, ticket) == 401
        async with live(served.port, offered=offers(ticket), origin=page) as caller:
            await caller.say(start=START)
            assert await caller.rest() == 4403
            assert "model must be one of other with this credential" in caller.events[-1]["error"]["message"]


async def test_a_ticket_makes_no_other_ticket_and_nobody_without_a_key_has_one(tmp_path: Path) -> None:
    async with kept(tmp_path) as door, http_serving(authority=door.authority) as served:
        assert (await served.client.post("/v1/tickets")).status_code == 401
        secret = await door.key()
        ticket = (await served.client.post("/v1/tickets", headers={"x-api-key": secret.key})).json()["ticket"]
        again = await served.client.post("/v1/tickets", headers={"x-api-key": ticket})
        assert (again.status_code, again.json()["error"]["message"]) == (
            403,
            "a ticket cannot make another ticket; it takes an API key or a token",
        )
        token = await served.client.post("/v1/client/tokens", headers={"x-api-key": ticket}, json={})
        assert token.status_code == 403


async def test_an_open_door_gives_everybody_one_and_asks_for_none() -> None:
    async with http_serving() as served:
        ticket = (await served.client.post("/v1/tickets", json={})).json()["ticket"]
        for offered in (offers(ticket), ["headrace.v1"]):
            async with live(served.port, offered=offered) as caller:
                await caller.say(start=START)
                assert await caller.rest() == 1000
        wrong = await served.client.post("/v1/tickets", json={"seconds": 600})
        assert wrong.json()["error"]["violations"] == [{"field": "seconds", "description": "is no field of this request; got 600"}]


async def test_a_page_of_another_site_is_given_none() -> None:
    async with http_serving() as served:
        answer = await served.client.post("/v1/tickets", headers={"origin": "https://example.com"})
        assert answer.status_code == 403
