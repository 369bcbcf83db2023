"""What Nova Reel and Luma are asked for, in plain values."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from doors.http.bedrock import inputs
from model_core.errors import InvalidRequest
from service.checks import Problems
from service.jobs.job import Presentation

PNG = b"\x89PNG\r\n\x1a\n"
IMAGE = {"format": "png", "source": {"bytes": base64.b64encode(PNG).decode()}}
TEXT_VIDEO = {"taskType": "TEXT_VIDEO", "textToVideoParams": {"text": "a red circle"}}


async def read(members: dict[str, Any], path: str = "modelInput.") -> inputs.Asked:
    problems = Problems()
    asked = await inputs.read("amazon.nova-reel-v1:1", members, path, problems)
    problems.check()
    return asked


async def refused(members: dict[str, Any]) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        await read(members)
    return [f"{violation.field}: {violation.description}" for violation in caught.value.violations]


async def test_a_text_alone_has_nova_reels_defaults() -> None:
    asked = await read(TEXT_VIDEO)
    assert (asked.request.prompt, asked.request.seconds, asked.request.seed) == ("a red circle", 6.0, 42)
    assert asked.request.model == "amazon.nova-reel-v1:1"
    assert asked.presentation == Presentation(1280, 720)
    assert asked.request.footage is None


async def test_the_request_of_awss_own_example_is_read_as_it_stands() -> None:
    config = {"durationSeconds": 6, "fps": 24, "dimension": "1280x720", "seed": 7}
    asked = await read({**TEXT_VIDEO, "videoGenerationConfig": config})
    assert (asked.request.seconds, asked.request.seed) == (6.0, 7)


async def test_an_image_is_footage_and_is_named_where_it_stands() -> None:
    asked = await read({"taskType": "TEXT_VIDEO", "textToVideoParams": {"text": "x", "images": [IMAGE]}})
    assert asked.request.footage == ("image", PNG)
    assert asked.names["image"] == "modelInput.textToVideoParams.images[0].source.bytes"


async def test_an_automated_video_has_one_prompt_and_twelve_seconds() -> None:
    asked = await read({"taskType": "MULTI_SHOT_AUTOMATED", "multiShotAutomatedParams": {"text": "a story"}})
    assert (asked.request.prompt, asked.request.seconds, asked.request.later_prompts) == ("a story", 12.0, ())


async def test_shots_are_prompts_of_six_seconds_each_and_the_first_may_have_an_image() -> None:
    shots = [{"text": "one", "image": IMAGE}, {"text": "two"}, {"text": "three"}]
    asked = await read({"taskType": "MULTI_SHOT_MANUAL", "multiShotManualParams": {"shots": shots}})
    assert (asked.request.prompt, asked.request.seconds) == ("one", 18.0)
    assert asked.request.later_prompts == ((6.0, "two"), (12.0, "three"))
    assert asked.request.footage == ("image", PNG)
    assert asked.names["later_prompts[1]"] == "modelInput.multiShotManualParams.shots[2].text"


async def test_lumas_request_is_read_by_its_shape() -> None:
    asked = await read({"prompt": "a red circle", "aspect_ratio": "9:16", "duration": "9s", "resolution": "540p", "loop": False}, "")
    assert (asked.request.prompt, asked.request.seconds, asked.request.seed) == ("a red circle", 9.0, None)
    assert asked.presentation == Presentation(540, 960)
    assert asked.names["prompt"] == "prompt"


@pytest.mark.parametrize(
    ("shape", "size"),
    [("16:9", (1280, 720)), ("1:1", (720, 720)), ("4:3", (960, 720)), ("3:4", (720, 960)), ("21:9", (1680, 720)), ("9:21", (720, 1680))],
)
async def test_lumas_shapes_have_even_sides(shape: str, size: tuple[int, int]) -> None:
    assert (await read({"prompt": "x", "aspect_ratio": shape})).presentation == Presentation(*size)


async def test_lumas_first_keyframe_is_footage() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PNG).decode()}
    asked = await read({"prompt": "x", "keyframes": {"frame0": {"type": "image", "source": source}}})
    assert asked.request.footage == ("image", PNG)
    assert asked.names["image"] == "modelInput.keyframes.frame0.source.data"


CONFIG = "modelInput.videoGenerationConfig"


@pytest.mark.parametrize(
    ("members", "problems"),
    [
        ({}, ["modelInput.taskType: must be one of TEXT_VIDEO, MULTI_SHOT_AUTOMATED, MULTI_SHOT_MANUAL; got none"]),
        ({"taskType": "VIDEO"}, ["modelInput.taskType: must be one of TEXT_VIDEO, MULTI_SHOT_AUTOMATED, MULTI_SHOT_MANUAL; got 'VIDEO'"]),
        (
            {**TEXT_VIDEO, "videoGenerationConfig": {"fps": 30, "seed": -1, "dimension": "big", "quality": 1}},
            [
                f"{CONFIG}.dimension: must be a width and a height in pixels, such as 1280x720; got 'big'",
                f"{CONFIG}.seed: must be a whole number from 0 to 2147483646; got -1",
                f"{CONFIG}.fps: must be a whole number from 24 to 24; got 30",
                f"{CONFIG}.quality: must be unset: it means nothing here",
            ],
        ),
        (
            {"taskType": "TEXT_VIDEO", "textToVideoParams": {"text": "x", "images": [{"source": {"s3Location": {"uri": "s3://b/k"}}}]}},
            [
                ("modelInput.textToVideoParams.images[0].source.s3Location: must be unset: this server reads no buckets; send bytes; "
                 "got an object of 1"),
            ],
        ),
        (
            {"taskType": "TEXT_VIDEO", "textToVideoParams": {"text": "x", "images": [{"format": "png", "source": {"bytes": "not!"}}]}},
            ["modelInput.textToVideoParams.images[0].source.bytes: must be base64; got 'not!'"],
        ),
        (
            {"taskType": "MULTI_SHOT_MANUAL", "multiShotManualParams": {"shots": []}},
            ["modelInput.multiShotManualParams.shots: must be a list of 1 to 20 objects; got a list of 0"],
        ),
        (
            {
                "taskType": "MULTI_SHOT_MANUAL", "multiShotManualParams": {"shots": [{"text": "a"}, {"text": "b", "image": {}}]},
                "videoGenerationConfig": {"durationSeconds": 6},
            },
            [
                ("modelInput.multiShotManualParams.shots[1].image: must be unset: only the first shot can begin with an image here; "
                 "got an object of 0"),
                f"{CONFIG}.durationSeconds: must be unset, or 6 seconds a shot: 12; got 6",
            ],
        ),
        (
            {"prompt": "x", "duration": "long", "loop": True, "keyframes": {"frame1": {}}},
            [
                "modelInput.duration: must be whole seconds, such as 5s; got 'long'",
                "modelInput.loop: must be false: this server makes no loops; got True",
                ("modelInput.keyframes.frame1: must be unset: a video can begin with an image here, and not end with one; "
                 "got an object of 0"),
            ],
        ),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named_with_its_limit_and_its_value(members: dict[str, Any], problems: list[str]) -> None:
    assert await refused(members) == problems
