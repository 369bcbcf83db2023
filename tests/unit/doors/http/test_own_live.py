"""`GET /v1/live` over a real socket: the session of gRPC's `Live`, steered and watched by a page."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import os
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest

from doors.http.own.live import _CONTROLS, Lives
from model_core.errors import CapacityExceeded
from service.checks import Limits
from tests.documents import ROOT, named_by
from tests.fakes import FakeDenoiser, FakeStages, eventually
from tests.http_served import OPTIONS, SEED, http_serving
from tests.live_socket import Caller, frame, live, request
from tests.unit.doors.test_grpc_service import expected_frames

PROMPT, OTHER = "a red circle", "a blue square"
CONFIG = FakeStages().config
FPS, PER_CHUNK = CONFIG.fps, CONFIG.frames_per_chunk


def gated(gate: asyncio.Semaphore) -> FakeStages:
    return FakeStages(FakeDenoiser(CONFIG, gate=gate))


async def begun(caller: Caller, **start: Any) -> dict[str, Any]:
    """Start a session. Returns the event `started`."""
    await caller.say(start={"prompt": PROMPT, **start})
    return await caller.until("started")


# -- A session.


async def test_the_lines_of_the_page_run(tmp_path: Path) -> None:
    (block,) = named_by("tests/unit/doors/http/test_own_live.py::test_the_lines_of_the_page_run", [ROOT / "docs" / "doors" / "own.md"])
    async with http_serving() as served:
        script = block.text.replace("127.0.0.1:8080", f"127.0.0.1:{served.port}")
        plain = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, cwd=tmp_path, env=plain)
        async with asyncio.timeout(60):
            assert await process.wait() == 0
    with av.open(str(tmp_path / "live.mp4"), "r") as container:
        assert len(list(container.decode(video=0))) == 2 * FPS


async def test_a_whole_session_has_the_frames_of_every_door() -> None:
    async with http_serving() as served:
        async with live(served.port) as caller:
            assert caller.socket.subprotocol == "headrace.v1"
            started = await begun(caller, seconds=1.5, codec="raw", max_lead_seconds=30)
            assert await caller.rest() == 1000
        assert caller.frames == await expected_frames(36, seed=SEED)
        assert caller.names() == ["started", *["frames"] * len(caller.names()[1:-1]), "ended"]
        assert (started["model"], started["seed"], started["codec"]) == (CONFIG.name, SEED, "raw")
        assert started["resume_token"]
        assert (caller.events[-1]["reason"], caller.events[-1]["usage"]["frames"]) == ("completed", 36)
        frames = [event for event in caller.events if event["event"] == "frames"]
        assert sum(event["frame_count"] for event in frames) == 36
        assert "data" not in frames[0]
        assert served.metric("calls_total", rpc="own.live", outcome="completed") == 1
        await served.nothing_left()


async def test_fragments_play_when_nothing_else_is_asked_for() -> None:
    async with http_serving() as served, live(served.port) as caller:
        started = await begun(caller, seconds=1.0, max_lead_seconds=30)
        await caller.rest()
        data = base64.b64decode(started["codec_header"]) + b"".join(caller.frames)
        with av.open(io.BytesIO(data), "r") as container:
            assert len(list(container.decode(video=0))) == FPS


async def test_without_a_subprotocol_it_speaks_all_the_same() -> None:
    async with http_serving() as served, live(served.port, offered=()) as caller:
        await begun(caller, seconds=0.5, codec="jpeg", max_lead_seconds=30)
        assert await caller.rest() == 1000
        assert len(caller.frames) == FPS // 2
        assert all(item.startswith(b"\xff\xd8") for item in caller.frames)


async def test_a_prompt_is_changed_and_one_that_is_none_is_refused() -> None:
    gate = asyncio.Semaphore(1)
    async with http_serving(gated(gate)) as served, live(served.port) as caller:
        await begun(caller, codec="raw", max_lead_seconds=30)
        await caller.until("frames")
        await caller.say(prompt={"prompt": " ", "request_id": 1})
        refused = await caller.until("prompt_refused")
        assert (refused["request_id"], refused["violations"][0]["field"]) == (1, "prompt")
        await caller.say(prompt={"prompt": OTHER, "request_id": 2})
        gate.release()
        applied = await caller.until("prompt_applied")
        assert (applied["prompt"], applied["request_id"]) == (OTHER, 2)
        gate.release()
        frames = await caller.until("frames")
        assert frames["first_frame"] == applied["first_frame"]
        await caller.say(stop={})
        assert await caller.rest() == 1000
        assert caller.events[-1]["reason"] == "stopped"
        await served.nothing_left()


async def test_pause_resume_and_stop() -> None:
    async with http_serving(FakeStages(FakeDenoiser(CONFIG, delay_s=0.01))) as served, live(served.port) as caller:
        await begun(caller)
        await caller.until("frames")
        await caller.say(pause={})
        await caller.until("paused")
        await caller.say(resume={})
        await caller.until("resumed")
        await caller.until("frames")
        await caller.say(stop={})
        assert await caller.rest() == 1000
        assert caller.events[-1]["reason"] == "stopped"
        assert served.metric("calls_total", rpc="own.live", outcome="stopped") == 1
        await served.nothing_left()


async def test_a_session_goes_on_after_a_cut_with_the_very_next_frame() -> None:
    stages = FakeStages(FakeDenoiser(CONFIG, delay_s=0.02), keep_chunks=6)
    chunks = 8
    async with http_serving(stages) as served:
        async with live(served.port) as caller:
            started = await begun(caller, seconds=chunks * PER_CHUNK / FPS, codec="raw", max_lead_seconds=30)
            for _ in range(3):
                await caller.until("frames")
            await caller.say(prompt={"prompt": OTHER, "request_id": 9})
            applied = await caller.until("prompt_applied")
            await caller.until("frames")
            caller.socket.transport.abort()
        await served.nothing_left()
        got = len(caller.frames)
        async with live(served.port) as again:
            resume = {"token": started["resume_token"], "next_frame": got - 3, "acknowledged": [applied]}
            await again.say(start={"resume": resume, "max_lead_seconds": 30})
            told = await again.until("started")
            assert told["resume_token"] == started["resume_token"]
            assert (await again.until("frames"))["first_frame"] == got - 3
            assert await again.rest() == 1000
        async with live(served.port) as whole:
            await begun(whole, seconds=chunks * PER_CHUNK / FPS, codec="raw", max_lead_seconds=30)
            while len(whole.frames) < applied["first_frame"]:
                await whole.next()
        assert caller.frames[: applied["first_frame"]] == whole.frames[: applied["first_frame"]]
        assert caller.frames[got - 3 :] == again.frames[:3]
        assert len(caller.frames[: got - 3] + again.frames) == chunks * PER_CHUNK
        assert again.events[-1]["usage"]["frames"] == chunks * PER_CHUNK
        assert served.metric("resume_seconds_count") == 1


async def test_a_cut_without_a_change_leaves_no_trace_in_the_frames() -> None:
    stages = FakeStages(FakeDenoiser(CONFIG, delay_s=0.02), keep_chunks=6)
    async with http_serving(stages) as served:
        async with live(served.port) as caller:
            token = (await begun(caller, seconds=2.0, codec="raw", max_lead_seconds=30))["resume_token"]
            for _ in range(3):
                await caller.until("frames")
        await served.nothing_left()
        async with live(served.port) as again:
            await again.say(start={"resume": {"token": token, "next_frame": len(caller.frames)}})
            assert await again.rest() == 1000
        assert caller.frames + again.frames == await expected_frames(2 * FPS, seed=SEED)


async def test_a_token_that_is_nobodys_or_another_tenants_is_not_found() -> None:
    async with http_serving() as served:
        async with live(served.port, headers=[("x-headrace-tenant", "studio")]) as caller:
            token = (await begun(caller))["resume_token"]
            await caller.until("frames")
            for theirs in ("t", token):
                async with live(served.port, headers=[("x-headrace-tenant", "other")]) as other:
                    await other.say(start={"resume": {"token": theirs}})
                    assert await other.rest() == 4404
                    assert other.events[-1]["error"]["code"] == "not_found"
        await served.nothing_left()


# -- What is wrong with messages.

WRONG_START: list[tuple[Any, list[tuple[str, str]]]] = [
    ("{", [("message", "must be JSON; ")]),
    ("[]", [("message", "must be a JSON object")]),
    (b"{}", [("message", "must be text that holds JSON; got a binary one of 2 bytes")]),
    ({}, [("message", f"must hold exactly one of start, {', '.join(_CONTROLS)}; got none")]),
    ({"start": {}, "stop": {}}, [("message", f"must hold exactly one of start, {', '.join(_CONTROLS)}; got start, stop")]),
    ({"pause": {}}, [("start", "must be the first message; got pause")]),
    ({"start": "now"}, [("start", "must be an object; got 'now'")]),
    ({"start": {}}, [("start.prompt", "is required; got none")]),
    ({"start": {"prompt": PROMPT, "colour": 1}}, [("start.colour", "is no field of this request; got 1")]),
    ({"start": {"prompt": " ", "seconds": -1}}, [("start.seconds", "must be "), ("start.prompt", "must hold at least 1 character")]),
    ({"start": {"prompt": PROMPT, "max_lead_seconds": 31}}, [("start.max_lead_seconds", "must be a number from 0 to 30; got 31")]),
    ({"start": {"prompt": PROMPT, "image": "%%%"}}, [("start.image", "must be base64; got '%%%'")]),
    ({"start": {"prompt": PROMPT, "resume": {"token": "t"}}}, [("start.prompt", "is no field of this request; got 'a red circle'")]),
    ({"start": {"resume": {"token": ""}}}, [("start.resume.token", "must be a Started.resume_token; got 0 characters")]),
    ({"start": {"resume": {"token": "t", "next_frame": -1}}}, [("start.resume.next_frame", "must be greater than or equal to 0; got -1")]),
]


@pytest.mark.parametrize(("message", "wanted"), WRONG_START, ids=[str(message)[:40] for message, _ in WRONG_START])
async def test_a_first_message_that_is_wrong_is_named_with_everything(message: Any, wanted: list[tuple[str, str]]) -> None:
    async with http_serving() as served, live(served.port) as caller:
        await caller.socket.send(message if isinstance(message, str | bytes) else json.dumps(message))
        assert await caller.rest() == 4400
        (event,) = caller.events
        assert (event["event"], event["error"]["code"]) == ("error", "invalid")
        found = {each["field"]: each["description"] for each in event["error"]["violations"]}
        assert set(found) == {field for field, _ in wanted}
        for field, sentence in wanted:
            assert found[field].startswith(sentence)
        assert caller.socket.response is not None
        assert event["error"]["request_id"] == caller.socket.response.headers["x-request-id"]
        assert served.metric("calls_total", rpc="own.live", outcome="invalid") == 1
        await served.nothing_left()


WRONG_CONTROL: list[tuple[Any, str, str]] = [
    ({"start": {"prompt": PROMPT}}, "start", "must be sent exactly once, as the first message; got a second one"),
    ({"jump": {}}, "message", f"must hold one of {', '.join(_CONTROLS)}; got jump"),
    ({"stop": {"now": True}}, "stop.now", "is no field of this request; got True"),
    ({"prompt": {"prompt": 5}}, "prompt.prompt", "must be a valid string; got 5"),
    ({"prompt": {"prompt": "a", "replace_from": -1}}, "prompt.replace_from", "must be greater than or equal to 0; got -1"),
    (b"\x00", "message", "must be text that holds JSON; got a binary one of 1 bytes"),
    ({"prompt": {"prompt": "a" * 80_000}}, "message", "must have at most 73728 bytes, because it holds no image and no video; got 80"),
]


@pytest.mark.parametrize(("message", "field", "sentence"), WRONG_CONTROL, ids=[str(each[0])[:40] for each in WRONG_CONTROL])
async def test_a_control_that_is_none_ends_the_session(message: Any, field: str, sentence: str) -> None:
    async with http_serving() as served, live(served.port) as caller:
        await begun(caller)
        await caller.socket.send(message if isinstance(message, str | bytes) else json.dumps(message))
        assert await caller.rest() == 4400
        (violation,) = caller.events[-1]["error"]["violations"]
        assert (violation["field"], violation["description"].startswith(sentence)) == (field, True)
        await served.nothing_left()


async def test_a_start_that_is_too_large_is_refused_with_its_size() -> None:
    async with http_serving(options=replace(OPTIONS, max_body_bytes=65536)) as served, live(served.port) as caller:
        await caller.say(start={"prompt": PROMPT, "image": "A" * 65536})
        assert await caller.rest() == 4413
        assert caller.events[-1]["error"]["code"] == "too_large"
        assert "must have at most 65536 bytes; got 655" in caller.events[-1]["error"]["message"]


async def test_a_caller_who_does_not_start_is_not_waited_for() -> None:
    async with http_serving(limits=Limits(start_timeout_seconds=0.1)) as served, live(served.port) as caller:
        assert await caller.rest() == 4400
        assert caller.events[-1]["error"]["violations"] == [{"field": "start", "description": "must be sent within 0.1 s; got nothing"}]


# -- How it ends otherwise.


async def test_a_caller_who_vanishes_frees_its_slot() -> None:
    gate = asyncio.Semaphore(1)
    async with http_serving(gated(gate), max_sessions=1) as served:
        async with live(served.port) as caller:
            await begun(caller)
            assert served.desk.statistics().live == 1
            caller.socket.transport.abort()
            await served.nothing_left()
        await eventually(lambda: served.metric("calls_total", rpc="own.live", outcome="cancelled") == 1)


async def test_a_caller_who_answers_no_ping_frees_its_slot() -> None:
    gate = asyncio.Semaphore(1)
    options = replace(OPTIONS, ping_s=0.05, pong_s=0.2, linger_s=0.1)
    async with http_serving(gated(gate), max_sessions=1, options=options) as served:
        reader, writer = await served.connect()
        writer.write(request("/v1/live"))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame(json.dumps({"start": {"prompt": PROMPT}}).encode()))
        await eventually(lambda: served.desk.statistics().live == 1)
        await served.nothing_left()
        writer.transport.abort()


async def test_places_in_line_are_told_and_a_full_server_says_when_to_come_back() -> None:
    gate = asyncio.Semaphore(1)
    async with http_serving(gated(gate), max_sessions=1, max_waiting=1) as served:
        async with live(served.port) as first, live(served.port) as second, live(served.port) as third:
            await begun(first)
            await second.say(start={"prompt": PROMPT})
            assert await second.next() == {"event": "queue_position", "position": 1}
            await third.say(start={"prompt": PROMPT})
            assert await third.rest() == 4503
            error = third.events[-1]["error"]
            assert (error["code"], error["retry_after_seconds"] > 0) == ("busy", True)
        await served.nothing_left()


@pytest.mark.parametrize("fault", [CapacityExceeded("told to be full", 3.0), ValueError("a defect")])
async def test_a_fault_while_it_runs_is_the_last_event(fault: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async with http_serving(FakeStages(FakeDenoiser(CONFIG, error=fault))) as served, live(served.port) as caller:
        await caller.say(start={"prompt": PROMPT})
        assert await caller.rest() == (4500 if isinstance(fault, ValueError) else 4503)
        error = caller.events[-1]["error"]
        assert ("a defect" in error["message"]) is False
        assert ("a defect" in caplog.text) is isinstance(fault, ValueError)
        await served.nothing_left()


async def test_a_reader_that_takes_nothing_slows_its_own_session_and_is_ended() -> None:
    async with http_serving(options=replace(OPTIONS, stall_s=0.4, linger_s=0.1)) as served:
        reader, writer = await served.connect()
        writer.write(request("/v1/live"))
        await reader.readuntil(b"\r\n\r\n")
        start = {"prompt": PROMPT, "seconds": 3600, "codec": "raw", "max_lead_seconds": 30}
        writer.write(frame(json.dumps({"start": start}).encode()))
        await eventually(lambda: served.desk.statistics().live == 1)
        await served.still_serves()
        await eventually(lambda: served.metric("calls_total", rpc="own.live", outcome="stalled") == 1)
        await served.nothing_left()
        writer.transport.abort()


async def test_a_drain_hands_sessions_over_and_ends_those_that_have_not_begun() -> None:
    gate = asyncio.Semaphore(1)
    async with http_serving(gated(gate)) as served, live(served.port) as playing, live(served.port) as idle:
        await begun(playing)
        draining = asyncio.create_task(served.doors.drain(grace_s=1.3))
        assert await idle.rest() == 1012
        assert idle.events[-1]["error"]["code"] == "unavailable"
        assert await playing.rest() == 1012
        assert (playing.events[-1]["event"], playing.events[-1]["reason"]) == ("ended", "draining")
        async with asyncio.timeout(20):
            await draining
        await served.nothing_left()


async def test_controls_that_nobody_answers_are_not_read_without_end() -> None:
    limits, options = Limits(max_unanswered_controls=2), replace(OPTIONS, stall_s=0.4, linger_s=0.1)
    gate = asyncio.Semaphore(1)
    async with http_serving(gated(gate), limits=limits, options=options, max_sessions=1) as served, live(served.port) as first:
        await begun(first)
        async with live(served.port) as waiting:
            await waiting.say(start={"prompt": PROMPT})
            await waiting.until("queue_position")
            for _ in range(100):
                await waiting.say(pause={})
            assert await waiting.rest() == 1008
        await eventually(lambda: served.desk.statistics().waiting == 0)


async def test_nothing_a_caller_says_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with http_serving() as served, live(served.port, offered=["headrace.v1", "ticket.planted-1"]) as caller:
            started = await begun(caller, prompt="a planted prompt", seconds=0.5, max_lead_seconds=30)
            await caller.say(prompt={"prompt": "another planted prompt"})
            await caller.rest()
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("asyncio", "websockets.client"))]
    assert any("own.live 101" in line for line in ours)
    assert [line for line in ours if "planted" in line or started["resume_token"] in line] == []


async def test_the_first_message_is_not_kept_while_the_session_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Start(dict[str, Any]):
        """A message that can be looked for."""

    messages: list[weakref.ref[Start]] = []
    left: list[Start | None] = []

    class Socket:
        call, principal = None, SimpleNamespace(tenant="")

        async def accept(self) -> None:
            """At once."""

        async def first(self, name: str, seconds: float) -> Start:
            message = Start()
            messages.append(weakref.ref(message))
            return message

    class Runner:
        async def run(self, *given: object) -> None:
            left.append(messages[0]())

    async def started(*given: object) -> object:
        return SimpleNamespace(request=SimpleNamespace(strength=None))

    monkeypatch.setattr("doors.http.own.live.started", started)
    limits = SimpleNamespace(start_timeout_seconds=1.0, max_control_bytes=1)
    services: Any = SimpleNamespace(intake=SimpleNamespace(limits=limits), runner=Runner())
    socket: Any = Socket()
    await Lives(services).live(socket)
    assert left == [None]
