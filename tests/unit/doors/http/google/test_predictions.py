"""Long-running predictions of Vertex AI and of the Gemini API of generation 2, as Google's client asks for them and reads them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from doors.http.contents import MOST_INLINE_BYTES
from doors.http.google.room import GoogleRoom
from model_core.errors import CapacityExceeded, StageUnavailable
from service.identity.principal import Forbidden, QuotaExceeded
from service.jobs.job import IdempotencyConflict, JobError, Presentation
from tests.core import core
from tests.pictures import encoded, picture
from tests.unit.doors.http.fake_edge import BASE_URL, KEY, OTHER_KEY, PRINCIPALS, Door, door, services

PNG = encoded(picture(8, 8))
MP4 = b"0000ftypisom"
IMAGE, VIDEO = base64.b64encode(PNG).decode(), base64.b64encode(MP4).decode()
MODEL = "veo-3.1-generate-001"
PROJECT = "projects/p1/locations/us-central1/"
PLAIN, WITH_PROJECT = f"publishers/google/models/{MODEL}", f"{PROJECT}publishers/google/models/{MODEL}"
GEMINI = f"models/{MODEL}"


def body(instance: dict[str, Any] | None = None, **parameters: Any) -> dict[str, Any]:
    return {"instances": [{"prompt": "a red circle"} | (instance or {})], "parameters": parameters}


async def predicted(google: Door, request: dict[str, Any] | None = None, path: str = f"v1beta1/{PLAIN}") -> str:
    answer = await google.client.post(f"/{path}:predictLongRunning", json=request or body(durationSeconds=2))
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"name"}
    name: str = answer.json()["name"]
    return name


async def fetched(google: Door, name: str) -> dict[str, Any]:
    """As Vertex's client polls: at what stands before the operation."""
    path = name.rpartition("/operations/")[0]
    answer = await google.client.post(f"/v1beta1/{path}:fetchPredictOperation", json={"operationName": name})
    assert answer.status_code == 200, answer.text
    operation: dict[str, Any] = answer.json()
    assert operation["name"] == name
    return operation


async def refused(google: Door, request: Any, path: str = f"v1beta1/{PLAIN}") -> dict[str, str]:
    headers = {"content-type": "application/json"}
    answer = await google.client.post(f"/{path}:predictLongRunning", content=json.dumps(request), headers=headers)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    [details] = error["details"]
    fields = {violation["field"]: violation["description"] for violation in details["fieldViolations"]}
    assert all(f"{field}: {description}" in error["message"] for field, description in fields.items())
    return fields


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
@pytest.mark.parametrize("path", [PLAIN, WITH_PROJECT])
async def test_an_operation_of_vertex_begins_with_the_path_of_the_model(google: Door, version: str, path: str) -> None:
    name = await predicted(google, path=f"{version}/{path}")
    assert name == f"{path}/operations/{google.jobs.only.id}"
    assert await fetched(google, name) == {"name": name, "done": False, "metadata": {"state": "QUEUED", "progressPercent": 0}}
    answer = await google.client.post(f"/{version}/{name}:fetchPredictOperation", json={"operationName": name})
    assert answer.json()["name"] == name


async def test_the_video_comes_with_vertexs_operation(google: Door) -> None:
    name = await predicted(google)
    google.jobs.start(google.jobs.only.id, frames_done=12)
    assert (await fetched(google, name))["metadata"] == {"state": "RUNNING", "progressPercent": 25}
    google.jobs.complete(google.jobs.only.id, b"an MP4")
    operation = await fetched(google, name)
    [video] = operation["response"]["videos"]
    assert operation["done"] is True
    assert (base64.b64decode(video["bytesBase64Encoded"]), video["mimeType"]) == (b"an MP4", "video/mp4")
    assert operation["response"]["raiMediaFilteredCount"] == 0
    assert operation["metadata"]["usage"] == {
        "model": "millrace-64", "frames": 48, "videoSeconds": 2.0, "steps": 4, "fileWidth": 1280, "fileHeight": 720,
    }  # fmt: skip


async def test_a_store_serves_its_files_itself(google: Door) -> None:
    name = await predicted(google)
    google.jobs.complete(google.jobs.only.id)
    google.jobs.links = "https://store.test"
    [video] = (await fetched(google, name))["response"]["videos"]
    assert video["gcsUri"].startswith("https://store.test/")


async def test_a_video_too_large_for_an_answer_comes_as_a_link(google: Door) -> None:
    name = await predicted(google)
    google.jobs.complete(google.jobs.only.id, bytes(MOST_INLINE_BYTES + 1))
    [video] = (await fetched(google, name))["response"]["videos"]
    assert set(video) == {"gcsUri", "mimeType"}
    assert video["gcsUri"].startswith(f"{BASE_URL}/files/")


async def test_gemini_polls_with_get_and_fetches_the_file_with_its_key(google: Door) -> None:
    name = await predicted(google, path=f"v1beta/{GEMINI}")
    job_id = google.jobs.only.id
    assert name == f"{GEMINI}/operations/{job_id}"
    answer = await google.client.get(f"/v1beta/{name}")
    assert answer.json()["done"] is False
    assert "response" not in answer.json()
    google.jobs.complete(job_id, b"an MP4")
    operation = (await google.client.get(f"/v1beta/{name}")).json()
    [sample] = operation["response"]["generateVideoResponse"]["generatedSamples"]
    uri = sample["video"]["uri"]
    assert (operation["done"], uri) == (True, f"{BASE_URL}/v1beta/files/{job_id}:download?alt=media")
    assert (await google.client.get(uri)).content == b"an MP4"
    # As the client sends it where the URL that it was told has no TLS.
    assert (await google.client.get(f"/v1beta/files/{uri}:download?alt=media")).content == b"an MP4"
    assert (await google.client.get(f"/v1beta/files/{job_id}:download?alt=media", headers={"range": "bytes=0-1"})).content == b"an"


async def test_a_file_says_what_it_is(google: Door) -> None:
    await predicted(google)
    job_id = google.jobs.only.id
    assert (await google.client.get(f"/v1beta/files/{job_id}")).status_code == 400
    google.jobs.complete(job_id, b"an MP4")
    file = (await google.client.get(f"/v1beta/files/{job_id}")).json()
    assert (file["name"], file["state"], file["sizeBytes"], file["mimeType"]) == (f"files/{job_id}", "ACTIVE", "6", "video/mp4")
    assert (await google.client.get(file["downloadUri"])).content == b"an MP4"


@pytest.mark.parametrize("name", ["", "a/b", "..", "A", "files/", "x:upload"])
async def test_what_is_no_file_is_not_found(google: Door, name: str) -> None:
    assert (await google.client.get(f"/v1beta/files/{name}")).status_code == 404


@pytest.mark.parametrize(("code", "number"), [("invalid", 3), ("unavailable", 14), ("too_large", 11), ("destination", 9), ("new", 13)])
async def test_a_failed_operation_has_a_status(google: Door, code: str, number: int) -> None:
    name = await predicted(google)
    google.jobs.fail(google.jobs.only.id, JobError(code, "it did not work"))
    operation = await fetched(google, name)
    assert (operation["done"], operation["error"]) == (True, {"code": number, "message": "it did not work"})


async def test_a_cancelled_operation_is_over(google: Door) -> None:
    name = await predicted(google)
    await google.jobs.cancel(PRINCIPALS[KEY], google.jobs.only.id)
    operation = await fetched(google, name)
    assert (operation["done"], operation["error"]["code"]) == (True, 1)


async def test_what_is_gone_or_anothers_is_not_found(google: Door) -> None:
    name = await predicted(google, path=f"v1beta/{GEMINI}")
    other = {"authorization": f"Bearer {OTHER_KEY}"}
    assert (await google.client.get(f"/v1beta/{name}", headers=other)).status_code == 404
    google.jobs.expire(google.jobs.only.id)
    answer = await google.client.get(f"/v1beta/{name}")
    assert (answer.status_code, answer.json()["error"]["status"]) == (404, "NOT_FOUND")
    for wrong in ("operations/unknown", "nothing", f"{PLAIN}/operations/../x", "\x00"):
        answer = await google.client.post(f"/v1beta1/{PLAIN}:fetchPredictOperation", json={"operationName": wrong})
        assert answer.status_code == 404
    answer = await google.client.post(f"/v1beta1/{PLAIN}:fetchPredictOperation", json={})
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "operationName: is required; got none")


async def test_all_parameters_are_read(google: Door) -> None:
    request = body(
        sampleCount=1, durationSeconds="4", aspectRatio="9:16", resolution="1080p", seed=7, fps=24, generateAudio=False,
        personGeneration="allow_adult", enhancePrompt=True, compressionQuality="optimized",
    ) | {"labels": {"team": "a"}}  # fmt: skip
    await predicted(google, request)
    [new] = google.jobs.submitted
    asked = new.request
    assert (new.door, asked.prompt, asked.model, asked.seconds, asked.seed) == ("google", "a red circle", MODEL, 4.0, 7)
    assert (new.presentation, new.labels, new.shown) == (Presentation(1080, 1920), {"team": "a"}, {"model": MODEL})


async def test_what_is_not_given_has_a_default(google: Door) -> None:
    await predicted(google, {"instances": [{"prompt": "a red circle"}]})
    [new] = google.jobs.submitted
    assert (new.request.seconds, new.request.seed, new.presentation) == (8.0, None, Presentation(1280, 720))


@pytest.mark.parametrize(
    ("instance", "footage"),
    [
        ({"image": {"bytesBase64Encoded": IMAGE, "mimeType": "image/png"}}, ("image", PNG)),
        ({"image": {"inlineData": {"data": IMAGE, "mimeType": "image/png"}}}, ("image", PNG)),
        ({"video": {"bytesBase64Encoded": VIDEO, "mimeType": "video/mp4"}}, ("video", MP4)),
        ({"video": {"encodedVideo": VIDEO, "encoding": "video/mp4"}}, ("video", MP4)),
        ({"image": None}, None),
    ],
)
async def test_an_image_or_a_video_stands_in_the_instance(
    google: Door, instance: dict[str, Any], footage: tuple[str, bytes] | None
) -> None:
    await predicted(google, body(instance, durationSeconds=2))
    assert google.jobs.submitted[0].request.footage == footage


async def test_everything_wrong_is_named_as_google_names_it(google: Door) -> None:
    request = body(
        {"prompt": "", "lastFrame": {"gcsUri": "gs://a/b"}, "image": {"gcsUri": "gs://a/b"}},
        sampleCount=2, durationSeconds=-1, aspectRatio="wide", resolution="9p", seed="x", fps=30, generateAudio=True, storageUri="gs://a",
    )  # fmt: skip
    assert await refused(google, request) == {
        "instances[0].lastFrame": "must be unset: this server takes one image or video, for the beginning; got an object of 1",
        "parameters.storageUri": (
            "must be unset: this server does not write to Google Cloud Storage; the video comes with the operation; got 'gs://a'"
        ),
        "parameters.sampleCount": "must be a whole number from 1 to 1; got 2",
        "parameters.generateAudio": "must be false or unset: this server makes no sound; got True",
        "parameters.fps": "must be 24 for model millrace-64; got 30",
        "instances[0].image.gcsUri": (
            "must be unset: this server fetches nothing from elsewhere; send it in bytesBase64Encoded; got 'gs://a/b'"
        ),
        "parameters.seed": "must be a whole number from 0 to 18446744073709551615; got 'x'",
        "parameters.resolution": "must be one of 360p, 480p, 540p, 720p, 768p, 1080p, 2k, 4k; got '9p'",
        "parameters.aspectRatio": "must be width:height, as 16:9; got 'wide'",
        "instances[0].prompt": "must hold at least 1 character that is not white space; got ''",
        "parameters.durationSeconds": "must be a number from more than 0 to 600; got -1",
    }
    assert google.jobs.submitted == []


@pytest.mark.parametrize(
    ("request_", "field", "problem"),
    [
        ({}, "instances", "must be a list of one object; got none"),
        ({"instances": []}, "instances", "must be a list of one object; got a list of 0"),
        ({"instances": [{}, {}]}, "instances", "must be a list of at most 1 objects; got a list of 2"),
        ({"instances": "x"}, "instances", "must be a list of at most 1 objects; got 'x'"),
        (body({"image": {"mimeType": "image/png"}}), "instances[0].image", "must hold bytesBase64Encoded; got an object of 1"),
        (body({"image": "x"}), "instances[0].image", "must be an object; got 'x'"),
        (
            body({"image": {"bytesBase64Encoded": VIDEO}}),
            "instances[0].image.bytesBase64Encoded",
            "must be one of PNG, JPEG, WEBP; got 12 bytes",
        ),
        (body({"image": {"bytesBase64Encoded": "$"}}), "instances[0].image.bytesBase64Encoded", "must be base64; got '$'"),
        (body({"prompt": "\udc00"}), "instances[0].prompt", "must be text in Unicode"),
        (body() | {"labels": {"a": 1}}, "labels", "must be an object of at most 64 members"),
        (body(negativePrompt="blur"), "parameters.negativePrompt", "must be unset without guidance; got 'blur'"),
    ],
)
async def test_a_single_problem(google: Door, request_: dict[str, Any], field: str, problem: str) -> None:
    problems = await refused(google, request_)
    assert list(problems) == [field]
    assert problems[field].startswith(problem)


async def test_a_model_that_is_not_served_is_named(google: Door) -> None:
    problems = await refused(google, body(), "v1beta1/publishers/google/models/unknown")
    assert problems == {"model": "must be one of millrace-64; got 'unknown'"}


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (Forbidden("not for you"), 403, "PERMISSION_DENIED"),
        (QuotaExceeded("too many", limit="jobs", allowed=1, used=1, retry_after_s=2.5), 429, "RESOURCE_EXHAUSTED"),
        (CapacityExceeded("full", 0.1), 429, "RESOURCE_EXHAUSTED"),
        (StageUnavailable("away"), 503, "UNAVAILABLE"),
        (IdempotencyConflict("used"), 400, "FAILED_PRECONDITION"),
        (KeyError("secret"), 500, "INTERNAL"),
    ],
)
async def test_failures_have_googles_shape(google: Door, error: Exception, status: int, word: str) -> None:
    google.jobs.error = error
    answer = await google.client.post(f"/v1beta1/{PLAIN}:predictLongRunning", json=body())
    shown = answer.json()["error"]
    assert (answer.status_code, shown["code"], shown["status"]) == (status, status, word)
    assert "secret" not in answer.text
    if (after := getattr(error, "retry_after_s", None)) is not None:
        assert shown["details"] == [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{after:.3f}s"}]
        assert int(answer.headers["retry-after"]) >= 1


async def test_a_wrong_key_is_refused(google: Door) -> None:
    headers = {"authorization": "Bearer nobody"}
    answer = await google.client.post(f"/v1beta1/{PLAIN}:predictLongRunning", json=body(), headers=headers)
    assert (answer.status_code, answer.json()["error"]["status"]) == (401, "UNAUTHENTICATED")


async def test_without_a_database_there_are_no_operations() -> None:
    async with core() as made, door(GoogleRoom(services(made, None)), made, None) as found:
        answer = await found.client.post(f"/v1beta1/{PLAIN}:predictLongRunning", json=body())
        assert (answer.status_code, answer.json()["error"]["status"]) == (501, "UNIMPLEMENTED")
