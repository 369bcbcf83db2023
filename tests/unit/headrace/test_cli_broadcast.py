"""`headrace broadcast` as a person runs it, into real receivers on loopback."""

from __future__ import annotations

import asyncio
import io
import re
import socket
from pathlib import Path

import av
import pytest

from headrace.v1 import video_pb2 as pb
from tests.fakes import eventually
from tests.unit.headrace.test_cli import TIMEOUT_S, finish, headrace, server, start

FPS = 24


async def test_a_new_session_goes_out_to_a_folder_and_to_a_receiver(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        receiver.setblocking(False)
        url = f"udp://127.0.0.1:{receiver.getsockname()[1]}"
        async with server() as s:
            end = await headrace(
                "broadcast", "a red circle", "--seconds", "3", "--seed", "1", "--hold", "0", "--to", url, "--hls", str(tmp_path / "hls"),
                "--address", s.address,
            )  # fmt: skip
            await s.nothing_left()
        data = b""
        while True:
            try:
                data += receiver.recv(65536)
            except BlockingIOError:
                break
    assert end.code == 0, end
    assert re.fullmatch(r"[\w-]{43}\n", end.out)
    with av.open(str(tmp_path / "hls" / "index.m3u8"), "r") as container:
        assert len(list(container.decode(video=0))) == 3 * FPS
    with av.open(io.BytesIO(data), "r", format="mpegts") as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([(times[0] or 0.0) + n / FPS for n in range(len(times))], abs=1e-4)
    assert (times[-1] or 0.0) == pytest.approx((3 * FPS - 1) / FPS, abs=1e-4)
    assert f"{url}: {len(times)} frames, 0 dropped, connected 1 times, lost 0 times" in end.err


async def test_a_command_that_does_not_exist_is_named_and_does_not_go_on_air_as_a_prompt(tmp_path: Path) -> None:
    async with server() as s:
        arguments = ("broadcast", "a red circle", "--hold", "0", "--hls", str(tmp_path / "hls"), "--address", s.address)
        process = await start(*arguments, stdin=asyncio.subprocess.PIPE)
        await eventually(lambda: s.metric("frames_total") > 0)
        end = await finish(process, b"/what\n/stop\n")
    assert end.code == 0, end
    assert "unknown command '/what'" in end.err
    assert s.stages.encoder.calls == 1


async def test_a_session_of_somebody_else_goes_out_until_it_ends(tmp_path: Path) -> None:
    async with server(delay_s=0.02) as s, s.client.live("a red circle", codec=pb.CODEC_FMP4_H264) as session:
        token = asyncio.get_running_loop().create_future()

        async def play() -> None:
            async for event in session:
                if isinstance(event, pb.Started):
                    token.set_result(event.watch_token)

        playing = asyncio.create_task(play())
        process = await start("broadcast", "--watch", await token, "--hold", "0", "--hls", str(tmp_path), "--address", s.address)
        await eventually((tmp_path / "media.m3u8").is_file, TIMEOUT_S)
        await session.stop()
        end = await finish(process)
        await playing
    assert end.code == 0, end
    assert "#EXT-X-ENDLIST" in (tmp_path / "media.m3u8").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a", "--to", "http://h/x"], "--to must begin with one of rtmp://, rtmps://, udp://, srt://; got 'http'"),
        (["a", "--to", "udp://h"], "--to must name a port"),
        (["a"], "--to: must be given, or --hls"),
        (["--to", "udp://h:1"], "PROMPT: must be given, or --watch; and not both"),
        (["a", "--watch", "b", "--to", "udp://h:1"], "PROMPT: must be given, or --watch; and not both"),
        (["a", "--to", "udp://h:1", "--hold", "99"], "--hold: must be from 0 to 30; got 99"),
        (["a", *(word for port in range(1, 10) for word in ("--to", f"udp://h:{port}"))], "--to must be given at most 8 times; got 9"),
    ],
)
async def test_bad_input_is_one_line(arguments: list[str], told: str) -> None:
    end = await headrace("broadcast", *arguments)
    assert (end.code, end.out) == (2, ""), end
    assert told in end.err


async def test_a_session_of_another_codec_is_refused() -> None:
    async with server(delay_s=0.02) as s, s.client.live("a red circle", codec=pb.CODEC_RAW_RGB) as session:
        started = await anext(event async for event in session if isinstance(event, pb.Started))
        end = await headrace("broadcast", "--watch", started.watch_token, "--to", "udp://127.0.0.1:1", "--address", s.address)
    assert end.code == 2, end
    assert "must be CODEC_FMP4_H264 to go out; got CODEC_RAW_RGB" in end.err
