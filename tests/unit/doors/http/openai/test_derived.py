"""Videos out of other videos: remixes, edits and extensions."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from service.jobs.job import NewJob, Presentation
from tests.pictures import encoded, picture, video
from tests.unit.doors.http.openai.served import Served

PNG = encoded(picture(8, 8))
ASKED = {"prompt": "a red circle", "model": "sora-2", "seconds": "2", "size": "1280x720", "seed": "7", "num_inference_steps": "2"}


async def created(openai: Served, **request: Any) -> str:
    answer = await openai.client.post("/v1/videos", **(request or {"data": ASKED}))
    assert answer.status_code == 200, answer.text
    identifier: str = answer.json()["id"]
    return identifier


async def derived(openai: Served, path: str, body: dict[str, Any]) -> tuple[dict[str, Any], NewJob]:
    answer = await openai.client.post(f"/v1/videos{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json(), openai.jobs.submitted[-1]


async def test_a_remix_is_the_video_again_with_another_prompt(openai: Served) -> None:
    parent = await created(openai)
    remix, new = await derived(openai, f"/{parent}/remix", {"prompt": "a blue square"})
    assert (remix["remixed_from_video_id"], remix["prompt"]) == (parent, "a blue square")
    assert (remix["model"], remix["seconds"], remix["size"]) == ("sora-2", "2", "1280x720")
    request = new.request
    assert (request.seed, request.steps, request.seconds, new.presentation) == (7, 2, 2.0, Presentation(1280, 720))
    assert new.parent == openai.jobs.all[0].id


@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
async def test_an_edit_is_a_remix_that_names_the_video_in_its_body(openai: Served, *, form: bool) -> None:
    parent = await created(openai)
    body: dict[str, Any] = {"json": {"prompt": "a blue square", "video": {"id": parent}}}
    if form:
        body = {"data": {"prompt": "a blue square", "video[id]": parent}}
    answer = await openai.client.post("/v1/videos/edits", **body)
    assert (answer.status_code, answer.json()["remixed_from_video_id"]) == (200, parent)
    assert (openai.jobs.submitted[-1].request.prompt, openai.jobs.submitted[-1].request.seed) == ("a blue square", 7)


async def test_an_extension_plays_on_from_the_end_with_its_own_prompt(openai: Served) -> None:
    parent = await created(openai)
    extended, new = await derived(openai, "/extensions", {"prompt": "a blue square", "seconds": "4", "video": {"id": parent}})
    assert (extended["seconds"], extended["prompt"], extended["remixed_from_video_id"]) == ("6", "a blue square", parent)
    assert (new.request.prompt, new.request.later_prompts, new.request.seed) == ("a red circle", ((2.0, "a blue square"),), 7)
    again, new = await derived(openai, "/extensions", {"prompt": "a star", "seconds": "1", "video": {"id": extended["id"]}})
    assert (again["seconds"], new.request.later_prompts) == ("7", ((2.0, "a blue square"), (6.0, "a star")))


async def test_an_extension_with_the_same_prompt_is_a_longer_video(openai: Served) -> None:
    parent = await created(openai)
    _, new = await derived(openai, "/extensions", {"prompt": "a red circle", "seconds": "4", "video": {"id": parent}})
    assert (new.request.prompt, new.request.later_prompts, new.request.seconds) == ("a red circle", (), 6.0)


async def test_a_file_is_extended_by_what_its_header_says_and_what_is_asked_for(openai: Served) -> None:
    data = video(48)
    answer = await openai.client.post(
        "/v1/videos/extensions", data={"prompt": "a blue square", "seconds": "4"}, files={"video": ("a.mp4", data, "video/mp4")}
    )
    assert (answer.status_code, answer.json()["seconds"]) == (200, "6")
    assert openai.jobs.submitted[-1].request.footage == ("video", data)


@pytest.mark.parametrize(
    ("path", "request_", "param", "told"),
    [
        ("/edits", {"data": {"prompt": "b"}, "files": {"video": ("a.mp4", b"abc", "video/mp4")}}, "video", "no model here changes a video"),
        ("/edits", {"json": {"prompt": "b"}}, "video", "must be a file, or an object"),
        ("/edits", {"json": {"prompt": "b", "video": "video_1"}}, "video", "must be a file, or an object"),
        ("/edits", {"json": {"prompt": "b", "video": {"id": 5}}}, "video", "must be a file, or an object"),
        ("/extensions", {"data": {"prompt": "b"}, "files": {"video": ("a.mp4", b"abc")}}, "video", "whose header says how long it is"),
        ("/extensions", {"json": {"prompt": "b", "seconds": 600, "video": {"id": "PARENT"}}}, "seconds", "to 600; got 602"),
        ("/extensions", {"json": {"prompt": " ", "video": {"id": "PARENT"}}}, "prompt", "must hold at least 1 character"),
        ("/PARENT/remix", {"json": {"prompt": " "}}, "prompt", "must hold at least 1 character"),
        ("/PARENT/remix", {"json": {"prompt": "b", "size": "64x64"}}, "size", "must be unset; this server takes prompt, webhook"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_the_callers_names(
    openai: Served, path: str, request_: dict[str, Any], param: str, told: str
) -> None:
    parent = await created(openai)
    if "json" in request_:
        request_ = {"json": json.loads(json.dumps(request_["json"]).replace("PARENT", parent))}
    answer = await openai.client.post(f"/v1/videos{path.replace('PARENT', parent)}", **request_)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert told in answer.json()["error"]["message"]


async def test_a_video_that_began_with_an_image_is_not_made_again(openai: Served) -> None:
    parent = await created(openai, data={"prompt": "a red circle"}, files={"input_reference": ("a.png", PNG, "image/png")})
    bodies = {f"/{parent}/remix": {"prompt": "b"}} | {path: {"prompt": "b", "video": {"id": parent}} for path in ("/edits", "/extensions")}
    for path, body in bodies.items():
        answer = await openai.client.post(f"/v1/videos{path}", json=body)
        assert answer.status_code == 400
        assert f"must be of a video made from its prompt alone; got {parent}, which began with image" in answer.json()["error"]["message"]


async def test_an_unknown_video_is_not_found(openai: Served) -> None:
    answers: list[httpx.Response] = [
        await openai.client.post(f"/v1/videos{path}", json={"prompt": "b", "video": {"id": "video_nothing"}})
        for path in ("/edits", "/extensions")
    ]
    answers.append(await openai.client.post("/v1/videos/video_nothing/remix", json={"prompt": "b"}))
    assert [answer.status_code for answer in answers] == [404] * 3
