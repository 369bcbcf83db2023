"""Videos that are answered with at once, and a server without jobs."""

from __future__ import annotations

import io

import av

from tests.core import core
from tests.unit.doors.http.openai.served import Served, served


async def test_a_synchronous_video_is_the_mp4_at_the_size_that_was_asked_for(openai: Served) -> None:
    fields = {"prompt": "a red circle", "num_frames": "12", "size": "128x72", "seed": "7"}
    answer = await openai.client.post("/v1/videos/sync", files={name: (None, value) for name, value in fields.items()})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "video/mp4")
    told = {name: answer.headers[name] for name in ("x-model", "x-headrace-seed", "x-headrace-frames", "x-headrace-rendered")}
    assert told == {"x-model": "millrace-64", "x-headrace-seed": "7", "x-headrace-frames": "12", "x-headrace-rendered": "64x64"}
    assert float(answer.headers["x-inference-time-s"]) > 0
    with av.open(io.BytesIO(answer.content), "r") as container:
        frames = list(container.decode(video=0))
    assert (len(frames), frames[0].width, frames[0].height) == (12, 128, 72)
    assert openai.jobs.submitted == []


async def test_a_wrong_field_of_a_synchronous_video_is_refused_as_a_jobs_is(openai: Served) -> None:
    answer = await openai.client.post("/v1/videos/sync", json={"prompt": "a red circle", "seconds": 99, "fps": 1})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("fps: must be 24")
    assert "; seconds: must be a number from more than 0 to 60; got 99" in answer.json()["error"]["message"]


async def test_a_server_without_a_database_says_so_once_and_makes_synchronous_videos() -> None:
    async with core() as made, served(made, None) as client:
        for method, path in (("GET", ""), ("POST", ""), ("GET", "/video_1"), ("DELETE", "/video_1"), ("GET", "/video_1/content")):
            answer = await client.request(method, f"/v1/videos{path}", json={"prompt": "a red circle"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (501, "not_served")
            assert answer.headers["x-should-retry"] == "false"
        answer = await client.post("/v1/videos/sync", json={"prompt": "a red circle", "num_frames": 3})
        assert answer.status_code == 200
