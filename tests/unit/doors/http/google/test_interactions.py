"""Interactions, as Google's client asks for them and reads them."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import av
import numpy as np
import pytest

from doors.http.google.answers import StreamedInteraction
from doors.http.google.room import GoogleRoom
from model_core.errors import StageUnavailable
from model_core.types import Codec, FrameChunk
from service.events import Frames
from service.identity.principal import Principal
from service.jobs.job import Job, JobError, Presentation, Tier
from tests.core import core
from tests.http_served import http_serving
from tests.pictures import encoded, picture
from tests.unit.doors.http.fake_edge import BASE_URL, OTHER_KEY, Door, door, services

PNG = encoded(picture(8, 8))
MP4 = b"0000ftypisom"
IMAGE = {"type": "image", "data": base64.b64encode(PNG).decode(), "mime_type": "image/png"}
VIDEO = {"type": "video", "data": base64.b64encode(MP4).decode(), "mime_type": "video/mp4"}
TEXT = {"type": "text", "text": "a red circle"}
MODEL = "gemini-omni-1.1-flash"
BASE: dict[str, Any] = {"model": MODEL, "input": "a red circle", "response_format": {"type": "video", "duration": "2s"}}
BACKGROUND = BASE | {"background": True}


async def created(google: Door, version: str = "v1", **changes: Any) -> dict[str, Any]:
    answer = await google.client.post(f"/{version}/interactions", json=BACKGROUND | changes)
    assert answer.status_code == 200, answer.text
    interaction: dict[str, Any] = answer.json()
    return interaction


async def shown(google: Door, interaction_id: str) -> dict[str, Any]:
    answer = await google.client.get(f"/v1/interactions/{interaction_id}", params={"stream": "false"})
    assert answer.status_code == 200, answer.text
    interaction: dict[str, Any] = answer.json()
    return interaction


async def refused(google: Door, **changes: Any) -> dict[str, str]:
    headers = {"content-type": "application/json"}
    answer = await google.client.post("/v1/interactions", content=json.dumps(BASE | changes), headers=headers)
    assert answer.status_code == 400, answer.text
    [details] = answer.json()["error"]["details"]
    assert google.jobs.submitted == []
    return {violation["field"]: violation["description"] for violation in details["fieldViolations"]}


@pytest.mark.parametrize("version", ["v1", "v1beta"])
async def test_one_in_the_background_is_answered_at_once(google: Door, version: str) -> None:
    interaction = await created(google, version, labels={"team": "a"})
    assert interaction == {
        "id": google.jobs.only.id, "object": "interaction", "model": MODEL, "status": "in_progress", "steps": [],
        "created": "2023-11-14T22:13:20.000Z", "updated": "2023-11-14T22:13:20.000Z", "labels": {"team": "a"},
    }  # fmt: skip


async def test_a_finished_one_holds_the_video(google: Door) -> None:
    interaction_id = (await created(google))["id"]
    google.jobs.start(interaction_id)
    assert (await shown(google, interaction_id))["status"] == "in_progress"
    google.jobs.complete(interaction_id, b"an MP4")
    done = await shown(google, interaction_id)
    assert done["status"] == "completed"
    assert done["steps"] == [
        {"type": "model_output", "content": [{"type": "video", "mime_type": "video/mp4", "data": base64.b64encode(b"an MP4").decode()}]}
    ]
    assert done["usage"] == {"frames": 48, "video_seconds": 2.0, "steps": 4, "file_width": 1280, "file_height": 720}


async def test_a_finished_one_says_where_the_video_is_if_that_was_asked(google: Door) -> None:
    form = BASE["response_format"] | {"delivery": "uri"}
    interaction_id = (await created(google, response_format=form))["id"]
    google.jobs.complete(interaction_id, b"an MP4")
    [step] = (await shown(google, interaction_id))["steps"]
    [content] = step["content"]
    assert content["uri"] == f"{BASE_URL}/v1beta/files/{interaction_id}:download?alt=media"
    assert (await google.client.get(content["uri"])).content == b"an MP4"
    # As the client sends it where the URL that it was told has no TLS, and where it has.
    for path in (f"{content['uri']}:download?alt=media", f"{interaction_id}:download?alt=media"):
        assert (await google.client.get(f"/v1/files/{path}")).content == b"an MP4"


async def test_a_store_serves_its_files_itself(google: Door) -> None:
    interaction_id = (await created(google))["id"]
    google.jobs.complete(interaction_id)
    google.jobs.links = "https://store.test"
    [step] = (await shown(google, interaction_id))["steps"]
    assert step["content"][0]["uri"].startswith("https://store.test/")


@pytest.mark.parametrize("store", [None, True, False])
async def test_whoever_does_not_ask_for_the_background_waits(google: Door, monkeypatch: pytest.MonkeyPatch, store: bool | None) -> None:
    async def until_over(principal: Principal, job_id: str, within_s: float) -> Job:
        assert (principal.tenant, within_s) == ("acme", 600.0)
        return google.jobs.complete(job_id, b"an MP4")

    monkeypatch.setattr(google.jobs, "until_over", until_over)
    answer = await google.client.post("/v1/interactions", json=BASE if store is None else BASE | {"store": store})
    assert answer.json()["status"] == "completed"
    assert base64.b64decode(answer.json()["steps"][0]["content"][0]["data"]) == b"an MP4"
    assert google.jobs.submitted[0].ttl_s == (600.0 if store is False else None)


async def test_one_that_failed_says_why(google: Door) -> None:
    interaction_id = (await created(google))["id"]
    google.jobs.fail(interaction_id, JobError("invalid", "the image has no pixels"))
    failed = await shown(google, interaction_id)
    assert (failed["status"], failed["errors"]) == ("failed", [{"code": "invalid", "message": "the image has no pixels"}])


async def test_one_can_be_cancelled_and_deleted(google: Door) -> None:
    interaction_id = (await created(google))["id"]
    answer = await google.client.post(f"/v1/interactions/{interaction_id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    answer = await google.client.delete(f"/v1/interactions/{interaction_id}")
    assert (answer.status_code, answer.json()) == (200, {})
    for method, path in (("GET", ""), ("POST", "/cancel"), ("DELETE", "")):
        answer = await google.client.request(method, f"/v1/interactions/{interaction_id}{path}")
        assert (answer.status_code, answer.json()["error"]["status"]) == (404, "NOT_FOUND")


async def test_anothers_and_an_expired_one_are_not_found(google: Door) -> None:
    interaction_id = (await created(google))["id"]
    path = f"/v1/interactions/{interaction_id}"
    assert (await google.client.get(path, headers={"authorization": f"Bearer {OTHER_KEY}"})).status_code == 404
    google.jobs.expire(interaction_id)
    assert (await google.client.get(path)).status_code == 404


@pytest.mark.parametrize(
    ("given", "prompt", "footage"),
    [
        ("a red circle", "a red circle", None),
        (TEXT, "a red circle", None),
        ([TEXT, IMAGE], "a red circle", ("image", PNG)),
        ([{"type": "user_input", "content": [VIDEO, TEXT]}], "a red circle", ("video", MP4)),
        ([{"type": "user_input", "content": "a red circle"}], "a red circle", None),
        ([{"role": "user", "content": [TEXT]}, {"role": "user", "content": TEXT}], "a red circle\na red circle", None),
    ],
)
async def test_input_has_many_forms(google: Door, given: Any, prompt: str, footage: tuple[str, bytes] | None) -> None:
    await created(google, input=given)
    request = google.jobs.submitted[0].request
    assert (request.prompt, request.footage) == (prompt, footage)


async def test_all_of_a_request_is_read(google: Door) -> None:
    await created(
        google, input=[TEXT, IMAGE], service_tier="priority", response_modalities=["video"], tools=[],
        generation_config={"seed": 7, "temperature": 1.0, "video_config": {"task": "image_to_video"}},
        response_format=[{"type": "video", "aspect_ratio": "9:16", "duration": "1.5s", "resolution": "360p"}],
    )  # fmt: skip
    [new] = google.jobs.submitted
    assert (new.door, new.request.model, new.request.seed, new.request.seconds) == ("google", MODEL, 7, 1.5)
    assert (new.presentation, new.tier) == (Presentation(360, 640), Tier.PRIORITY)


async def test_what_is_not_given_has_a_default(google: Door) -> None:
    await created(google, response_format=None)
    [new] = google.jobs.submitted
    assert (new.request.seconds, new.presentation, new.tier, new.ttl_s) == (8.0, Presentation(1280, 720), Tier.DEFAULT, None)


async def test_everything_wrong_is_named_as_google_names_it(google: Door) -> None:
    problems = await refused(
        google, model=None, input="", agent="a", tools=[{"type": "function"}], previous_interaction_id="x", store=False, background=True,
        generation_config={"seed": -1, "video_config": {"task": "upscale"}}, service_tier="gold",
        response_format={"type": "text", "duration": "4", "resolution": "9p", "aspect_ratio": "x", "gcs_uri": "gs://a"},
    )  # fmt: skip
    assert problems == {
        "agent": "must be unset: this server has no agents; name a model; got 'a'",
        "tools": "must be unset: no model here uses tools; got a list of 1",
        "previous_interaction_id": (
            "must be unset: this server does not go on from an earlier interaction; send its video in input; got 'x'"
        ),
        "store": "must be true or unset with background; got False",
        "generation_config.video_config.task": "must be one of text_to_video, image_to_video, edit, extend; got 'upscale'",
        "response_format.type": "must be one of video; got 'text'",
        "response_format.gcs_uri": "must be unset: this server does not write to Google Cloud Storage; got 'gs://a'",
        "response_format.duration": "must be seconds, as 4s; got '4'",
        "model": "is required; got none",
        "generation_config.seed": "must be a whole number from 0 to 18446744073709551615; got -1",
        "response_format.resolution": "must be one of 360p, 480p, 540p, 720p, 768p, 1080p, 2k, 4k; got '9p'",
        "response_format.aspect_ratio": "must be width:height, as 16:9; got 'x'",
        "service_tier": "must be one of priority, standard, default, flex; got 'gold'",
        "input": "must hold at least 1 character that is not white space; got ''",
    }


@pytest.mark.parametrize(
    ("changes", "field", "problem"),
    [
        ({"input": None}, "input", "is required; got none"),
        ({"input": 5}, "input", "must be a list of at most 64 objects; got 5"),
        ({"input": ["x"]}, "input", "must be a list of at most 64 objects; got a list of 1"),
        ({"input": [TEXT] * 65}, "input", "must be a list of at most 64 objects; got a list of 65"),
        ({"input": [TEXT, IMAGE, IMAGE]}, "input[2].type", "must be text: this server takes one image or video"),
        ({"input": [TEXT, {"type": "image", "uri": "gs://a/b"}]}, "input[1].uri", "must be unset: this server fetches nothing"),
        ({"input": [TEXT, {"type": "image"}]}, "input[1].data", "is required; got none"),
        ({"input": [TEXT, {"type": "audio"}]}, "input[1].type", "must be one of text, image, video; got 'audio'"),
        ({"input": [TEXT, {}]}, "input[1].type", "must be one of text, image, video; got none"),
        ({"input": [TEXT, VIDEO | {"type": "image"}]}, "input[1].data", "must be one of PNG, JPEG, WEBP; got 12 bytes"),
        ({"input": [{"type": "model_output", "content": [TEXT]}]}, "input[0].type", "must be one of user_input; got 'model_output'"),
        ({"input": [{"role": "model", "content": [TEXT]}]}, "input[0].role", "must be one of user; got 'model'"),
        ({"model": "unknown"}, "model", "must be one of millrace-64; got 'unknown'"),
        ({"response_format": []}, "input", ""),
        ({"response_format": [{}, {}]}, "response_format", "must be a list of at most 1 objects; got a list of 2"),
        ({"response_format": {"duration": "601s"}}, "response_format.duration", "must be a number from more than 0 to 600; got 601"),
        (
            {"generation_config": {"video_config": {"task": "extend"}}},
            "generation_config.video_config.task",
            "must be text_to_video, or input must hold a part of type video; got 'extend'",
        ),
        ({"stream": True, "background": True}, "background", "must be false or unset with stream; got True"),
        ({"stream": True, "store": True}, "store", "must be false or unset with stream"),
        ({"stream": True, "response_format": {"delivery": "uri"}}, "response_format.delivery", "must be inline or unset with stream"),
        ({"store": False, "response_format": {"delivery": "uri"}}, "store", "must be true or unset with delivery uri"),
    ],
)
async def test_a_single_problem(google: Door, changes: dict[str, Any], field: str, problem: str) -> None:
    if changes == {"response_format": []}:
        await created(google, **changes)  # an empty list says nothing
        return
    problems = await refused(google, **changes)
    assert problems[field].startswith(problem)
    assert set(problems) <= {field, "input"}


async def test_one_is_fetched_whole(google: Door) -> None:
    interaction_id = (await created(google))["id"]
    answer = await google.client.get(f"/v1/interactions/{interaction_id}", params={"stream": "true"})
    assert (answer.status_code, answer.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")


# --- Streams.


def events(text: str) -> list[tuple[str, Any]]:
    """Each event's name, and its data as the client reads it."""
    found = []
    for block in text.strip().split("\n\n"):
        lines = [line for line in block.split("\n") if not line.startswith(":")]
        if lines:
            [name, data] = [line.partition(": ")[2] for line in lines]
            found.append((name, data if data == "[DONE]" else json.loads(data)))
    return found


async def test_a_stream_has_the_video_while_it_is_made(google: Door) -> None:
    answer = await google.client.post("/v1beta/interactions", json=BASE | {"stream": True})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    got = events(answer.text)
    names = [name for name, _ in got]
    assert all(data["event_type"] == name for name, data in got[:-1])
    assert names == [
        "interaction.created",
        "step.start",
        *["step.delta"] * names.count("step.delta"),
        "step.stop",
        "interaction.completed",
        "done",
    ]
    interaction = got[0][1]["interaction"]
    assert (interaction["status"], interaction["model"], interaction["created"]) == ("in_progress", MODEL, "2023-11-14T22:13:20.000Z")
    assert got[-2][1]["interaction"] == interaction | {"status": "completed", "usage": {"frames": 48, "video_seconds": 2.0}}
    assert got[-1] == ("done", "[DONE]")
    deltas = [data["delta"] for name, data in got if name == "step.delta"]
    assert {(delta["type"], delta["mime_type"]) for delta in deltas} == {("video", "video/mp4")}
    media = b"".join(base64.b64decode(delta["data"]) for delta in deltas)
    assert frames_of(media) == 48
    assert google.jobs.submitted == []


def frames_of(media: bytes) -> int:
    """Pictures that a player finds."""
    with av.open(io.BytesIO(media), "r") as container:
        return len(list(container.decode(video=0)))


async def test_long_media_come_in_short_events(google: Door) -> None:
    media = bytes(range(256)) * 1000
    chunk = FrameChunk(0, 0, 1, 8, 8, Codec.FMP4_H264, (media,), np.zeros((1, 1, 1, 1), np.float32))
    got = events(StreamedInteraction("s", MODEL, 0.0, "r").encode(Frames(chunk)).decode())
    assert max(len(json.dumps(data)) for _, data in got) < 70_000
    assert b"".join(base64.b64decode(data["delta"]["data"]) for _, data in got) == media


async def test_a_stream_that_breaks_off_says_why(google: Door) -> None:
    [(name, data)] = events(StreamedInteraction("s", MODEL, 0.0, "r").failed(StageUnavailable("the decoder is away")).decode())
    assert (name, data["error"]) == ("error", {"code": "unavailable", "message": "the decoder is away"})
    [(_, data)] = events(StreamedInteraction("s", MODEL, 0.0, "r").failed(KeyError("secret")).decode())
    assert data["error"] == {"code": "internal", "message": "internal error; request id r"}


async def test_a_stream_needs_no_database_and_a_model_that_the_key_is_for() -> None:
    async with core() as made, door(GoogleRoom(services(made, None)), made, None) as found:
        answer = await found.client.post("/v1/interactions", json=BASE | {"stream": True})
        assert answer.text.endswith("event: done\ndata: [DONE]\n\n")
        answer = await found.client.post("/v1/interactions", json=BASE)
        assert (answer.status_code, answer.json()["error"]["status"]) == (501, "UNIMPLEMENTED")
        headers = {"authorization": "Bearer key-without-models"}
        answer = await found.client.post("/v1/interactions", json=BASE | {"stream": True}, headers=headers)
        assert (answer.status_code, answer.json()["error"]["status"]) == (403, "PERMISSION_DENIED")


async def test_a_stream_that_finds_no_place_is_refused() -> None:
    async with http_serving() as served:
        served.runner.drain()
        answer = await served.client.post("/v1/interactions", json=BASE | {"stream": True})
        assert (answer.status_code, answer.json()["error"]["status"]) == (503, "UNAVAILABLE")


async def test_a_stream_is_no_longer_than_the_credential_allows(google: Door) -> None:
    short = {"authorization": "Bearer key-for-a-second"}
    answer = await google.client.post("/v1/interactions", json=BASE | {"stream": True}, headers=short)
    assert answer.status_code == 403
    assert answer.json()["error"]["message"] == "response_format.duration must be at most 1 with this credential; got 2"
