"""Decart's queue and tokens, as its client asks for them and reads them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from doors.http.decart.room import DecartRoom
from model_core.errors import StageUnavailable
from service.identity.principal import Forbidden, Principal, QuotaExceeded
from service.jobs.job import JobError, Presentation
from tests.core import core
from tests.pictures import encoded, picture
from tests.unit.doors.http.fake_edge import KEY, OTHER_KEY, PRINCIPALS, Door, door, services
from tests.unit.doors.http.fake_jobs import FakeJobDesk

PNG = encoded(picture(8, 8))
MP4 = b"0000ftypisom" + bytes(20)
WORDS = {"pending", "processing", "completed", "failed"}


class FakeAuthority:
    """See `service.identity.principal.Authority`: what tokens it was asked for."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def client_token(
        self, principal: Principal, *, seconds: float, models: Sequence[str] | None, max_seconds: float | None, origin: str
    ) -> tuple[str, float]:
        self.asked.append({
            "tenant": principal.tenant, "seconds": seconds, "models": models, "max_seconds": max_seconds, "origin": origin,
        })  # fmt: skip
        return "a.b.c", 1_700_000_000.0 + seconds

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a room has no business with {name}")


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


@pytest.fixture
async def decart(tmp_path: Path, authority: FakeAuthority) -> AsyncGenerator[Door, None]:
    async with core() as made:
        jobs = FakeJobDesk(made.intake, tmp_path)
        async with door(DecartRoom(replace(services(made, jobs), authority=authority)), made, jobs) as found:
            yield found


def form(data: bytes | None = MP4, /, **fields: str) -> dict[str, Any]:
    """As the client sends it: bytes are a file that is called after their field."""
    files: list[tuple[str, Any]] = [(name, (None, value)) for name, value in fields.items()]
    if data is not None:
        files.append(("data", ("data", data, "application/octet-stream")))
    return {"files": files}


async def created(decart: Door, model: str = "lucy-2.1", data: bytes | None = MP4, **fields: str) -> str:
    answer = await decart.client.post(f"/v1/jobs/{model}", **form(data, prompt="a red circle", **fields))
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()
    assert job["status"] == "pending"
    job_id: str = job["job_id"]
    return job_id


async def refused(decart: Door, model: str = "lucy-2.1", **request: Any) -> dict[str, str]:
    answer = await decart.client.post(f"/v1/jobs/{model}", **request)
    assert answer.status_code == 400, answer.text
    assert decart.jobs.submitted == []
    return {violation["field"]: violation["message"] for violation in answer.json()["error"]["violations"]}


async def shown(decart: Door, job_id: str) -> dict[str, Any]:
    answer = await decart.client.get(f"/v1/jobs/{job_id}")
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()
    assert job["job_id"] == job_id
    assert job["status"] in WORDS
    return job


async def test_a_form_is_a_job(decart: Door) -> None:
    await created(decart, seed="7", resolution="480p", enhance_prompt="True", duration="2.5")
    [new] = decart.jobs.submitted
    request = new.request
    assert (new.door, request.model, request.prompt, request.seed, request.seconds) == ("decart", "lucy-2.1", "a red circle", 7, 2.5)
    assert (request.footage, new.presentation, new.shown) == (("video", MP4), Presentation(854, 480), {"model": "lucy-2.1"})


async def test_what_is_not_given_has_a_default(decart: Door) -> None:
    await created(decart, data=None)
    [new] = decart.jobs.submitted
    assert (new.request.seconds, new.request.seed, new.request.footage, new.presentation) == (5.0, None, None, Presentation(1280, 720))


async def test_data_may_be_an_image(decart: Door) -> None:
    await created(decart, data=PNG)
    assert decart.jobs.submitted[0].request.footage == ("image", PNG)


async def test_a_job_goes_through_the_four_words_that_the_client_knows(decart: Door) -> None:
    job_id = await created(decart)
    decart.jobs.start(job_id, frames_done=60)
    assert await shown(decart, job_id) == {"job_id": job_id, "status": "processing", "progress": 0.5}
    decart.jobs.complete(job_id, b"an MP4")
    done = await shown(decart, job_id)
    assert (done["status"], done["progress"], done["usage"]["frames"], done["usage"]["file_width"]) == ("completed", 1.0, 120, 1280)
    content = await decart.client.get(f"/v1/jobs/{job_id}/content")
    assert (content.status_code, content.content, content.headers["content-type"]) == (200, b"an MP4", "video/mp4")


async def test_a_job_that_failed_or_was_cancelled_has_failed(decart: Door) -> None:
    failed, cancelled = await created(decart), await created(decart)
    decart.jobs.fail(failed, JobError("invalid", "the video has no frames"))
    await decart.jobs.cancel(PRINCIPALS[KEY], cancelled)
    assert (await shown(decart, failed))["error"] == {"code": "invalid", "message": "the video has no frames"}
    assert (await shown(decart, cancelled))["error"]["code"] == "cancelled"
    assert {(await shown(decart, job_id))["status"] for job_id in (failed, cancelled)} == {"failed"}


async def test_content_that_is_not_there_yet_or_any_more_is_refused(decart: Door) -> None:
    job_id = await created(decart)
    answer = await decart.client.get(f"/v1/jobs/{job_id}/content")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "not_ready")
    decart.jobs.complete(job_id)
    decart.jobs.expire(job_id)
    for path in (f"/v1/jobs/{job_id}", f"/v1/jobs/{job_id}/content", "/v1/jobs/unknown"):
        assert (await decart.client.get(path)).status_code == 404


async def test_anothers_job_is_not_found(decart: Door) -> None:
    job_id = await created(decart)
    answer = await decart.client.get(f"/v1/jobs/{job_id}", headers={"authorization": f"Bearer {OTHER_KEY}"})
    assert answer.status_code == 404


async def test_everything_wrong_is_named(decart: Door) -> None:
    request = form(None, prompt="", data="text", seed="x", resolution="9p", start="x", duration="0")
    assert await refused(decart, **request) == {
        "start": "must be unset: this server takes one image or video, as data; got one",
        "resolution": "must be one of 360p, 480p, 540p, 720p, 768p, 1080p, 2k, 4k; got '9p'",
        "data": "must be a file; got text",
        "seed": "must be a whole number from 0 to 18446744073709551615; got 'x'",
        "prompt": "must hold at least 1 character that is not white space; got ''",
        "duration": "must be a number from more than 0 to 600; got 0",
    }


async def test_one_image_or_video_is_taken(decart: Door) -> None:
    request = form(MP4, prompt="a red circle")
    request["files"].append(("reference_image", ("reference_image", PNG, "application/octet-stream")))
    request["files"].append(("data", ("data", MP4, "application/octet-stream")))
    problems = await refused(decart, **request)
    assert problems["reference_image"].startswith("must be unset: this server takes one image or video, as data")
    assert problems["data"] == "must be given once; got it 2 times"


async def test_a_file_that_is_too_large_is_refused_unread(decart: Door) -> None:
    most = decart.core.intake.limits.uploads.max_video_bytes
    problems = await refused(decart, **form(MP4 + bytes(most), prompt="a red circle"))
    assert problems == {"data": f"must be at most {most} bytes; got {most + len(MP4)}"}


async def test_a_model_that_is_not_served_is_named(decart: Door) -> None:
    problems = await refused(decart, "unknown", **form(prompt="a red circle"))
    assert problems == {"model": "must be one of millrace-64; got 'unknown'"}


async def test_images_are_made_by_nobody_here(decart: Door) -> None:
    answer = await decart.client.post("/v1/generate/lucy-image-2", **form(PNG, prompt="a red circle"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (501, "not_served")
    assert "'lucy-image-2', and this server makes videos alone, with millrace-64" in answer.json()["error"]["message"]


async def test_a_token_is_good_for_what_was_asked(decart: Door, authority: FakeAuthority) -> None:
    body = {
        "expiresIn": 120, "allowedModels": ["lucy-2.1", "millrace-64"], "allowedOrigins": ["https://example.com"],
        "constraints": {"realtime": {"maxSessionDuration": 30}}, "metadata": {"role": "viewer"},
    }  # fmt: skip
    answer = await decart.client.post("/v1/client/tokens", json=body)
    assert answer.json() == {
        "apiKey": "a.b.c", "token": "a.b.c", "expiresAt": "2023-11-14T22:15:20.000Z",
        "permissions": {"models": ["millrace-64"], "origins": ["https://example.com"]},
        "constraints": {"realtime": {"maxSessionDuration": 30}},
    }  # fmt: skip
    assert answer.headers["cache-control"] == "no-store"
    assert authority.asked == [
        {"tenant": "acme", "seconds": 120, "models": ("millrace-64",), "max_seconds": 30, "origin": "https://example.com"}
    ]


async def test_a_token_lasts_a_minute_where_nothing_is_asked(decart: Door, authority: FakeAuthority) -> None:
    answer = await decart.client.post("/v1/client/tokens", json={})
    assert set(answer.json()) == {"apiKey", "token", "expiresAt"}
    assert authority.asked == [{"tenant": "acme", "seconds": 60, "models": None, "max_seconds": None, "origin": ""}]


async def test_what_is_wrong_with_a_token_request_is_named(decart: Door, authority: FakeAuthority) -> None:
    body = {
        "expiresIn": 3601, "allowedModels": ["lucy-2.1", "unknown"], "allowedOrigins": ["https://a.test", "https://b.test"],
        "constraints": {"realtime": {"maxSessionDuration": 0}}, "metadata": "x",
    }  # fmt: skip
    answer = await decart.client.post("/v1/client/tokens", json=body)
    assert answer.status_code == 400
    assert {violation["field"]: violation["message"] for violation in answer.json()["error"]["violations"]} == {
        "expiresIn": "must be a whole number from 1 to 3600; got 3601",
        "allowedModels[1]": "must be one of millrace-64; got 'unknown'",
        "constraints.realtime.maxSessionDuration": "must be a whole number from 1 to 86400; got 0",
        "allowedOrigins": "must be a list of at most 1 origin; got a list of 2",
        "metadata": "must be an object; got 'x'",
    }
    assert authority.asked == []


@pytest.mark.parametrize(
    "origin", ["example.com", "https://example.com/", "https://example.com/path", "ftp://example.com", "https://[", ""]
)
async def test_an_origin_has_a_scheme_and_no_path(decart: Door, origin: str) -> None:
    answer = await decart.client.post("/v1/client/tokens", json={"allowedOrigins": [origin]})
    assert answer.status_code == 400
    assert "allowedOrigins[0]: must be an origin with its scheme" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Forbidden("not for you"), 403, "forbidden"),
        (QuotaExceeded("too many", limit="jobs", allowed=1, used=1, retry_after_s=2.5), 429, "quota"),
        (StageUnavailable("away"), 503, "unavailable"),
        (KeyError("secret"), 500, "internal"),
    ],
)
async def test_failures_have_one_shape(decart: Door, error: Exception, status: int, code: str) -> None:
    decart.jobs.error = error
    answer = await decart.client.get("/v1/jobs/x")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert "secret" not in answer.text


async def test_a_wrong_key_is_refused(decart: Door) -> None:
    answer = await decart.client.get("/v1/jobs/x", headers={"authorization": "Bearer nobody"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthenticated")


async def test_without_a_database_there_are_no_jobs() -> None:
    async with core() as made, door(DecartRoom(services(made, None)), made, None) as found:
        answer = await found.client.get("/v1/jobs/x")
        assert (answer.status_code, answer.json()["error"]["code"]) == (501, "not_served")
