"""Videos from their creation to their end, as a client polls them."""

from __future__ import annotations

import pytest

from model_core.errors import FieldViolation
from service.jobs.job import JobError, Presentation
from tests.unit.doors.http.fake_edge import KEY, OTHER_KEY, PRINCIPALS
from tests.unit.doors.http.fake_jobs import NOW
from tests.unit.doors.http.openai.served import Served

STOCK = {"prompt": "a red circle", "model": "sora-2", "seconds": "4", "size": "1280x720"}  # as the client's example has it


async def created(openai: Served, **fields: str) -> str:
    answer = await openai.client.post("/v1/videos", data={**STOCK, **fields})
    assert answer.status_code == 200, answer.text
    identifier: str = answer.json()["id"]
    return identifier


async def test_a_stock_request_is_queued_with_the_size_and_the_name_that_the_caller_gave(openai: Served) -> None:
    answer = await openai.client.post("/v1/videos", data=STOCK)
    assert answer.json() == {
        "id": "video_job000000000", "object": "video", "created_at": int(NOW), "completed_at": None, "expires_at": None,
        "model": "sora-2", "status": "queued", "progress": 0, "prompt": "a red circle", "seconds": "4", "size": "1280x720",
        "remixed_from_video_id": None, "error": None, "usage": None,
    }  # fmt: skip
    new = openai.jobs.submitted[0]
    assert (new.door, new.presentation, new.request.width, new.request.seconds) == ("openai", Presentation(1280, 720), 0, 4.0)


async def test_a_request_of_a_prompt_alone_gets_the_models_size_and_four_seconds(openai: Served) -> None:
    video = (await openai.client.post("/v1/videos", json={"prompt": "a red circle"})).json()
    assert (video["model"], video["seconds"], video["size"]) == ("millrace-64", "4", "64x64")


async def test_a_video_is_queued_then_in_progress_then_completed(openai: Served) -> None:
    path = f"/v1/videos/{await created(openai)}"
    seen = [(await openai.client.get(path)).json()]
    openai.jobs.start(openai.jobs.only.id, frames_done=24)
    seen.append((await openai.client.get(path)).json())
    openai.jobs.now += 9
    openai.jobs.complete(openai.jobs.only.id)
    seen.append((await openai.client.get(path)).json())
    assert [(video["status"], video["progress"]) for video in seen] == [("queued", 0), ("in_progress", 25), ("completed", 100)]
    assert (seen[-1]["completed_at"], seen[-1]["expires_at"]) == (int(NOW + 9), int(NOW + 9 + 3600))


async def test_usage_says_what_was_rendered_and_to_what_it_was_scaled(openai: Served) -> None:
    path = f"/v1/videos/{await created(openai)}"
    openai.jobs.complete(openai.jobs.only.id)
    assert (await openai.client.get(path)).json()["usage"] == {
        "video_seconds": 4.0, "frames": 96, "steps_per_chunk": 4, "rendered": {"model": "millrace-64", "size": "64x64", "fps": 24},
        "scaled_to": "1280x720", "text_seconds": 0.0, "denoise_seconds": 0.5, "decode_seconds": 0.25,
    }  # fmt: skip


async def test_a_video_of_the_models_own_size_was_not_scaled(openai: Served) -> None:
    path = f"/v1/videos/{await created(openai, size='64x64')}"
    openai.jobs.complete(openai.jobs.only.id)
    assert (await openai.client.get(path)).json()["usage"]["scaled_to"] is None


async def test_a_failed_video_says_why(openai: Served) -> None:
    path = f"/v1/videos/{await created(openai)}"
    openai.jobs.fail(openai.jobs.only.id, JobError("invalid", "input_reference: bad", (FieldViolation("input_reference", "bad"),)))
    video = (await openai.client.get(path)).json()
    assert video["status"] == "failed"
    assert video["error"] == {"code": "invalid", "message": "input_reference: bad", "param": "input_reference"}


async def test_ends_that_clients_do_not_know_are_failures_with_a_code(openai: Served) -> None:
    path = f"/v1/videos/{await created(openai)}"
    await openai.jobs.cancel(PRINCIPALS[KEY], openai.jobs.only.id)
    cancelled = (await openai.client.get(path)).json()
    openai.jobs.expire(openai.jobs.only.id)
    expired = (await openai.client.get(path)).json()
    assert [(video["status"], video["error"]["code"]) for video in (cancelled, expired)] == [("failed", "cancelled"), ("failed", "expired")]


async def test_a_completed_video_that_has_expired_was_completed(openai: Served) -> None:
    path = f"/v1/videos/{await created(openai)}"
    openai.jobs.complete(openai.jobs.only.id)
    openai.jobs.expire(openai.jobs.only.id)
    assert (await openai.client.get(path)).json()["status"] == "completed"
    assert (await openai.client.get(f"{path}/content")).status_code == 404


@pytest.mark.parametrize(("seconds", "pace"), [("1", "500"), ("4", "1000"), ("4.5", "1125"), ("60", "5000")])
async def test_the_first_answer_has_the_pace_of_polling_in_whole_milliseconds(openai: Served, seconds: str, pace: str) -> None:
    """The client reads it with `int()`, from the first of its own looks at the video."""
    answer = await openai.client.post("/v1/videos", data={**STOCK, "seconds": seconds})
    assert answer.headers["openai-poll-after-ms"] == pace
    assert (await openai.client.get(f"/v1/videos/{answer.json()['id']}")).headers["openai-poll-after-ms"] == pace


async def test_the_same_idempotency_key_makes_no_second_video_and_another_request_with_it_is_a_conflict(openai: Served) -> None:
    headers = {"Idempotency-Key": "k1"}
    first = await openai.client.post("/v1/videos", data=STOCK, headers=headers)
    second = await openai.client.post("/openai/v1/videos", data=STOCK, headers=headers)
    other = await openai.client.post("/v1/videos", data={**STOCK, "prompt": "a blue square"}, headers=headers)
    assert first.json()["id"] == second.json()["id"]
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert other.headers["x-should-retry"] == "false"  # or the client would ask again, twice
    long = await openai.client.post("/v1/videos", data=STOCK, headers={"Idempotency-Key": "k" * 300})
    assert (long.status_code, long.json()["error"]["param"]) == (400, "Idempotency-Key")


async def test_lists_go_page_by_page_by_the_last_id(openai: Served) -> None:
    made = [await created(openai) for _ in range(5)]
    pages: list[list[str]] = []
    after: dict[str, str] = {}
    while True:
        page = (await openai.client.get("/v1/videos", params={"limit": 2, **after})).json()
        assert page["object"] == "list"
        pages.append([video["id"] for video in page["data"]])
        assert (page["first_id"], page["last_id"]) == (pages[-1][0], pages[-1][-1])
        if not page["has_more"]:
            break
        after = {"after": page["last_id"]}
    assert pages == [made[:2:-1], made[2:0:-1], made[:1]]
    ascending = (await openai.client.get("/v1/videos", params={"order": "asc"})).json()
    assert [video["id"] for video in ascending["data"]] == made


async def test_an_empty_list_has_no_ids(openai: Served) -> None:
    page = (await openai.client.get("/v1/videos")).json()
    assert page == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@pytest.mark.parametrize(
    ("query", "param", "told"),
    [
        ({"limit": "0"}, "limit", "must be a whole number from 1 to 100; got '0'"),
        ({"limit": "1000"}, "limit", "must be a whole number from 1 to 100; got '1000'"),
        ({"order": "up"}, "order", "must be one of asc, desc; got 'up'"),
        ({"after": "video_nothing"}, "after", "must be the id of one of your videos; got 'video_nothing'"),
        ({"after": "task_1"}, "after", "must be the id of one of your videos; got 'task_1'"),
    ],
)
async def test_a_wrong_query_names_itself(openai: Served, query: dict[str, str], param: str, told: str) -> None:
    answer = await openai.client.get("/v1/videos", params=query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert told in answer.json()["error"]["message"]


async def test_delete_ends_it_and_it_is_not_found_any_more(openai: Served) -> None:
    identifier = await created(openai)
    openai.jobs.start(openai.jobs.only.id)
    answer = await openai.client.delete(f"/v1/videos/{identifier}")
    assert answer.json() == {"id": identifier, "object": "video.deleted", "deleted": True}
    assert (await openai.client.get(f"/v1/videos/{identifier}")).status_code == 404
    assert (await openai.client.delete(f"/v1/videos/{identifier}")).status_code == 404


async def test_ids_of_another_tenant_or_another_door_answer_as_ids_of_nothing(openai: Served) -> None:
    identifier = await created(openai)
    openai.jobs.complete(openai.jobs.only.id)
    unknown = "video_" + "0" * len(openai.jobs.only.id)
    calls = [("GET", ""), ("DELETE", ""), ("GET", "/content"), ("POST", "/remix")]

    async def answers(wanted: str, key: str) -> list[tuple[int, str]]:
        headers = {"authorization": f"Bearer {key}"}
        found = [
            await openai.client.request(method, f"/v1/videos/{wanted}{path}", headers=headers, json={"prompt": "a blue square"})
            for method, path in calls
        ]
        return [(answer.status_code, answer.json()["error"]["message"].replace(wanted, "ID")) for answer in found]

    assert await answers(identifier, OTHER_KEY) == await answers(unknown, OTHER_KEY) == [(404, "there is no video ID")] * len(calls)
    openai.jobs.adopt(openai.jobs.only.id, "runway")
    assert await answers(identifier, KEY) == [(404, "there is no video ID")] * len(calls)


async def test_content_is_served_in_ranges_and_variants(openai: Served) -> None:
    path = f"/v1/videos/{await created(openai)}/content"
    openai.jobs.complete(openai.jobs.only.id, b"0123456789")
    whole = await openai.client.get(path, headers={"accept": "application/binary"})
    part = await openai.client.get(path, headers={"range": "bytes=2-4"})
    beyond = await openai.client.get(path, headers={"range": "bytes=20-30"})
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, b"0123456789", "video/mp4")
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
    assert beyond.status_code == 416
    same = await openai.client.get(path, headers={"range": "bytes=0-0", "if-range": whole.headers["etag"]})
    assert (same.status_code, same.content) == (206, b"0")
    kinds = {v: await openai.client.get(path, params={"variant": v}) for v in ("video", "thumbnail", "spritesheet")}
    assert {v: answer.headers["content-type"] for v, answer in kinds.items()} == {
        "video": "video/mp4", "thumbnail": "image/webp", "spritesheet": "image/jpeg",
    }  # fmt: skip
    wrong = await openai.client.get(path, params={"variant": "gif"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "variant")


async def test_content_that_a_store_serves_is_elsewhere(openai: Served) -> None:
    path = f"/v1/videos/{await created(openai)}/content"
    openai.jobs.complete(openai.jobs.only.id)
    openai.jobs.links = "https://bucket.example"
    answer = await openai.client.get(path)
    assert (answer.status_code, answer.headers["location"]) == (302, f"https://bucket.example/{openai.jobs.only.id}.video")


async def test_content_that_is_not_ready_is_a_404_that_clients_do_not_ask_for_again(openai: Served) -> None:
    answer = await openai.client.get(f"/v1/videos/{await created(openai)}/content")
    assert (answer.status_code, answer.json()["error"]["code"], answer.headers["x-should-retry"]) == (404, "not_ready", "false")


async def test_azures_paths_lead_to_the_same_videos(openai: Served) -> None:
    identifier = await created(openai)
    for prefix in ("/openai", "/openai/v1"):
        asked = openai.client.build_request("GET", f"{prefix}/videos/{identifier}?api-version=preview", headers={"api-key": KEY})
        del asked.headers["authorization"]
        answer = await openai.client.send(asked)
        assert answer.json()["id"] == identifier
        models = (await openai.client.get(f"{prefix}/models", params={"api-version": "preview"})).json()
        assert [model["id"] for model in models["data"]] == ["millrace-64"]
