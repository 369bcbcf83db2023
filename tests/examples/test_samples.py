"""The samples in other languages, as their users run them, against the real gRPC server over fake stages.

`make examples` installs what they need and runs these tests. Where that has not been done, they skip and say so.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import av
import pytest

from headrace.client import HeadraceClient
from headrace.v1 import video_pb2 as pb
from tests.fakes import FakeDenoiser, FakeStages, eventually
from tests.served import Served, serving

pytestmark = pytest.mark.examples
ROOT = Path(__file__).parents[2]
NODE, GO = ROOT / "examples" / "node", ROOT / "examples" / "go"
CONFIG = FakeStages().config
SECONDS = 4
FRAMES = SECONDS * CONFIG.fps
LIMIT_S = 60


def command(language: str) -> list[str]:
    """How that language's sample is started. Skips where it cannot be."""
    if language == "node":
        if (node := shutil.which("node")) is None or not (NODE / "node_modules").is_dir():
            pytest.skip("needs Node.js 20, and `npm ci` in examples/node")
        return [node, str(NODE / "headrace.js")]
    if not (built := GO / "build" / "headrace").is_file():
        pytest.skip("needs examples/go/build/headrace, which examples/go/build.sh makes where Go is installed")
    return [str(built)]


LANGUAGES = pytest.mark.parametrize("language", ["node", "go"])


async def run(language: str, *words: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a sample."""
    process = await started(language, *words)
    async with asyncio.timeout(LIMIT_S):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def started(language: str, *words: str) -> asyncio.subprocess.Process:
    quiet = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command(language), *words, stdout=pipe, stderr=pipe, env=quiet)


def pictures(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").tobytes() for frame in container.decode(video=0)]


@asynccontextmanager
async def breaking(address: str, after_bytes: int) -> AsyncGenerator[str, None]:
    """An address that leads to `address`. The first connection breaks when the server has sent so much; later ones stay."""
    left = [after_bytes]
    host, _, port = address.rpartition(":")
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: list[int] | None) -> None:
        while data := await reader.read(4096):
            if limit is not None and limit[0] < (1 << 60):
                limit[0] -= len(data)
                if limit[0] <= 0:
                    limit[0] = 1 << 60
                    break
            writer.write(data)
            await writer.drain()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(host, int(port))
        pumps = [asyncio.create_task(pump(reader, up_writer, None)), asyncio.create_task(pump(up_reader, writer, left))]
        tasks.update(pumps)
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for task in pumps:
            task.cancel()
        for end in (writer, up_writer):
            end.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()


def slow() -> FakeStages:
    """Chunks come one by one, so that a connection can break between them."""
    return FakeStages(FakeDenoiser(CONFIG, delay_s=0.02), keep_chunks=8)


@LANGUAGES
async def test_a_video_is_streamed_to_a_file(language: str, tmp_path: Path) -> None:
    async with serving() as served:
        code, out, err = await run(language, "stream", served.address, "a red circle", str(SECONDS), str(tmp_path / "video.mp4"))

        assert (code, out) == (0, f"{FRAMES} frames\n"), err
        assert len(pictures(tmp_path / "video.mp4")) == FRAMES
        await served.nothing_left()


@LANGUAGES
async def test_a_stream_goes_on_after_its_connection_broke(language: str, tmp_path: Path) -> None:
    async with serving(slow()) as served:
        words = ("a red circle", str(SECONDS))
        code, _, err = await run(language, "stream", served.address, *words, str(tmp_path / "whole.mp4"), "7")
        assert code == 0, err
        size = (tmp_path / "whole.mp4").stat().st_size
        async with breaking(served.address, size // 2) as address:
            code, out, err = await run(language, "stream", address, *words, str(tmp_path / "broken.mp4"), "7")

        assert (code, out) == (0, f"{FRAMES} frames\n"), err
        assert "UNAVAILABLE" in err.upper()
        assert served.metric("resume_seconds_count") == 1
        assert (tmp_path / "broken.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
        await served.nothing_left()


@LANGUAGES
async def test_a_live_changes_its_prompt_and_stops(language: str, tmp_path: Path) -> None:
    async with serving(slow()) as served:
        path = tmp_path / "live.mp4"
        code, out, err = await run(language, "live", served.address, "a red circle", "a blue square", "2", str(path), "7")

        assert code == 0, err
        told = re.fullmatch(r'"a blue square" from frame (\d+) on\n(\d+) frames\n', out)
        assert told is not None, out
        frames = pictures(path)
        assert 0 < int(told[1]) < 2 * CONFIG.fps <= int(told[2]) == len(frames)
        await served.nothing_left()


@LANGUAGES
async def test_a_live_goes_on_after_its_connection_broke(language: str, tmp_path: Path) -> None:
    async with serving(slow()) as served:
        path = tmp_path / "live.mp4"
        async with breaking(served.address, 12_000) as address:
            code, out, err = await run(language, "live", address, "a red circle", "a blue square", "6", str(path), "7")

        assert code == 0, err
        assert "UNAVAILABLE" in err.upper()
        told = re.fullmatch(r'"a blue square" from frame (\d+) on\n(\d+) frames\n', out)
        assert told is not None, out
        assert int(told[2]) == len(pictures(path)) >= 6 * CONFIG.fps
        await served.nothing_left()


@LANGUAGES
async def test_a_refused_request_is_explained(language: str, tmp_path: Path) -> None:
    async with serving() as served:
        code, out, err = await run(language, "stream", served.address, " ", "1e9", str(tmp_path / "video.mp4"))

        assert (code, out) == (2, "")
        assert "spec.prompt: must hold at least 1 character" in err
        assert "spec.seconds: must be a number from more than 0 to 3600" in err


@LANGUAGES
async def test_a_busy_server_is_asked_again(language: str, tmp_path: Path) -> None:
    async with serving(FakeStages(FakeDenoiser(CONFIG)), max_sessions=1, max_waiting=0) as served:
        for _ in range(5):  # so that the server has seen how fast a slot gets free
            await served.still_serves()
        async with HeadraceClient(served.address) as client, client.live("a green square") as holder:
            async for event in holder:
                if isinstance(event, pb.Started):
                    break
            waiting = await started(language, "stream", served.address, "a red circle", "1", str(tmp_path / "video.mp4"))
            await eventually(lambda: refused(served))
            await holder.stop()
        async with asyncio.timeout(LIMIT_S):
            out, err = await waiting.communicate()

        assert (waiting.returncode, out.decode()) == (0, f"{CONFIG.fps} frames\n"), err
        assert "again in" in err.decode()


def refused(served: Served) -> bool:
    return served.metric("calls_total", rpc="Stream", outcome="refused") > 0
