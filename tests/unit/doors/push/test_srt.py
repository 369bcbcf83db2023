"""SRT, by the FFmpeg of the package imageio-ffmpeg, into another of it that listens."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import av
import pytest

from doors.push.process import NoFfmpeg, ProcessSink, srt_program
from service.broadcast.destination import destination
from service.broadcast.output import SinkFailed
from tests.broadcasts import CHUNK, FPS, group, header

WITHIN_S = 60.0
GROUPS = [group(80 + n * CHUNK, shade=20 * n) for n in range(6)]


@pytest.fixture
def program() -> str:
    try:
        return srt_program()
    except NoFfmpeg as error:
        pytest.skip(str(error))


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def test_srt_has_every_picture_at_its_time(tmp_path: Path, program: str) -> None:
    port, out = free_port(), tmp_path / "out.ts"
    words = ["-hide_banner", "-nostdin", "-loglevel", "error", "-f", "mpegts", "-i", f"srt://127.0.0.1:{port}?mode=listener"]
    words += ["-map", "0", "-c", "copy", "-copyts", "-muxdelay", "0", "-muxpreload", "0", "-f", "mpegts", str(out)]
    listener = await asyncio.create_subprocess_exec(program, *words)
    try:
        to = destination("--to", f"srt://127.0.0.1:{port}?mode=caller&linger=20")
        async with asyncio.timeout(WITHIN_S):
            sink = await ProcessSink.open(to, header(), silent_audio=True, program=program)
            for each in GROUPS:
                await sink.send(each)
            await sink.close()
            await listener.wait()
    finally:
        if listener.returncode is None:
            listener.kill()
        await listener.wait()
    with av.open(str(out), "r", format="mpegts") as container:
        assert len(container.streams.audio) == 1
        times = [frame.time for frame in container.decode(video=0)]
    frames = [frame for each in GROUPS for frame in range(each.first_frame, each.end)]
    assert len(times) >= len(frames) - 1  # a listener that is cut off may not know that the last picture was whole
    assert times == pytest.approx([frame / FPS for frame in frames[: len(times)]], abs=1e-4)


async def test_nobody_there_is_a_lost_receiver(program: str) -> None:
    to = destination("--to", f"srt://127.0.0.1:{free_port()}?mode=caller&connect_timeout=300&passphrase=very-secret-words")

    async def push() -> None:
        sink = await ProcessSink.open(to, header(), program=program)
        try:
            while True:  # what it is sent first fits into pipes
                for each in GROUPS:
                    await sink.send(each)
        finally:
            await sink.abort()

    with pytest.raises(SinkFailed) as error:
        await asyncio.wait_for(push(), WITHIN_S)
    assert "very-secret" not in str(error.value)
