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
_ENOUGH_BYTES = 8_000
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


async def test_srt_has_pictures_at_their_times(tmp_path: Path, program: str) -> None:
    """Which of them is SRT's affair: it drops what is late, and what is on its way at the end."""
    port, out = free_port(), tmp_path / "out.ts"
    words = ["-hide_banner", "-nostdin", "-loglevel", "error", "-f", "mpegts", "-i", f"srt://127.0.0.1:{port}?mode=listener"]
    words += ["-map", "0", "-c", "copy", "-copyts", "-muxdelay", "0", "-muxpreload", "0", "-flush_packets", "1", "-f", "mpegts", str(out)]
    listener = await asyncio.create_subprocess_exec(program, *words)
    sent = 0
    try:
        to = destination("--to", f"srt://127.0.0.1:{port}?mode=caller")
        async with asyncio.timeout(WITHIN_S):
            sink = await ProcessSink.open(to, header(), silent_audio=True, program=program)
            while not out.exists() or out.stat().st_size < _ENOUGH_BYTES:
                await sink.send(group(80 + sent * CHUNK))
                sent += 1
                await asyncio.sleep(0.05)
            await sink.abort()
            await listener.wait()
    finally:
        if listener.returncode is None:
            listener.kill()
        await listener.wait()
    with av.open(str(out), "r", format="mpegts") as container:
        assert len(container.streams.audio) == 1
        times = [frame.time or 0.0 for frame in container.decode(video=0)]
    numbers = [round(time * FPS) for time in times]
    assert times == pytest.approx([number / FPS for number in numbers], abs=1e-4)
    assert numbers == sorted(set(numbers))
    assert 80 <= numbers[0] <= numbers[-1] < 80 + sent * CHUNK
    assert len(numbers) > CHUNK


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
