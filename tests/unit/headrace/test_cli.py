"""The command line as a person runs it: a process of its own, against the real gRPC service over stages without a model."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pty
import re
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from headrace.cli import demo
from headrace.cli.console import Failure
from headrace.cli.serve import wait_until_serving
from headrace.cli.source import Footage, LocalSource, Opened, RawFrames, Wish, read_footage
from headrace.client import HeadraceClient
from model_core.errors import InvalidRequest
from tests.fakes import FakeDenoiser, FakeStages, eventually
from tests.pictures import encoded, picture, video
from tests.served import Served, answers, serving

TIMEOUT_S = 200.0  # only bounds a failing test
FPS = 24
ENVIRONMENT = {**os.environ, "PYTHONWARNINGS": "error:::headrace"}


@dataclass(frozen=True, slots=True)
class Outcome:
    code: int
    out: str
    err: str

    def report(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        lines = self.out.splitlines()
        assert len(lines) == 1, self
        report = json.loads(lines[0])
        assert isinstance(report, dict)
        return report


@asynccontextmanager
async def server(delay_s: float = 0.0, max_sessions: int = 4, max_waiting: int = 4) -> AsyncGenerator[Served, None]:
    """The real service on a free port. Each chunk takes the denoiser `delay_s`."""
    stages = FakeStages()
    stages = FakeStages(denoiser=FakeDenoiser(stages.config, delay_s=delay_s))
    async with serving(stages, max_sessions=max_sessions, max_waiting=max_waiting) as served:
        yield served


async def start(*arguments: str, stdin: int | None = asyncio.subprocess.DEVNULL) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headrace", *arguments, stdin=stdin, stdout=pipe, stderr=pipe, env=ENVIRONMENT
    )


async def finish(process: asyncio.subprocess.Process, typed: bytes | None = None) -> Outcome:
    try:
        out, err = await asyncio.wait_for(process.communicate(typed), TIMEOUT_S)
    except TimeoutError:
        process.kill()
        raise
    return Outcome(process.returncode if process.returncode is not None else -1, out.decode(), (err or b"").decode())


async def headrace(*arguments: str) -> Outcome:
    return await finish(await start(*arguments))


async def test_help_is_light() -> None:
    code = "import sys, headrace.cli; print(sorted({'torch', 'ray', 'av', 'grpc', 'numpy', 'rich'} & set(sys.modules)))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert (await finish(process)).out == "[]\n"
    told = await headrace("--help")
    assert told.code == 0
    for command in ("serve", "generate", "live", "demo", "models", "status"):
        assert f"  {command} " in told.out


async def test_generate_reports_what_came(tmp_path: Path) -> None:
    async with server() as s:
        arguments = ("generate", "a red circle", "--address", s.address, "--seconds", "2.1", "--seed", "5", "--json")
        first = await headrace(*arguments, "--out", str(tmp_path / "a.npy"))
        again = await headrace(*arguments)
        other = await headrace("generate", "a red circle", "--address", s.address, "--seconds", "2.1", "--seed", "6", "--json")
    report = first.report()
    assert first.code == 0
    assert (report["model"], report["seed"], report["frames"], report["late_frames"]) == (s.stages.config.name, 5, 50, 0)
    assert 0 < report["ttff_s"] <= report["wall_s"]
    assert report["fps"] > 0
    frames = np.load(tmp_path / "a.npy")
    assert frames.shape == (50, 64, 64, 3)
    assert report["frames_sha256"] == hashlib.sha256(frames.tobytes()).hexdigest()
    assert again.report()["frames_sha256"] == report["frames_sha256"]
    assert other.report()["frames_sha256"] != report["frames_sha256"]
    assert first.err.splitlines() == ["started, 50 frames at 24 a second", "24/50 frames", "48/50 frames"]


async def test_an_image_is_sent_along_and_judged_by_the_server(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(picture()))
    (tmp_path / "a.mp4").write_bytes(video(8))
    async with server() as s:
        asked = ("generate", "a red circle", "--address", s.address, "--seconds", "0.5", "--seed", "9", "--json")
        sent = await headrace(*asked, "--image", str(tmp_path / "a.png"))
        refused = await headrace(*asked, "--image", str(tmp_path / "a.mp4"))
    stream = LocalSource(FakeStages()).stream(Wish("a red circle", 0.5, 9, Footage(image=(tmp_path / "a.png").read_bytes())))
    chunks = [event.data async for event in stream if isinstance(event, RawFrames)]
    assert sent.report()["frames_sha256"] == hashlib.sha256(b"".join(chunks)).hexdigest()
    assert refused.code == 2
    assert "image: must be one of PNG, JPEG, WEBP" in refused.err


def test_a_file_that_cannot_be_sent_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(17 * 1024 * 1024))
    for image, video_file, sentence in (
        (tmp_path / "no", None, "--image: must be a file that can be read; got '.*no': No such file"),
        (None, tmp_path, "--video: must be a file that can be read"),
        (tmp_path / "large", None, "--image: must be a file of at most 16777216 bytes; got 17825792"),
        (tmp_path / "large", tmp_path / "large", "--image: cannot be given together with --video"),
    ):
        with pytest.raises(Failure, match=sentence):
            read_footage(image, video_file)
    assert read_footage(None, None) == Footage()


async def test_local_frames_are_those_of_a_server() -> None:
    async with server() as s:
        remote = (await headrace("generate", "a red circle", "--address", s.address, "--seconds", "1", "--seed", "9", "--json")).report()
    chunks = [event async for event in LocalSource(FakeStages()).stream(Wish("a red circle", 1.0, 9))]
    assert isinstance(chunks[0], Opened)
    assert (chunks[0].model, chunks[0].seed) == (remote["model"], 9)
    digest = hashlib.sha256(b"".join(chunk.data for chunk in chunks if isinstance(chunk, RawFrames))).hexdigest()
    assert digest == remote["frames_sha256"]
    with pytest.raises(InvalidRequest, match=r"seconds: .*got inf"):
        await anext(LocalSource(FakeStages()).stream(Wish("a", float("inf"))))


async def test_generate_writes_video_one_can_see(tmp_path: Path) -> None:
    async with server() as s:
        arguments = ("generate", "a", "--address", s.address, "--seconds", "1")
        assert (await headrace(*arguments, "--out", str(tmp_path / "a.mp4"))).code == 0
        assert (await headrace(*arguments, "--out", str(tmp_path / "a.gif"), "--scale", "2")).code == 0
        plain = await headrace(*arguments)
    with av.open(str(tmp_path / "a.mp4"), "r") as container:
        assert [(p.width, p.height) for p in container.decode(video=0)] == [(256, 256)] * 24
    with Image.open(tmp_path / "a.gif") as image:
        assert image.size == (128, 128)
        # Equal frames become one that lasts longer.
        durations_ms = []
        for i in range(getattr(image, "n_frames", 1)):
            image.seek(i)
            durations_ms.append(image.info["duration"])
    assert sum(durations_ms) == 1000
    assert plain.code == 0
    assert "first frame" in plain.out
    assert "24 in " in plain.out


async def test_unary_returns_the_mp4_of_the_server(tmp_path: Path) -> None:
    async with server() as s:
        arguments = ("generate", "a", "--address", s.address, "--mode", "unary", "--seconds", "1", "--seed", "3")
        got = await headrace(*arguments, "--out", str(tmp_path / "a.mp4"), "--json")
        gif = await headrace(*arguments, "--out", str(tmp_path / "a.gif"))
        scaled = await headrace(*arguments, "--out", str(tmp_path / "a.mp4"), "--scale", "2")
    report = got.report()
    assert (report["mode"], report["frames"], report["seed"], report["frames_sha256"]) == ("unary", 24, 3, None)
    assert "frames_sha256 is null" in got.err
    with av.open(str(tmp_path / "a.mp4"), "r") as container:
        assert [(p.width, p.height) for p in container.decode(video=0)] == [(64, 64)] * 24
    assert (gif.code, gif.err.startswith("error: --out: must end in .mp4")) == (2, True)
    assert (scaled.code, scaled.err.startswith("error: --scale: ")) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("generate", ""), "prompt: "),
        (("generate", "a" * 100_000), "prompt: "),
        (("generate", "a", "--seconds", "0"), "seconds: "),
        (("generate", "a", "--seconds", "1e9"), "seconds: "),
        (("generate", "a", "--seconds", "nan"), "seconds: "),
        (("generate", "a", "--seconds", "1e9", "--mode", "unary"), "seconds: "),
        (("generate", "a", "--seed", "-1"), "--seed: must be from 0 to 18446744073709551615; got -1"),
        (("generate", "a", "--seed", str(2**64)), "--seed: must be from 0 to 18446744073709551615"),
        (("generate", b"\xff".decode(errors="surrogateescape")), "PROMPT: must be valid UTF-8"),
        (("generate", "a", "--negative-prompt", b"\xff".decode(errors="surrogateescape")), "--negative-prompt: must be valid UTF-8"),
        (("generate", "a", "--out", "a.avi"), "--out: must end in"),
        (("live", "a", "--seconds", "-1"), "seconds: "),
        (("live", ""), "prompt: "),
    ],
)
async def test_bad_input_is_named_in_one_line(arguments: tuple[str, ...], said: str) -> None:
    async with server() as s:
        told = await headrace(*arguments, "--address", s.address)
        assert (told.code, told.out) == (2, ""), told
        assert told.err.startswith("error: ")
        assert said in told.err
        assert told.err.count("\n") == 1
        assert len(told.err) < 1000
        await s.still_serves()


async def test_local_and_address_exclude_each_other() -> None:
    told = await headrace("generate", "a", "--local", "--address", "127.0.0.1:1")
    assert (told.code, told.err) == (2, "error: --local: cannot be given together with --address; got --address 127.0.0.1:1\n")
    told = await headrace("generate", "a", "--local", "--mode", "unary")
    assert (told.code, told.err) == (2, "error: --mode: must be stream with --local; got unary, which is a call to a server\n")
    told = await headrace("generate", "a", "--local", "--patience", "5")
    assert (told.code, told.err) == (2, "error: --patience: needs a stream from a server, without --local and --mode unary; got 5\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("generate",), "argument"),
        (("generate", "a", "--seed", "x"), "--seed"),
        (("generate", "a", "--mode", "x"), "--mode"),
        (("generate", "a", "--nope"), "--nope"),
        (("nope",), "nope"),
    ],
)
async def test_a_wrong_command_line_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    told = await headrace(*arguments)
    assert (told.code, told.out) == (2, "")
    assert told.err.startswith("error: ")
    assert said in told.err
    assert told.err.count("\n") == 1


async def test_no_command_shows_the_help() -> None:
    assert (await headrace()).out == (await headrace("--help")).out


@pytest.mark.parametrize("command", [("generate", "a"), ("live", "a"), ("models",), ("status",), ("generate", "a", "--mode", "unary")])
async def test_no_server(command: tuple[str, ...]) -> None:
    told = await headrace(*command, "--address", "127.0.0.1:1")
    assert (told.code, told.out) == (1, "")
    assert told.err.startswith("error: 127.0.0.1:1: UNAVAILABLE: ")
    assert told.err.count("\n") == 1


@pytest.mark.parametrize("command", ["generate", "live"])
async def test_ctrl_c_cancels_and_keeps_what_came(tmp_path: Path, command: str) -> None:
    async with server(delay_s=0.02) as s:
        out = tmp_path / "a.npy"
        process = await start(command, "a", "--address", s.address, "--seconds", "600", "--out", str(out))
        await eventually(lambda: s.stages.decoder.statistics().chunks > 3 and out.exists() and out.stat().st_size > 100_000, TIMEOUT_S)
        process.send_signal(signal.SIGINT)
        told = await finish(process)
        assert told.code == 130, told
        assert told.err.endswith("interrupted\n")
        assert "Traceback" not in told.err
        await eventually(lambda: s.stages.open_streams == 0, TIMEOUT_S)
    assert len(np.load(out)) >= 8


async def test_a_full_server_says_when_to_retry() -> None:
    async with server(delay_s=0.02, max_sessions=1, max_waiting=0) as s:
        first = await start("generate", "a", "--address", s.address, "--seconds", "600")
        await eventually(lambda: s.stages.open_streams > 0, TIMEOUT_S)
        refused = await headrace("generate", "a", "--address", s.address)
        first.send_signal(signal.SIGINT)
        await finish(first)
    assert refused.code == 1
    assert refused.err.startswith(f"error: {s.address}: RESOURCE_EXHAUSTED: ")
    told = re.search(r"try again in ([\d.]+) s", refused.err)
    assert told is not None
    assert float(told[1]) >= 44  # a session is taken to last 30 s and however long this one has, and the jitter of these tests is a half


async def test_a_server_that_shuts_down_ends_a_video_early_and_says_so(tmp_path: Path) -> None:
    async with server(delay_s=0.02) as s:
        process = await start(
            "generate", "a", "--address", s.address, "--seconds", "600", "--out", str(tmp_path / "a.npy"), "--json", "--patience", "1"
        )
        await eventually(lambda: s.stages.decoder.statistics().chunks > 3, TIMEOUT_S)
        s.service.drain()
        s.service.hand_over()
        told = await finish(process)
    assert (told.code, told.out) == (1, "")
    assert "error: the server is shutting down; the video ends early, after " in told.err
    assert len(np.load(tmp_path / "a.npy")) >= 8


async def test_a_terminal_gets_a_bar() -> None:
    async with server(delay_s=0.05) as s:
        ours, theirs = pty.openpty()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "headrace", "generate", "a", "--address", s.address, "--seconds", "2", "--json",
                stdout=asyncio.subprocess.PIPE, stderr=theirs, env={**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "100"},
            )  # fmt: skip
            told = await finish(process)
            shown = os.read(ours, 1 << 20).decode()
        finally:
            os.close(ours)
            os.close(theirs)
    assert told.report()["frames"] == 48
    assert "frames" in shown
    assert "\x1b[" in shown


async def test_live_takes_prompts_while_it_plays(tmp_path: Path) -> None:
    async with server() as s:
        out = tmp_path / "a.npy"
        process = await start("live", "a red circle", "--address", s.address, "--out", str(out), stdin=asyncio.subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"a blue square\n/what\n")
        told = ""
        async with asyncio.timeout(TIMEOUT_S):
            while "a blue square" not in told:
                told += (await process.stdout.readline()).decode()
            await eventually(lambda: s.metric("frames_total") > 0)  # or there would be nothing to write
            process.stdin.write(b"/pause\n")
            while "paused before frame" not in told:
                told += (await process.stdout.readline()).decode()
            process.stdin.write(b"/resume\n")
            while "resumed at frame" not in told:
                told += (await process.stdout.readline()).decode()
        end = await finish(process, b"/stop\n")
    assert (end.code, end.err) == (0, "")
    assert "unknown command '/what'" in told + end.out
    assert "stopped: first frame" in end.out
    assert len(np.load(out)) > 0


async def test_live_ends_with_its_input_or_its_length() -> None:
    async with server() as s:
        endless = await finish(await start("live", "a", "--address", s.address, stdin=asyncio.subprocess.PIPE), b"")
        short = await finish(await start("live", "a", "--address", s.address, "--seconds", "1", stdin=asyncio.subprocess.PIPE), b"b\n")
        await eventually(lambda: s.stages.open_streams == 0, TIMEOUT_S)
    assert endless.code == 0
    assert "stopped: " in endless.out
    assert short.code == 0
    assert "completed: " in short.out
    assert "24 frames" in short.out


async def test_models_and_status() -> None:
    async with server() as s:
        models = (await headrace("models", "--address", s.address, "--json")).report()["models"]
        listed = await headrace("models", "--address", s.address)
        await wait_until_serving(s.address, TIMEOUT_S)
        health = await headrace("status", "--address", s.address, "--json")
        shown = await headrace("status", "--address", s.address)
    name = s.stages.config.name
    assert [(m["name"], m["default"], m["fps"], m["sizes"]) for m in models] == [(name, True, 24, ["64x64"])]
    assert listed.out.startswith(f"{name}  (default)\n")
    assert health.code == 0
    assert health.report()["server"] == "SERVING"
    assert health.report()["models"] == [name]
    assert health.report()["stages"] == dict.fromkeys(("text_encoder", "denoiser", "decoder"), "SERVING")
    assert shown.out.startswith("server        SERVING\n")


async def test_status_tells_a_stage_that_serves_from_one_that_nobody_runs() -> None:
    async def idle() -> bool:
        return False

    async with serving(probes={"text_encoder": answers, "denoiser": idle, "decoder": answers}) as s:
        await wait_until_serving(s.address, TIMEOUT_S)
        health = await headrace("status", "--address", s.address, "--json")
    assert health.report()["stages"] == {"text_encoder": "SERVING", "denoiser": "IDLE", "decoder": "SERVING"}


async def test_demo_measures_the_switch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ticks = iter(range(10**9))
    async with server() as s, HeadraceClient(s.address) as client, asyncio.timeout(TIMEOUT_S):
        take = await demo.record(client, 2.0, lambda: next(ticks) / 1000)
    assert take.frames().shape == (48, 64, 64, 3)
    assert [c.first_frame for c in take.chunks] == list(range(0, 48, 8))
    assert 8 <= take.switch.first_frame <= 40  # played by a clock that hardly moves: nearly everything can be replaced
    assert 0 < take.switch.acknowledged_s < take.switch.received_s <= take.switch.shown_s
    demo.write(take, tmp_path)
    demo.show(take, tmp_path)
    with av.open(str(tmp_path / "demo.mp4"), "r") as container:
        assert sum(1 for _ in container.decode(video=0)) == 48
    with Image.open(tmp_path / "demo.png") as sheet:
        reds = np.argwhere((np.asarray(sheet) == (220, 30, 30)).all(-1))
    assert len(reds)
    told = capsys.readouterr().out
    for word in ("first frame", "late frames", "prompt switch", "denoiser", "decoder", "rest", "queue p50"):
        assert word in told
