"""`headrace watch` as a person runs it, beside a session of every codec."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from headrace.v1 import video_pb2 as pb
from tests.fakes import eventually
from tests.unit.headrace.test_cli import TIMEOUT_S, finish, headrace, server, start


@pytest.mark.parametrize("codec", [pb.CODEC_RAW_RGB, pb.CODEC_JPEG, pb.CODEC_FMP4_H264])
async def test_a_session_is_shown_and_recorded_until_it_ends(tmp_path: Path, codec: pb.Codec) -> None:
    out = tmp_path / "seen.npy"
    async with server(delay_s=0.02) as s, s.client.live("a red circle", codec=codec) as session:
        token = asyncio.get_running_loop().create_future()
        own: list[pb.Frames] = []

        async def play() -> None:
            async for event in session:
                if isinstance(event, pb.Started):
                    token.set_result(event.watch_token)
                elif isinstance(event, pb.Frames):
                    own.append(event)

        playing = asyncio.create_task(play())
        process = await start("watch", await token, "--address", s.address, "-o", str(out))
        await eventually(lambda: s.hub.watchers == 1, TIMEOUT_S)
        await session.set_prompt("a blue square")
        joined = len(own)
        await eventually(lambda: len(own) > joined + 3, TIMEOUT_S)
        await session.stop()
        end = await finish(process)
        await playing
    assert (end.code, end.err) == (0, "")
    assert "a blue square" in end.out
    assert "stopped: first frame" in end.out
    assert "others see it" not in end.out, "that is for whoever steers"
    recorded = np.load(out)
    assert recorded.shape[1:] == (64, 64, 3)
    assert len(recorded) >= 24
    if codec == pb.CODEC_RAW_RGB:
        last = np.frombuffer(own[-1].data[-1], np.uint8).reshape(64, 64, 3)
        assert np.array_equal(recorded[-1], last)


async def test_a_token_of_nobody_is_one_line() -> None:
    async with server() as s:
        end = await headrace("watch", "x" * 43, "--address", s.address)
    assert (end.code, end.out) == (1, "")
    assert end.err.startswith("error: ")
    assert "NOT_FOUND: token: no session that runs has it" in end.err
    assert "x" * 43 not in end.err


async def test_a_file_of_a_length_that_nobody_knows_is_no_gif(tmp_path: Path) -> None:
    end = await headrace("watch", "x", "-o", str(tmp_path / "a.gif"))
    assert end.code == 2
    assert "a .gif holds at most" in end.err
