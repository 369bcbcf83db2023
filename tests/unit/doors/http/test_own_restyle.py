"""`GET /v1/live` that restyles a source: frames go in as messages of text and bytes, and come back; what is wrong with them is named."""

from __future__ import annotations

import re
from typing import Any

import pytest

from model_core.media import jpeg
from model_core.source import AHEAD_CHUNKS
from service.checks import Limits
from tests.fakes import FakeStages
from tests.http_served import http_serving
from tests.live_socket import Caller, live
from tests.pictures import moving

CONFIG = FakeStages().config
CHUNK = CONFIG.frames_per_chunk
FRAMES = 2 * CHUNK + 3
START = {"prompt": "a blue circle", "seed": 1, "codec": "raw", "strength": 0.5}


async def give(caller: Caller, first: int, frames: list[bytes], **more: Any) -> None:
    await caller.say(source_frames={"first_frame": first, "sizes": [len(frame) for frame in frames], **more})
    await caller.socket.send(b"".join(frames))


def pictures(frames: int = FRAMES) -> list[bytes]:
    return [jpeg(frame, 90) for frame in moving(frames)]


async def test_a_source_comes_back_restyled_and_the_session_ends_with_it() -> None:
    async with http_serving() as served, live(served.port) as caller:
        await caller.say(start=START)
        started = await caller.until("started")
        assert started["source"] == {"next_frame": 0, "until_frame": AHEAD_CHUNKS * CHUNK}
        shown = pictures()
        await give(caller, 0, shown[:5])
        await give(caller, 5, shown[5:])
        await caller.say(source_end={})
        assert await caller.rest() == 1000
        assert len(caller.frames) == FRAMES
        taken = [event for event in caller.events if event["event"] == "source_taken"]
        assert taken[0]["until_frame"] == (AHEAD_CHUNKS + 1) * CHUNK
        assert caller.events[-1]["reason"] == "completed"


async def test_frames_in_the_wrong_order_are_dropped_and_named() -> None:
    async with http_serving() as served, live(served.port) as caller:
        await caller.say(start=START)
        await caller.until("started")
        await give(caller, 4, [moving(1)[0].tobytes()], codec="raw")
        dropped = await caller.until("source_dropped")
        assert dropped == {"event": "source_dropped", "first_frame": 4, "frames": 1, "reason": "gap", "next_frame": 0}


async def test_a_session_is_gone_on_with_where_its_source_is_sent_again() -> None:
    shown = pictures(4 * CHUNK)
    async with http_serving() as served:
        async with live(served.port) as caller:
            await caller.say(start=START)
            token = (await caller.until("started"))["resume_token"]
            await give(caller, 0, shown[: 2 * CHUNK])
            await caller.until("frames")
        async with live(served.port) as caller:
            await caller.say(start={"resume": {"token": token, "next_frame": CHUNK}})
            again = (await caller.until("started"))["source"]["next_frame"]
            assert again <= CHUNK
            await give(caller, again, shown[again:])
            await caller.say(source_end={})
            assert await caller.rest() == 1000
            assert len(caller.frames) == 3 * CHUNK


WRONG = {
    "no strength": (
        {"strength": None},
        {"first_frame": 0, "sizes": [3]},
        b"abc",
        "source_frames: must come only where start.strength",
    ),
    "other sizes": ({}, {"first_frame": 0, "sizes": [3, 4]}, b"abc", "source_frames.sizes: must be as many bytes .* got 7 for 3"),
    "no sizes": ({}, {"first_frame": 0, "sizes": []}, b"abc", "source_frames.sizes: "),
    "text": ({}, {"first_frame": 0, "sizes": [3]}, "abc", "message: must be a binary one after source_frames; got text"),
    "no picture": ({}, {"first_frame": 0, "sizes": [3]}, b"abc", "must be a JPEG picture; got 3 bytes"),
    "too large": ({}, {"first_frame": 0, "sizes": [80_000]}, b"a" * 80_000, "message: must have at most 73728 bytes; got "),
}


@pytest.mark.parametrize(("start", "told", "data", "sentence"), WRONG.values(), ids=WRONG)
async def test_what_is_wrong_with_a_source_is_named(start: dict[str, Any], told: dict[str, Any], data: str | bytes, sentence: str) -> None:
    async with http_serving(limits=Limits(max_source_bytes=4096)) as served, live(served.port) as caller:
        await caller.say(start={**START, **start})
        await caller.until("started")
        await caller.say(source_frames=told)
        await caller.socket.send(data)
        assert await caller.rest() == 4400
        violations = caller.events[-1]["error"]["violations"]
        assert re.search(sentence, "; ".join(f"{each['field']}: {each['description']}" for each in violations))
