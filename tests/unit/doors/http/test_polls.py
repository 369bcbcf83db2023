"""Polls of jobs: what is kept between them shows nobody anything old, or of others, and is written as any other answer is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry

from observability.metrics import Metrics
from service.identity.principal import Means, Principal
from service.jobs.job import NewJob
from service.ledger.audit import AuditQuery, entries
from service.ledger.books import Books, BooksPolicy
from tests.fakes import ManualClock
from tests.http_served import OPTIONS, HttpServed, http_serving
from tests.identities import Kept, kept
from tests.jobs import FINISHED, LEASE_S, Jobs, new_job


@dataclass(frozen=True, slots=True)
class Polled:
    served: HttpServed
    jobs: Jobs
    door: Kept
    books: Books


@asynccontextmanager
async def polled(folder: Path) -> AsyncGenerator[Polled, None]:
    async with kept(folder) as door:
        books = Books(None, None, BooksPolicy(), Metrics(CollectorRegistry()), ManualClock(), lambda: 1.0)
        jobs = Jobs(door.database, audit=books.append)
        async with http_serving(jobs=lambda _: jobs.desk, authority=door.authority) as served:
            yield Polled(served, jobs, door, books)


def own(tenant: str = "studio", **changes: object) -> tuple[Principal, NewJob]:
    return Principal(tenant=tenant, subject="k", means=Means.KEY), replace(new_job(), door="own", **changes)  # type: ignore[arg-type]  # as given


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize(("door", "path"), [("own", "/v1/jobs/job_{}"), ("openai", "/v1/videos/video_{}")])
async def test_each_poll_shows_the_job_as_it_is(tmp_path: Path, door: str, path: str) -> None:
    async with polled(tmp_path) as at:
        headers = bearer((await at.door.key()).key)
        principal, new = own()
        made = (await at.jobs.desk.submit(principal, replace(new, door=door))).id

        async def shown() -> tuple[str, httpx.Response]:
            answer = await at.served.client.get(path.format(made), headers=headers)
            assert answer.status_code == 200, answer.text
            return answer.json()["status"], answer

        assert [(await shown())[0] for _ in range(3)] == ["queued"] * 3
        [claimed] = await at.jobs.store.claim("worker", at.jobs.wall(), LEASE_S, 1)
        running = {"own": "running", "openai": "in_progress"}[door]
        assert [(await shown())[0] for _ in range(2)] == [running] * 2
        await at.jobs.store.beat(made, claimed.fence, LEASE_S, 48)
        progress = (await shown())[1].json()["progress"]
        assert progress == {"own": 0.5, "openai": 50}[door]
        await at.jobs.store.complete(made, claimed.fence, FINISHED)
        assert (await shown())[0] == "completed"
        one, two = (await shown())[1], (await shown())[1]
        assert one.content == two.content
        assert one.headers["x-request-id"] != two.headers["x-request-id"]
        assert one.headers.get("openai-poll-after-ms") == {"own": None, "openai": "1000"}[door]
        await at.jobs.desk.delete(principal, made)
        gone = await at.served.client.get(path.format(made), headers=headers)
        assert gone.status_code == 404


async def test_who_calls_is_asked_of_every_request_on_a_connection(tmp_path: Path) -> None:
    """The head is kept between requests that are alike, and another key is not alike."""
    async with polled(tmp_path) as at:
        mine, other = (await at.door.key("studio")).key, (await at.door.key("other")).key
        made = (await at.jobs.desk.submit(*own())).id
        calls = [bearer(mine), bearer(mine), bearer(other), {}, bearer("hr_live_x"), bearer(mine), {"x-api-key": other}]
        found = [(await at.served.client.get(f"/v1/jobs/job_{made}", headers=headers)).status_code for headers in calls]
        assert found == [200, 200, 404, 401, 401, 200, 404]
        by_query = [(await at.served.client.get(f"/v1/jobs/job_{made}?key={key}")).status_code for key in (mine, mine, other)]
        assert by_query == [200, 200, 404]
        assert len(at.served.server.connections) == 1


async def test_a_small_answer_is_whole_however_it_is_asked_for(tmp_path: Path) -> None:
    async with polled(tmp_path) as at:
        key = (await at.door.key()).key
        made = (await at.jobs.desk.submit(*own())).id
        usual = await at.served.client.get(f"/v1/jobs/job_{made}", headers=bearer(key))
        head = await at.served.client.head(f"/v1/jobs/job_{made}", headers=bearer(key))
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", usual.headers["content-length"])
        closing = await at.served.client.get(f"/v1/jobs/job_{made}", headers=bearer(key) | {"connection": "close"})
        assert (closing.content, closing.headers["connection"]) == (usual.content, "close")
        async with asyncio.timeout(20):
            reader, writer = await at.served.connect()
            writer.write(f"GET /v1/jobs/job_{made} HTTP/1.0\r\nhost: h\r\nauthorization: Bearer {key}\r\n\r\n".encode())
            text = await reader.read()
            writer.close()
        assert text.endswith(usual.content)
        assert b"connection: close" in text


async def test_an_idle_connection_is_closed() -> None:
    async with http_serving(options=replace(OPTIONS, keep_alive_s=0.1)) as served, asyncio.timeout(20):
        reader, writer = await served.connect()
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n")
        assert (await reader.read()).endswith(b'{"status":"ok"}')
        writer.close()


async def test_the_audit_log_has_the_address_of_who_changes_a_job(tmp_path: Path) -> None:
    async with polled(tmp_path) as at:
        headers = bearer((await at.door.key()).key)
        made = await at.served.client.post("/v1/jobs", json={"prompt": "a red ball", "seconds": 1}, headers=headers)
        await at.served.client.post(f"/v1/jobs/{made.json()['id']}/cancel", headers=headers)
        await at.served.client.delete(f"/v1/jobs/{made.json()['id']}", headers=headers)
        found = await at.door.database.run(lambda connection: entries(connection, AuditQuery()), write=False)
        told = [(entry["operation"], entry["address"]) for entry in found if entry["operation"].startswith("job.")]
        assert told == [("job.submit", "127.0.0.1"), ("job.cancel", "127.0.0.1"), ("job.delete", "127.0.0.1")]


async def test_a_token_of_a_page_reaches_its_own_jobs(tmp_path: Path) -> None:
    async with polled(tmp_path) as at:
        key = (await at.door.key()).key
        theirs = (await at.jobs.desk.submit(*own())).id
        ticket = (await at.served.client.post("/v1/tickets", headers=bearer(key))).json()["ticket"]
        tokens = [ticket, (await at.served.client.post("/v1/client/tokens", json={}, headers=bearer(key))).json()["apiKey"]]
        for token in tokens:
            made = await at.served.client.post("/v1/jobs", json={"prompt": "a red ball", "seconds": 1}, headers=bearer(token))
            assert made.status_code == 201, made.text
            mine = made.json()["id"]
            listed = await at.served.client.get("/v1/jobs", headers=bearer(token))
            assert [job["id"] for job in listed.json()["data"]] == [mine]
            assert (await at.served.client.post(f"/v1/jobs/job_{theirs}/cancel", headers=bearer(token))).status_code == 404
            assert (await at.served.client.get(f"/v1/jobs/{mine}", headers=bearer(token))).status_code == 200
            assert (await at.served.client.get(f"/v1/jobs/{mine}", headers=bearer(key))).status_code == 200
