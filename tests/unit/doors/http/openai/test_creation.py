"""What a caller may ask for, in a form and in JSON, and what is refused, by the caller's own names."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from service.identity.principal import QuotaExceeded
from service.jobs.job import NewJob, Presentation
from tests.pictures import encoded, picture
from tests.unit.doors.http.openai.served import Served

PNG = encoded(picture(8, 8))
DATA_URI = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()


async def made(openai: Served, **request: Any) -> NewJob:
    answer = await openai.client.post("/v1/videos", **request)
    assert answer.status_code == 200, answer.text
    return openai.jobs.submitted[-1]


async def refused(openai: Served, **request: Any) -> dict[str, Any]:
    answer = await openai.client.post("/v1/videos", **request)
    assert answer.status_code == 400, answer.text
    assert openai.jobs.submitted == []
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return error


def parts(**fields: str) -> dict[str, tuple[None, str]]:
    """As a client sends a form without a file: multipart all the same."""
    return {name: (None, value) for name, value in fields.items()}


async def test_a_multipart_form_a_url_encoded_one_and_json_ask_for_the_same(openai: Served) -> None:
    fields = {"prompt": "a red circle", "model": "sora-2", "seconds": "2", "size": "720x1280", "seed": "7"}
    multipart = await made(openai, files=parts(**fields))
    encoded_form = await made(openai, data=fields)
    as_json = await made(openai, json={**fields, "seconds": 2, "seed": 7})
    assert multipart == encoded_form == as_json
    assert (as_json.request.seconds, as_json.request.seed, as_json.presentation) == (2.0, 7, Presentation(720, 1280))


async def test_extras_of_open_servers_stand_beside_the_fields_or_in_extra_params(openai: Served) -> None:
    extras = {"num_frames": "33", "fps": "24", "num_inference_steps": "2", "seed": "9", "width": "854", "height": "480"}
    beside = await made(openai, files=parts(prompt="a red circle", **extras))
    inside = await made(openai, files=parts(prompt="a red circle", extra_params=json.dumps(extras)))
    flat = await made(openai, files=parts(prompt="a red circle", **{f"extra_params[{name}]": value for name, value in extras.items()}))
    assert beside == inside == flat
    request = beside.request
    assert (round(request.seconds * 24), request.steps, request.seed, beside.presentation) == (33, 2, 9, Presentation(854, 480))
    assert {job.frames_total for job in openai.jobs.all} == {33}


async def test_an_extra_in_both_places_is_the_one_beside_the_fields(openai: Served) -> None:
    new = await made(openai, json={"prompt": "a red circle", "seed": 1, "extra_params": {"seed": 2}})
    assert new.request.seed == 1


@pytest.mark.parametrize(
    "request_",
    [
        {"data": {"prompt": "a red circle"}, "files": {"input_reference": ("a.png", PNG, "image/png")}},
        {"data": {"prompt": "a red circle"}, "files": {"input_reference": ("a", PNG, "application/octet-stream")}},
        {"data": {"prompt": "a red circle", "input_reference": DATA_URI}},
        {"data": {"prompt": "a red circle", "input_reference[image_url]": DATA_URI}},
        {"data": {"prompt": "a red circle", "input_reference": json.dumps({"image_url": DATA_URI})}},
        {"json": {"prompt": "a red circle", "input_reference": DATA_URI}},
        {"json": {"prompt": "a red circle", "input_reference": {"image_url": DATA_URI}}},
        {"json": {"prompt": "a red circle", "input_reference": {"image_url": {"url": DATA_URI}}}},
    ],
    ids=["file", "file of no type", "text", "brackets", "json in a form", "json text", "json object", "json address"],
)
async def test_an_image_comes_in_many_ways(openai: Served, request_: dict[str, Any]) -> None:
    assert (await made(openai, **request_)).request.footage == ("image", PNG)


async def test_a_video_to_begin_with_is_told_by_its_type_or_its_first_bytes(openai: Served) -> None:
    video = b"\0\0\0\x18ftypisom" + bytes(12)
    for name, kind in (("a.mp4", "video/mp4"), ("a", "application/octet-stream")):
        new = await made(openai, data={"prompt": "a red circle"}, files={"input_reference": (name, video, kind)})
        assert new.request.footage == ("video", video)


async def test_a_webhook_and_a_user_go_with_the_job(openai: Served) -> None:
    hook = {"url": "https://caller.example/hook", "secret": SECRET}
    for fields in ({"webhook[url]": hook["url"], "webhook[secret]": SECRET}, {"webhook": json.dumps(hook)}):
        new = await made(openai, data={"prompt": "a red circle", "user": "u-1", **fields})
        assert new.webhook is not None
        assert (new.webhook.url, new.webhook.secret, new.labels) == (hook["url"], SECRET, {"user": "u-1"})


@pytest.mark.parametrize(
    ("fields", "param", "told"),
    [
        ({}, "prompt", "must hold at least 1 character that is not white space"),
        ({"prompt": " "}, "prompt", "must hold at least 1 character that is not white space"),
        ({"prompt": 5}, "prompt", "must be text; got 5"),
        ({"model": "sora-1"}, "model", "must be one of millrace-64; got 'sora-1'"),
        ({"seconds": "0"}, "seconds", "must be a number from more than 0 to 600; got 0"),
        ({"seconds": "601"}, "seconds", "must be a number from more than 0 to 600; got 601"),
        ({"seconds": "four"}, "seconds", "must be a number; got 'four'"),
        ({"size": "720p"}, "size", "must be WIDTHxHEIGHT, as 1280x720; got '720p'"),
        ({"size": "1281x720"}, "size", "even number of pixels from 16 to 3840; got 1281"),
        ({"size": "99999x720"}, "size", "even number of pixels from 16 to 3840; got 99999"),
        ({"width": 7, "height": 16}, "width", "even number of pixels from 16 to 3840; got 7"),
        ({"height": 480}, "width", "even number of pixels from 16 to 3840; got 0"),
        ({"num_frames": 14401}, "num_frames", "must be a whole number from 1 to 14400; got 14401"),
        ({"fps": 16}, "fps", "must be 24, or unset: model millrace-64 plays at no other rate; got 16"),
        ({"num_inference_steps": 40}, "num_inference_steps", "must be from 1 to 16"),
        ({"guidance_scale": 5}, "guidance_scale", "must be unset or 1: model millrace-64 has no guidance; got 5"),
        ({"negative_prompt": "blur"}, "negative_prompt", "must be unset without guidance"),
        ({"seed": -1}, "seed", "must be a whole number from 0 to 18446744073709551615; got -1"),
        ({"seed": "9" * 5000}, "seed", "must be a whole number from 0 to 18446744073709551615"),
        ({"extra_params": "[]"}, "extra_params", "must be an object"),
        ({"extra_params": "{"}, "extra_params", "must be a JSON object; got '{'"),
        ({"extra_params": {"flow_shift": 3}}, "extra_params.flow_shift", "must be unset; this server takes fps, "),
        ({"lora": "{}"}, "lora", "must be unset; this server takes extra_params, "),
        ({"input_reference": "https://example.org/a.png"}, "input_reference", "this server fetches nothing from elsewhere"),
        ({"input_reference": {"image_url": "https://example.org/a.png"}}, "input_reference.image_url", "fetches nothing from elsewhere"),
        ({"input_reference": {"file_id": "file-1"}}, "input_reference.file_id", "must be unset: this server keeps no files"),
        ({"input_reference": {}}, "input_reference.image_url", "is required; got none"),
        ({"input_reference": "data:image/png,xyz"}, "input_reference", "must be a data URI in base64"),
        ({"input_reference": "data:image/png;base64,R0lGODlh"}, "input_reference", "must be one of PNG, JPEG, WEBP"),
        ({"user": "u" * 300}, "user", "must be at most 256 characters"),
        ({"webhook": {"url": "ftp://a", "secret": SECRET}}, "webhook.url", "must be an address that begins with https://"),
        ({"webhook": {"url": "https://a.example"}}, "webhook.secret", "is required"),
        ({"webhook": "https://a.example"}, "webhook", "must be an object"),
    ],
)
async def test_a_wrong_field_names_itself_its_limit_and_its_value(openai: Served, fields: dict[str, Any], param: str, told: str) -> None:
    body = {"prompt": "a red circle", **fields} if fields else {}
    error = await refused(openai, content=json.dumps(body), headers={"content-type": "application/json"})
    assert error["param"] == param
    assert f"{param}: " in error["message"]
    assert told in error["message"]


async def test_everything_wrong_is_found_at_once_by_the_door_and_by_the_service(openai: Served) -> None:
    error = await refused(openai, json={"prompt": "", "seed": "x", "size": "7x7", "seconds": 999})
    assert [part.partition(":")[0] for part in error["message"].split("; ") if ":" in part] == ["seed", "size", "prompt", "seconds"]


async def test_an_error_about_a_webhooks_secret_does_not_repeat_it(openai: Served) -> None:
    secret = "whsec_" + base64.b64encode(b"short secret").decode()
    error = await refused(openai, json={"prompt": "a red circle", "webhook": {"url": "https://a.example", "secret": secret}})
    assert error["param"] == "webhook.secret"
    assert secret[6:] not in error["message"]


async def test_a_field_that_is_given_twice_is_refused(openai: Served) -> None:
    twice = await refused(openai, data={"prompt": ["a red circle", "a blue square"]})
    assert twice["message"].startswith("prompt: must be given at most once; got 2")
    both = await refused(openai, data={"prompt": "a red circle", "input_reference": DATA_URI, "input_reference[image_url]": DATA_URI})
    assert "input_reference: must be given in one way; got it twice" in both["message"]


@pytest.mark.parametrize("body", ["[1]", '"text"', "{", ""])
async def test_a_body_that_is_no_object_is_refused(openai: Served, body: str) -> None:
    await refused(openai, content=body, headers={"content-type": "application/json"})


async def test_a_body_of_another_type_is_refused_by_its_header(openai: Served) -> None:
    error = await refused(openai, content="prompt: a", headers={"content-type": "application/yaml"})
    assert (error["param"], "got 'application/yaml'" in error["message"]) == ("Content-Type", True)


async def test_a_credential_for_other_models_is_forbidden(openai: Served) -> None:
    headers = {"authorization": "Bearer key-without-models"}
    for path in ("/v1/videos", "/v1/videos/sync"):
        answer = await openai.client.post(path, json={"prompt": "a red circle"}, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_permissions")


async def test_a_quota_says_when_to_try_again_or_that_it_is_no_use(openai: Served) -> None:
    openai.jobs.error = QuotaExceeded("requests_per_minute: 60", limit="requests_per_minute", allowed=60, used=60, retry_after_s=1.5)
    soon = await openai.client.post("/v1/videos", json={"prompt": "a red circle"})
    openai.jobs.error = QuotaExceeded("budget_seconds: 10 of 10 are spent", limit="budget_seconds", allowed=10, used=10)
    never = await openai.client.post("/v1/videos", json={"prompt": "a red circle"})
    assert (soon.status_code, soon.json()["error"]["code"], soon.headers["retry-after-ms"]) == (429, "rate_limit_exceeded", "1500")
    assert soon.headers["retry-after"] == "2"
    assert "x-should-retry" not in soon.headers
    assert (never.status_code, never.json()["error"]["code"], never.headers["x-should-retry"]) == (429, "insufficient_quota", "false")
