"""Real workers into real receivers on loopback: packets and times are those of the session. No test waits for a clock."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest

from doors.push.folder import FolderSink
from doors.push.framing import CutOff, Start, read_group, read_start, write_group, write_start
from doors.push.muxing import SAMPLE_RATE, Muxer
from doors.push.process import ProcessSink
from model_core.access_units import Group
from service.broadcast.destination import destination
from service.broadcast.output import SinkFailed
from tests.broadcasts import CHUNK, FPS, group, header

GROUPS = [group(80 + n * CHUNK, shade=20 * n) for n in range(6)]
WITHIN_S = 60.0
# Listens for one publisher, says when it does, and prints what it has read when the publisher has ended.
LISTENER = """
import json, sys, av
url = sys.argv[1]
print("listening", flush=True)
found = {"video": [], "audio": []}
with av.open(url, "r", format="flv", options={"listen": "1"}) as container:
    try:
        for packet in container.demux():
            if packet.size:
                found[packet.stream.type].append([float(packet.pts * packet.time_base), packet.is_keyframe, packet.size])
    except av.FFmpegError:
        pass
print(json.dumps(found), flush=True)
"""


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@asynccontextmanager
async def listener(url: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", LISTENER, url, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"listening\n"
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def seen(process: asyncio.subprocess.Process) -> dict[str, list[Any]]:
    assert process.stdout is not None
    async with asyncio.timeout(WITHIN_S):
        found: dict[str, list[Any]] = json.loads(await process.stdout.readline())
    return found


async def connected(url: str, *, silent_audio: bool = False) -> ProcessSink:
    """A receiver has said that it listens a moment before it does."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            try:
                return await ProcessSink.open(destination("--to", url), header(), silent_audio=silent_audio)
            except SinkFailed:
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("silent_audio", [False, True])
async def test_rtmp_has_every_picture_at_its_time(silent_audio: bool) -> None:
    url = f"rtmp://127.0.0.1:{free_port(socket.SOCK_STREAM)}/live/key"
    async with listener(url) as process:
        sink = await connected(url, silent_audio=silent_audio)
        for each in GROUPS:
            await sink.send(each)
        await sink.close()
        found = await seen(process)
    frames = [frame for each in GROUPS for frame in range(each.first_frame, each.end)]
    assert [at for at, _, _ in found["video"]] == pytest.approx([frame / FPS for frame in frames], abs=1.1e-3)  # FLV has milliseconds
    assert [key for _, key, _ in found["video"]] == [unit.key for each in GROUPS for unit in each.units]
    assert bool(found["audio"]) == silent_audio


async def test_udp_has_every_picture_at_its_time() -> None:
    port = free_port(socket.SOCK_DGRAM)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:  # bound before anything is sent: what nobody hears is lost
        receiver.bind(("127.0.0.1", port))
        sink = await ProcessSink.open(destination("--to", f"udp://127.0.0.1:{port}"), header())
        for each in GROUPS:
            await sink.send(each)
        await sink.close()
        receiver.setblocking(False)
        data = b""
        while True:
            try:
                packet = receiver.recv(65536)
            except BlockingIOError:
                break
            assert len(packet) % 188 == 0
            assert len(packet) <= 1316
            data += packet
    with av.open(io.BytesIO(data), "r", format="mpegts") as container:
        shown = list(container.decode(video=0))
    frames = [frame for each in GROUPS for frame in range(each.first_frame, each.end)]
    assert [frame.time for frame in shown] == pytest.approx([frame / FPS for frame in frames], abs=1e-4)
    assert [int(frame.to_ndarray(format="gray").mean()) // 10 for frame in shown[::CHUNK]] == sorted(
        int(frame.to_ndarray(format="gray").mean()) // 10 for frame in shown[::CHUNK]
    )


async def test_a_worker_that_is_killed_is_one_lost_receiver() -> None:
    port = free_port(socket.SOCK_DGRAM)
    sink = await ProcessSink.open(destination("--to", f"udp://127.0.0.1:{port}"), header())
    await sink.send(GROUPS[0])
    os.kill(sink.pid, signal.SIGKILL)
    with pytest.raises(SinkFailed, match="the worker ended with -9"):
        await sink.send(GROUPS[1])
    await sink.abort()


async def test_nobody_there_is_a_sentence_without_the_key() -> None:
    url = f"rtmp://127.0.0.1:{free_port(socket.SOCK_STREAM)}/live/very-secret"
    with pytest.raises(SinkFailed) as error:
        await ProcessSink.open(destination("--to", url), header())
    assert "refused" in str(error.value).lower()
    assert "very-secret" not in str(error.value)


def muxed(container: str, groups: list[Group], *, silent_audio: bool) -> list[Any]:
    out = io.BytesIO()
    muxer = Muxer(out, container, header().segment, FPS, silent_audio=silent_audio)
    for each in groups:
        muxer.write(each)
    muxer.close()
    with av.open(io.BytesIO(out.getvalue()), "r", format=container) as source:
        return [(p.stream.type, Fraction(p.pts or 0) * (p.time_base or 0), p.is_keyframe) for p in source.demux() if p.size]


@pytest.mark.parametrize("container", ["flv", "mpegts"])
def test_silence_goes_beside_the_pictures_and_on_behind_a_gap(container: str) -> None:
    packets = muxed(container, [GROUPS[0], GROUPS[1], GROUPS[4]], silent_audio=True)
    pictures = [float(at) for kind, at, _ in packets if kind == "video"]
    silence = [float(at) for kind, at, _ in packets if kind == "audio"]
    assert pictures == pytest.approx([frame / FPS for first in (80, 88, 112) for frame in range(first, first + CHUNK)], abs=1.1e-3)
    assert silence == sorted(silence)
    assert abs(silence[0] - pictures[0]) < 0.1
    assert abs(silence[-1] - pictures[-1]) < 0.2
    assert max(b - a for a, b in pairwise(silence)) == pytest.approx(1024 / SAMPLE_RATE, abs=2e-3)


async def test_a_folder_has_what_its_playlist_lists_and_little_more(tmp_path: Path) -> None:
    sink = FolderSink(tmp_path / "hls", header(), lambda: 1_700_000_000.0)
    for n in range(6 * 20):
        await sink.send(group(n * CHUNK))
        listed = (tmp_path / "hls" / "media.m3u8").read_text() if n >= 5 else ""
        assert all((tmp_path / "hls" / line).is_file() for line in listed.splitlines() if line and not line.startswith("#"))
    await sink.close()
    await sink.abort()
    names = sorted(path.name for path in (tmp_path / "hls").iterdir())
    assert names == sorted(["index.m3u8", "media.m3u8", "init.mp4", *(f"segment-{n}.m4s" for n in range(10, 20))])
    assert "#EXT-X-ENDLIST" in (tmp_path / "hls" / "media.m3u8").read_text()
    with av.open(str(tmp_path / "hls" / "index.m3u8"), "r") as container:
        shown = [frame.time for frame in container.decode(video=0)]
    assert len(shown) == 6 * 48
    assert shown[-1] - shown[0] == pytest.approx((6 * 48 - 1) / FPS, abs=1e-3)


async def test_a_folder_that_cannot_be_written_is_a_lost_receiver(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sink = FolderSink(tmp_path / "file" / "hls", header(), lambda: 0.0)
    for n in range(5):
        await sink.send(group(n * CHUNK))
    with pytest.raises(SinkFailed, match=r"Not a directory|File exists"):
        await sink.send(group(5 * CHUNK))


def test_what_processes_write_to_each_other_is_read_again() -> None:
    start = Start("udp://h:1", "udp", "mpegts", 24, "00ff", silent_audio=True, program="ffmpeg")
    source = io.BytesIO(write_start(start) + write_group(2**40, 8, b"abc"))
    assert read_start(source.read) == start
    assert read_group(source.read) == (2**40, 8, b"abc")
    assert read_group(source.read) is None
    for cut in (3, 20, -1):
        source = io.BytesIO((write_start(start) + write_group(1, 8, b"abc"))[:cut])
        with pytest.raises(CutOff):
            _both(source)


def _both(source: io.BytesIO) -> None:
    read_start(source.read)
    read_group(source.read)
