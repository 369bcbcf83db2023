"""Video that a publisher sends live: decoded elsewhere, at the session's rate, the newest first."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from model_core.access_units import Header
from model_core.media import fmp4_fragment, fmp4_init_segment
from model_core.uploads.cadence import Cadence, Newest
from model_core.uploads.live import decoding
from tests.pictures import moving

FPS = 24


def test_pictures_at_another_rate_become_what_is_on_screen_at_the_session_s() -> None:
    cadence = Cadence(4)
    got = [frame for n in range(9) for frame in cadence.frames(n / 8, b"%d" % n)]
    assert got == [b"0", b"2", b"4", b"6"]
    slow = Cadence(4)
    assert [frame for n in range(3) for frame in slow.frames(n / 2, b"%d" % n)] == [b"0", b"0", b"1", b"1"]


def test_a_gap_is_not_filled_and_time_may_begin_anew() -> None:
    cadence = Cadence(4)
    assert list(cadence.frames(5.0, b"a")) == []
    assert list(cadence.frames(5.25, b"b")) == [b"a"]
    assert list(cadence.frames(60.0, b"c")) == []
    assert list(cadence.frames(60.25, b"d")) == [b"c"]
    assert list(cadence.frames(1.0, b"e")) == []
    assert list(cadence.frames(1.25, b"f")) == [b"e"]


def test_when_too_many_wait_the_oldest_are_dropped_and_counted() -> None:
    newest = Newest(2)
    for n in range(5):
        newest.put(b"%d" % n)
    assert (newest.dropped, len(newest)) == (3, 2)
    assert newest.take(9) == (b"3", b"4")


async def test_a_process_decodes_to_the_size_that_is_served_and_says_what_it_cannot() -> None:
    frames = moving(8)
    height, width = frames.shape[1:3]
    units = Header.of(fmp4_init_segment(width, height, FPS), width, height, FPS, 8).streamed(fmp4_fragment(frames, 0, FPS), 0, 8)
    async with decoding(width, height) as decoder, decoding(32, 32) as smaller:
        await decoder.give(0, b"\x00\x00\x00\x01\x65garbage")
        assert (await decoder.take()).data is None
        for n, unit in enumerate(units):
            await decoder.give(n, unit)
            await smaller.give(n, unit)
        for n, frame in enumerate(frames):
            decoded = await decoder.take()
            assert decoded.ticks == n
            assert decoded.data is not None
            got = np.frombuffer(decoded.data, np.uint8).reshape(height, width, 3)
            assert np.abs(got.astype(int) - frame).mean() < 8
            small = await smaller.take()
            assert small.data is not None
            assert len(small.data) == 32 * 32 * 3


def test_it_decodes_where_the_policy_of_event_loops_watches_no_children() -> None:
    code = """
import asyncio, uvloop
from model_core.uploads.live import decoding

async def main():
    async with decoding(32, 32) as decoder:
        await decoder.give(0, b"nothing")
        print((await decoder.take()).data)

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
asyncio.SelectorEventLoop().run_until_complete(main())
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (ended.stdout, ended.returncode) == ("None\n", 0), ended.stderr
