"""Jobs of our own API over a desk that a test moves on by hand."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from model_core.quality.values import Measures, Quality
from service.identity.principal import Caller, Forbidden, Principal
from service.intake import Intake
from tests.http_served import HttpServed, OpenAuthority, http_serving
from tests.unit.doors.http.fake_jobs import FakeJobDesk

MEASURES = Measures(
    frames=48, width=64, height=64, flicker=0.25, worst_flicker=0.5, brightness_flicker=0.125, smoothness=0.96, frozen_share=0.0,
    longest_frozen_frames=0, black_share=0.5,
)  # fmt: skip
BODY: dict[str, Any] = {"prompt": "a red circle", "seconds": 1.0}


class ByKey(OpenAuthority):
    """The tenant is the key."""

    async def by_secret(self, presented: str, caller: Caller) -> Principal:
        return Principal(tenant=presented)


@asynccontextmanager
async def with_jobs(folder: Path) -> AsyncGenerator[tuple[HttpServed, FakeJobDesk], None]:
    desks: list[FakeJobDesk] = []

    def desk(intake: Intake) -> FakeJobDesk:
        desks.append(FakeJobDesk(intake, folder))
        return desks[0]

    async with http_serving(jobs=desk, authority=ByKey()) as served:
        served.client.headers["x-api-key"] = "acme"
        yield served, desks[0]


async def test_a_job_is_made_watched_and_fetched_in_parts(tmp_path: Path) -> None:
    async with with_jobs(tmp_path) as (served, desk):
        made = await served.client.post("/v1/jobs", json={**BODY, "width": 320, "height": 240, "tier": "flex", "labels": {"a": "b"}})
        assert made.status_code == 201, made.text
        job = made.json()
        assert (job["object"], job["status"], job["progress"], job["tier"], job["labels"]) == ("job", "queued", 0.0, "flex", {"a": "b"})
        assert made.headers["location"].endswith(f"/v1/jobs/{job['id']}")
        path, bare = f"/v1/jobs/{job['id']}", job["id"].removeprefix("job_")

        early = await served.client.get(f"{path}/content")
        assert (early.status_code, early.json()["error"]["code"]) == (409, "not_ready")
        desk.start(bare, 3)
        assert (await served.client.get(path)).json()["status"] == "running"
        desk.complete(bare, b"0123456789")
        over = (await served.client.get(path)).json()
        assert (over["progress"], over["quality"]) == (1.0, None)
        desk.measure(bare, Quality(measures=MEASURES))
        assert (await served.client.get(path)).json()["quality"] == {**asdict(MEASURES), "adherence": None}

        whole = await served.client.get(f"{path}/content")
        assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, b"0123456789", "video/mp4")
        part = await served.client.get(f"{path}/content", headers={"range": "bytes=2-4"})
        assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
        beyond = await served.client.get(f"{path}/content", headers={"range": "bytes=20-"})
        assert beyond.status_code == 416
        assert (await served.client.head(f"{path}/content")).headers["content-length"] == "10"

        gone = await served.client.delete(path)
        assert gone.json() == {"id": job["id"], "object": "job.deleted", "deleted": True}
        assert (await served.client.get(path)).status_code == 404


async def test_a_store_that_serves_files_is_where_the_caller_is_sent(tmp_path: Path) -> None:
    async with with_jobs(tmp_path) as (served, desk):
        job = (await served.client.post("/v1/jobs", json=BODY)).json()
        bare = job["id"].removeprefix("job_")
        desk.start(bare)
        desk.complete(bare)
        desk.links = "https://store.example"
        answer = await served.client.get(f"/v1/jobs/{job['id']}/content")
        assert answer.status_code == 302
        assert answer.headers["location"].startswith("https://store.example")


async def test_jobs_are_listed_page_by_page_and_cancelled(tmp_path: Path) -> None:
    async with with_jobs(tmp_path) as (served, _):
        ids = [(await served.client.post("/v1/jobs", json=BODY)).json()["id"] for _ in range(3)]
        page = (await served.client.get("/v1/jobs?limit=2&order=asc")).json()
        assert ([job["id"] for job in page["data"]], page["has_more"]) == (ids[:2], True)
        rest = (await served.client.get(f"/v1/jobs?limit=2&order=asc&after={page['last_id']}")).json()
        assert ([job["id"] for job in rest["data"]], rest["has_more"]) == (ids[2:], False)
        cancelled = await served.client.post(f"/v1/jobs/{ids[0]}/cancel")
        assert cancelled.status_code == 200
        queued = (await served.client.get("/v1/jobs?status=queued")).json()
        assert {job["id"] for job in queued["data"]} == set(ids[1:])


@pytest.mark.parametrize(
    ("query", "field"),
    [("limit=0", "limit"), ("limit=x", "limit"), ("order=up", "order"), ("status=done", "status"), ("limit=99999", "limit")],
)
async def test_a_wrong_list_is_refused(query: str, field: str, tmp_path: Path) -> None:
    async with with_jobs(tmp_path) as (served, _):
        answer = await served.client.get(f"/v1/jobs?{query}")
        assert answer.status_code == 400
        assert [each["field"] for each in answer.json()["error"]["violations"]] == [field]


async def test_the_same_key_makes_no_second_job_and_another_request_is_a_conflict(tmp_path: Path) -> None:
    headers = {"idempotency-key": "k"}
    async with with_jobs(tmp_path) as (served, desk):
        first = await served.client.post("/v1/jobs", json=BODY, headers=headers)
        again = await served.client.post("/v1/jobs", json=BODY, headers=headers)
        assert first.json()["id"] == again.json()["id"]
        assert len(desk.submitted) == 1
        other = await served.client.post("/v1/jobs", json={**BODY, "seconds": 2.0}, headers=headers)
        assert (other.status_code, other.json()["error"]["code"]) == (409, "conflict")


async def test_another_tenants_job_is_unknown(tmp_path: Path) -> None:
    async with with_jobs(tmp_path) as (served, _):
        job_id = (await served.client.post("/v1/jobs", json=BODY)).json()["id"]
        for method, path in (("GET", ""), ("GET", "/content"), ("POST", "/cancel"), ("DELETE", "")):
            theirs = await served.client.request(method, f"/v1/jobs/{job_id}{path}", headers={"x-api-key": "other"})
            nobodys = await served.client.request(method, f"/v1/jobs/job_000000000000{path}", headers={"x-api-key": "other"})
            assert theirs.status_code == nobodys.status_code == 404
            assert theirs.json()["error"]["message"].replace(job_id[4:], "") == nobodys.json()["error"]["message"].replace(
                "000000000000", ""
            )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "prompt"),
        ({**BODY, "seconds": -1}, "seconds"),
        ({**BODY, "width": 15, "height": 20}, "width"),
        ({**BODY, "webhook": {"url": ""}}, "webhook.url"),
        ({**BODY, "webhook": {"url": "https://a", "secret": 5}}, "webhook.secret"),
        ({**BODY, "tier": "gold"}, "tier"),
        ({**BODY, "ttl_seconds": 0}, "ttl_seconds"),
        ({**BODY, "labels": {"a": 5}}, "labels.a"),
    ],
)
async def test_a_wrong_job_is_refused_by_its_fields(body: dict[str, Any], field: str, tmp_path: Path) -> None:
    async with with_jobs(tmp_path) as (served, desk):
        answer = await served.client.post("/v1/jobs", json=body)
        assert answer.status_code == 400, answer.text
        assert field in [each["field"] for each in answer.json()["error"]["violations"]]
        assert desk.submitted == []


async def test_what_the_desk_refuses_reaches_the_caller(tmp_path: Path) -> None:
    async with with_jobs(tmp_path) as (served, desk):
        desk.error = Forbidden("bucket must be one of none with this credential")
        answer = await served.client.post("/v1/jobs", json={**BODY, "destination": {"uri": "s3://b/p"}})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


async def test_without_a_database_there_are_no_jobs() -> None:
    async with http_serving() as served:
        for method, path in (("POST", "/v1/jobs"), ("GET", "/v1/jobs"), ("GET", "/v1/jobs/job_a"), ("DELETE", "/v1/jobs/job_a")):
            answer = await served.client.request(method, path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (501, "not_served")
