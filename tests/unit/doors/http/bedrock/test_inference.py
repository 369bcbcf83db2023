"""Videos as the answer to the call that asked for them: whole, or as a stream of parts."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import av
import httpx
import pytest
from botocore.eventstream import EventStreamBuffer

from doors.http.bedrock.room import BedrockRoom
from model_core.presets import millrace_64
from tests.core import core
from tests.fakes import FakeDenoiser, FakeStages
from tests.unit.doors.http.bedrock.asked import ONE_SECOND, frames
from tests.unit.doors.http.fake_edge import Door, door, services
from tests.unit.doors.http.fake_jobs import FakeJobDesk

CONFIG = millrace_64()
WHOLE, STREAM = "/model/amazon.nova-reel-v1%3A1/invoke", "/model/amazon.nova-reel-v1%3A1/invoke-with-response-stream"


def messages(answer: httpx.Response) -> list[Any]:
    buffer = EventStreamBuffer()
    buffer.add_data(answer.content)
    return list(buffer)


async def test_a_video_comes_in_json_with_what_was_used(bedrock: Door) -> None:
    answer = await bedrock.client.post(WHOLE, json=ONE_SECOND)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    found = answer.json()
    assert frames(base64.b64decode(found["video"])) == CONFIG.fps
    assert found["seed"] == 42
    assert found["usage"] == {"videoSeconds": 1.0, "frames": CONFIG.fps, "width": 64, "height": 64, "fps": CONFIG.fps, "steps": 4}


async def test_a_caller_that_accepts_mp4_gets_the_file(bedrock: Door) -> None:
    answer = await bedrock.client.post(WHOLE, json=ONE_SECOND, headers={"accept": "video/mp4"})
    assert answer.headers["content-type"] == "video/mp4"
    assert frames(answer.content) == CONFIG.fps
    with av.open(io.BytesIO(answer.content), "r") as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (96, 64)


async def test_what_no_video_can_be_is_not_accepted(bedrock: Door) -> None:
    answer = await bedrock.client.post(WHOLE, json=ONE_SECOND, headers={"accept": "text/plain"})
    assert answer.status_code == 400
    assert answer.json()["message"] == "accept: must be application/json or video/mp4; got 'text/plain'"


async def test_the_parts_of_a_stream_make_one_video(bedrock: Door) -> None:
    answer = await bedrock.client.post(STREAM, json=ONE_SECOND)
    assert answer.headers["content-type"] == "application/vnd.amazon.eventstream"
    assert answer.headers["x-amzn-bedrock-content-type"] == "video/mp4"
    parts = [base64.b64decode(json.loads(message.payload)["bytes"]) for message in messages(answer)]
    assert len(parts) == 1 + CONFIG.fps // CONFIG.frames_per_chunk
    assert frames(b"".join(parts)) == CONFIG.fps
    assert bedrock.core.desk.statistics().live == 0


async def test_shots_of_one_stream_follow_each_other(bedrock: Door) -> None:
    """The prompt of the second shot is in force from its first frame on."""
    shots = [{"text": "a red circle"}, {"text": "a blue square"}]
    asked = {"taskType": "MULTI_SHOT_MANUAL", "multiShotManualParams": {"shots": shots}}
    answer = await bedrock.client.post(STREAM, json=asked)
    assert len(messages(answer)) == 1 + 12 * CONFIG.fps // CONFIG.frames_per_chunk
    prompts = [context.embedding.prompt for context in bedrock.core.stages.denoiser.contexts]
    assert prompts == ["a red circle", "a blue square"]
    assert bedrock.core.stages.denoiser.contexts[1].next_chunk == 6 * CONFIG.fps // CONFIG.frames_per_chunk


async def test_a_stream_that_fails_after_it_began_ends_with_an_exception(tmp_path: Path) -> None:
    stages = FakeStages(FakeDenoiser(CONFIG, fail_after=(1, 0, 0, 0)), attempts=3)
    async with core(stages) as made:
        jobs = FakeJobDesk(made.intake, tmp_path)
        async with door(BedrockRoom(services(made, jobs)), made, jobs) as found:
            answer = await found.client.post(STREAM, json=ONE_SECOND)
    assert answer.status_code == 200
    *parts, last = messages(answer)
    assert len(parts) == 2
    assert last.headers[":exception-type"] == "serviceUnavailableException"
    assert json.loads(last.payload)["message"]


@pytest.mark.parametrize("path", [WHOLE, STREAM])
async def test_bad_input_is_refused_before_anything_is_made(bedrock: Door, path: str) -> None:
    asked = {**ONE_SECOND, "videoGenerationConfig": {"durationSeconds": -1, "fps": 24}}
    answer = await bedrock.client.post(path, json=asked)
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (400, "ValidationException")
    assert answer.json()["message"].startswith("videoGenerationConfig.durationSeconds: must be a number from more than 0 to")
    assert bedrock.core.stages.denoiser.statistics().opened == 0


async def test_a_model_that_is_not_served_is_named(bedrock: Door) -> None:
    answer = await bedrock.client.post("/model/nobody.nothing-v1%3A0/invoke", json=ONE_SECOND)
    assert answer.json()["message"] == "modelId: must be one of millrace-64; got 'nobody.nothing-v1:0'"


async def test_a_model_may_be_named_by_its_arn(bedrock: Door) -> None:
    arn = "arn%3Aaws%3Abedrock%3Aus-east-1%3A%3Afoundation-model%2Famazon.nova-reel-v1%3A1"
    answer = await bedrock.client.post(f"/model/{arn}/invoke", json=ONE_SECOND)
    assert answer.status_code == 200


@pytest.mark.parametrize("path", [WHOLE, STREAM])
async def test_a_key_that_is_not_for_the_model_is_denied(bedrock: Door, path: str) -> None:
    answer = await bedrock.client.post(path, json=ONE_SECOND, headers={"authorization": "Bearer key-without-models"})
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (403, "AccessDeniedException")
    assert bedrock.core.stages.denoiser.statistics().opened == 0
