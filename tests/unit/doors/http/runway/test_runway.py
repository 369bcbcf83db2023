"""Runway's tasks, as its client asks for them and reads them."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from doors.http.runway.room import RunwayRoom
from model_core.errors import CapacityExceeded, StageUnavailable
from service.identity.principal import Forbidden, QuotaExceeded
from service.jobs.job import IdempotencyConflict, JobError, Presentation
from tests.core import core
from tests.pictures import encoded, picture
from tests.unit.doors.http.fake_edge import BASE_URL, KEY, OTHER_KEY, PRINCIPALS, Door, door, services
from tests.unit.doors.http.fake_jobs import FakeJobDesk

PNG = encoded(picture(8, 8))
IMAGE = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
VIDEO = f"data:video/mp4;base64,{base64.b64encode(b'0000ftypisom').decode()}"
TEXT: dict[str, Any] = {"model": "gen4.5", "promptText": "a red circle", "ratio": "1280:720", "duration": 2}
SYNC, ASYNC = {"X-Stainless-Async": "false"}, {"X-Stainless-Async": "async:asyncio"}


@pytest.fixture
async def runway(tmp_path: Path) -> AsyncGenerator[Door, None]:
    async with core() as made:
        jobs = FakeJobDesk(made.intake, tmp_path)
        async with door(RunwayRoom(services(made, jobs)), made, jobs) as found:
            yield found


async def created(runway: Door, route: str = "text_to_video", **changes: Any) -> str:
    answer = await runway.client.post(f"/v1/{route}", json=TEXT | changes)
    assert answer.status_code == 200, answer.text
    task_id: str = answer.json()["id"]
    return task_id


async def refused(runway: Door, body: Any, route: str = "text_to_video", **headers: str) -> dict[str, str]:
    """The sentences by the field that they are about."""
    answer = await runway.client.post(f"/v1/{route}", content=json.dumps(body), headers={"content-type": "application/json", **headers})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"] == "Validation of body failed"
    issues = answer.json()["issues"]
    fields = {"".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in issue["path"])[1:]: issue for issue in issues}
    assert all(issue["message"].startswith(f"{field}: ") for field, issue in fields.items())
    return {field: issue["message"].removeprefix(f"{field}: ") for field, issue in fields.items()}


async def shown(runway: Door, task_id: str, headers: dict[str, str] = SYNC) -> dict[str, Any]:
    answer = await runway.client.get(f"/v1/tasks/{task_id}", headers=headers)
    assert answer.status_code == 200, answer.text
    task: dict[str, Any] = answer.json()
    return task


async def test_a_new_task_says_what_it_will_cost(runway: Door) -> None:
    answer = await runway.client.post("/v1/text_to_video", json=TEXT | {"seed": 7, "duration": 2})
    assert answer.json() == {"id": runway.jobs.only.id, "estimatedCost": {"credits": 2}}
    [new] = runway.jobs.submitted
    request = new.request
    assert (new.door, request.prompt, request.model, request.seconds, request.seed) == ("runway", "a red circle", "gen4.5", 2.0, 7)
    assert (new.presentation, new.shown) == (Presentation(1280, 720), {"model": "gen4.5", "task": "text_to_video"})


async def test_a_task_goes_from_pending_to_a_file_that_needs_no_key(runway: Door) -> None:
    task_id = await created(runway)
    assert await shown(runway, task_id) == {"id": task_id, "status": "PENDING", "createdAt": "2023-11-14T22:13:20.000Z"}
    runway.jobs.start(task_id, frames_done=12)
    assert (await shown(runway, task_id))["status"] == "RUNNING"
    assert (await shown(runway, task_id))["progress"] == 0.25
    runway.jobs.complete(task_id, b"an MP4")
    done = await shown(runway, task_id)
    assert (done["status"], done["cost"]) == ("SUCCEEDED", {"credits": 2})
    [output] = done["output"]
    content = await runway.jobs.content(PRINCIPALS[KEY], task_id)
    assert output == f"{BASE_URL}{content.link}"
    assert done["usage"] == {
        "model": "millrace-64", "frames": 48, "videoSeconds": 2.0, "steps": 4, "fileWidth": 1280, "fileHeight": 720,
    }  # fmt: skip
    runway.jobs.links = "https://store.test"
    assert (await shown(runway, task_id))["output"][0].startswith("https://store.test/")


@pytest.mark.parametrize(
    ("code", "shown_code"),
    [("invalid", "INPUT_PREPROCESSING.INVALID"), ("too_large", "INTERNAL.BAD_OUTPUT"), ("unavailable", "INTERNAL"), ("new", "INTERNAL")],
)
async def test_a_failed_task_says_why_and_costs_nothing(runway: Door, code: str, shown_code: str) -> None:
    task_id = await created(runway)
    runway.jobs.fail(task_id, JobError(code, "the image has no pixels"))
    task = await shown(runway, task_id)
    assert (task["status"], task["failure"], task["failureCode"]) == ("FAILED", "the image has no pixels", shown_code)
    assert task["cost"] == {"credits": 0}


async def test_a_cancelled_task_has_failed_for_the_client_that_waits_for_it_for_ever_otherwise(runway: Door) -> None:
    task_id = await created(runway)
    await runway.jobs.cancel(PRINCIPALS[KEY], task_id)
    for_sync, for_async = await shown(runway, task_id, SYNC), await shown(runway, task_id, ASYNC)
    assert (for_sync["status"], for_sync["failureCode"], for_sync["cost"]) == ("FAILED", "CANCELLED", {"credits": 0})
    assert (for_async["status"], for_async["cost"]) == ("CANCELLED", {"credits": 0})


@pytest.mark.parametrize("state", ["pending", "running", "done"])
async def test_a_deleted_task_is_not_found_any_more(runway: Door, state: str) -> None:
    task_id = await created(runway)
    if state != "pending":
        runway.jobs.start(task_id)
    if state == "done":
        runway.jobs.complete(task_id)
    answer = await runway.client.delete(f"/v1/tasks/{task_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    for method in ("GET", "DELETE"):
        assert (await runway.client.request(method, f"/v1/tasks/{task_id}")).status_code == 404


async def test_an_expired_task_and_anothers_are_not_found(runway: Door) -> None:
    task_id = await created(runway)
    other = {"authorization": f"Bearer {OTHER_KEY}"}
    assert (await runway.client.get(f"/v1/tasks/{task_id}", headers=other)).status_code == 404
    assert (await runway.client.delete(f"/v1/tasks/{task_id}", headers=other)).status_code == 404
    runway.jobs.complete(task_id)
    runway.jobs.expire(task_id)
    assert (await runway.client.get(f"/v1/tasks/{task_id}")).status_code == 404


async def test_an_image_comes_as_a_data_uri_alone_or_in_a_list(runway: Door) -> None:
    await created(runway, "image_to_video", promptImage=IMAGE)
    await created(runway, "image_to_video", promptImage=[{"uri": IMAGE, "position": "first"}])
    assert [new.request.footage for new in runway.jobs.submitted] == [("image", PNG), ("image", PNG)]


@pytest.mark.parametrize("field", ["videoUri", "promptVideo"])
async def test_a_video_has_one_of_two_names(runway: Door, field: str) -> None:
    await created(runway, "video_to_video", **{field: VIDEO})
    assert runway.jobs.submitted[0].request.footage == ("video", b"0000ftypisom")


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({}, (1280, 720)), ({"ratio": "720:1280"}, (720, 1280)), ({"ratio": None}, (1280, 720)), ({"ratio": "1584:672"}, (1584, 672)),
        ({"ratio": "9:16"}, (720, 1280)), ({"ratio": None, "resolution": "1080P"}, (1920, 1080)),
    ],
)  # fmt: skip
async def test_a_ratio_is_the_size_of_the_file(runway: Door, changes: dict[str, Any], size: tuple[int, int]) -> None:
    await created(runway, **changes)
    assert runway.jobs.submitted[0].presentation == Presentation(*size)


async def test_what_is_not_given_has_a_default(runway: Door) -> None:
    answer = await runway.client.post("/v1/text_to_video", json={"model": "veo3.1", "promptText": "a red circle"})
    assert answer.json()["estimatedCost"] == {"credits": 5}
    request = runway.jobs.submitted[0].request
    assert (request.seed, request.negative_prompt, request.footage) == (None, None, None)


async def test_everything_wrong_is_named_as_runway_names_it(runway: Door) -> None:
    body = {"promptText": " ", "duration": 1e9, "ratio": "wide", "seed": -1, "audio": True, "references": [{"uri": IMAGE}]}
    assert await refused(runway, body) == {
        "model": "is required; got none",
        "ratio": "must be width:height, as 1280:720 or 16:9; got 'wide'",
        "references": "must be unset: this server takes one image or video, for the beginning; got a list of 1",
        "audio": "must be false or unset: this server makes no sound; got True",
        "seed": "must be a whole number from 0 to 18446744073709551615; got -1",
        "promptText": "must hold at least 1 character that is not white space; got ' '",
        "duration": "must be a number from more than 0 to 600; got 1e+09",
    }
    assert runway.jobs.submitted == []


@pytest.mark.parametrize(
    ("route", "changes", "field", "problem"),
    [
        ("text_to_video", {"promptImage": IMAGE}, "promptImage", "must be unset: this route takes no image"),
        ("text_to_video", {"promptVideo": VIDEO}, "promptVideo", "must be unset: this route takes no video"),
        ("image_to_video", {}, "promptImage", "is required; got none"),
        ("image_to_video", {"promptImage": []}, "promptImage", "must hold one image; got a list of 0"),
        ("image_to_video", {"promptImage": [{"uri": IMAGE}] * 2}, "promptImage", "must be a list of at most 1 objects; got a list of 2"),
        ("image_to_video", {"promptImage": [{"position": "first"}]}, "promptImage[0].uri", "is required; got none"),
        ("image_to_video", {"promptImage": [{"uri": IMAGE, "position": "last"}]}, "promptImage[0].position", "must be one of first"),
        ("image_to_video", {"promptImage": "https://example.com/a.png"}, "promptImage", "must be a data URI or base64"),
        ("image_to_video", {"promptImage": "runway://x"}, "promptImage", "must be a data URI or base64"),
        ("image_to_video", {"promptImage": VIDEO}, "promptImage", "must be one of PNG, JPEG, WEBP; got 12 bytes"),
        ("video_to_video", {}, "videoUri", "is required; got none"),
        ("video_to_video", {"videoUri": VIDEO, "promptVideo": VIDEO}, "promptVideo", "must be unset: videoUri holds the video"),
        ("video_to_video", {"videoUri": IMAGE}, "videoUri", "must be an MP4 file"),
        ("video_to_video", {"videoUri": VIDEO, "outputFormat": "prores"}, "outputFormat", "must be one of mp4; got 'prores'"),
        ("text_to_video", {"model": "nothing-like-it"}, "model", "must be one of millrace-64; got 'nothing-like-it'"),
        ("text_to_video", {"negativePrompt": "blur"}, "negativePrompt", "must be unset without guidance; got 'blur'"),
        ("text_to_video", {"promptText": 5}, "promptText", "must be text; got 5"),
        ("text_to_video", {"promptText": "\ud800"}, "promptText", "must be text in Unicode"),
    ],
)
async def test_a_single_problem(runway: Door, route: str, changes: dict[str, Any], field: str, problem: str) -> None:
    problems = await refused(runway, TEXT | changes, route)
    assert list(problems) == [field]
    assert problems[field].startswith(problem)


async def test_another_version_of_the_api_is_refused(runway: Door) -> None:
    assert await refused(runway, TEXT, **{"X-Runway-Version": "2023-09-06"}) == {
        "X-Runway-Version": "must be 2024-11-06, or unset; got '2023-09-06'"
    }


async def test_the_same_idempotency_key_makes_one_task(runway: Door) -> None:
    runway.client.headers["Idempotency-Key"] = "k1"
    assert await created(runway) == await created(runway)
    answer = await runway.client.post("/v1/text_to_video", json=TEXT | {"duration": 3})
    assert (answer.status_code, answer.headers["x-should-retry"]) == (409, "false")


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (Forbidden("not for you"), 403, {}),
        (QuotaExceeded("too many", limit="jobs", allowed=1, used=1, retry_after_s=2.5), 429, {"retry-after": "3"}),
        (QuotaExceeded("spent", limit="budget", allowed=1, used=1), 429, {"x-should-retry": "false"}),
        (CapacityExceeded("full", 0.1), 429, {"retry-after": "1"}),
        (StageUnavailable("away"), 503, {"retry-after": "2"}),
        (IdempotencyConflict("used"), 409, {"x-should-retry": "false"}),
        (KeyError("secret"), 500, {}),
    ],
)
async def test_failures_have_runways_shape(runway: Door, error: Exception, status: int, headers: dict[str, str]) -> None:
    runway.jobs.error = error
    answer = await runway.client.post("/v1/text_to_video", json=TEXT)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert "secret" not in answer.text
    assert {name: answer.headers.get(name) for name in headers} == headers


async def test_a_wrong_key_is_refused(runway: Door) -> None:
    answer = await runway.client.post("/v1/text_to_video", json=TEXT, headers={"authorization": "Bearer nobody"})
    assert (answer.status_code, set(answer.json())) == (401, {"error"})


async def test_without_a_database_there_are_no_tasks() -> None:
    async with core() as made, door(RunwayRoom(services(made, None)), made, None) as found:
        for method, path in (("POST", "/v1/text_to_video"), ("GET", "/v1/tasks/x"), ("DELETE", "/v1/tasks/x")):
            answer = await found.client.request(method, path, json=TEXT)
            assert (answer.status_code, answer.headers["x-should-retry"]) == (501, "false")
            assert "no database" in answer.json()["error"]
