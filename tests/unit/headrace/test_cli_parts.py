"""Parts of the command line that need no server: recordings, typed lines, the terminal, sums of timings."""

from __future__ import annotations

import asyncio
import os
import pty
import termios
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from headrace.cli import measure
from headrace.cli.console import Failure, LineReporter
from headrace.cli.keyboard import LineEditor, lines
from headrace.cli.recording import Recording, check_out
from headrace.cli.screen import PlainScreen, TerminalScreen
from headrace.v1 import video_pb2 as pb
from model_core.media import Frames
from tests.fakes import eventually

FPS = 24
TIMEOUT_S = 200.0  # only bounds a failing test


def clip(n: int) -> Frames:
    return np.stack([np.full((16, 16, 3), (9 * i, 100, 50), np.uint8) for i in range(n)])


async def record(path: Path, frames: Frames, scale: int = 2) -> int:
    async with Recording(path, FPS, scale) as recording:
        for start in range(0, len(frames), 5):
            await recording.write(frames[start : start + 5])
    return recording.frames_written


async def test_npy_holds_the_frames_as_they_are(tmp_path: Path) -> None:
    assert await record(tmp_path / "a.npy", clip(23)) == 23
    assert np.array_equal(np.load(tmp_path / "a.npy"), clip(23))


async def test_mp4_is_enlarged_and_complete(tmp_path: Path) -> None:
    await record(tmp_path / "a.mp4", clip(23))
    with av.open(str(tmp_path / "a.mp4"), "r") as container:
        pictures = [p.to_ndarray(format="rgb24") for p in container.decode(video=0)]
    assert len(pictures) == 23
    assert pictures[0].shape == (32, 32, 3)
    assert abs(int(pictures[20][0, 0, 0]) - 180) < 8


async def test_gif_is_enlarged_and_complete(tmp_path: Path) -> None:
    await record(tmp_path / "a.gif", clip(23))
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.size, getattr(image, "n_frames", 1)) == ((32, 32), 23)


async def test_no_frames_no_file(tmp_path: Path) -> None:
    async with Recording(tmp_path / "a.mp4", FPS, 1):
        pass
    assert not (tmp_path / "a.mp4").exists()


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.npy"])
async def test_an_interrupted_recording_is_finished(tmp_path: Path, name: str) -> None:
    begun = asyncio.Event()

    async def endless() -> None:
        async with Recording(tmp_path / name, FPS, 1) as recording:
            await recording.write(clip(8))
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(endless())
    await asyncio.wait_for(begun.wait(), TIMEOUT_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    if name.endswith(".npy"):
        assert len(np.load(tmp_path / name)) == 8
    else:
        with av.open(str(tmp_path / name), "r") as container:
            assert sum(1 for _ in container.decode(video=0)) == 8


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.npy"])
async def test_a_file_that_cannot_be_written_is_an_error_and_no_hang(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()

    async def write_much() -> None:
        async with Recording(folder, FPS, 1) as recording:
            for _ in range(100):
                await recording.write(clip(8))

    with pytest.raises(Failure, match=name):
        await asyncio.wait_for(write_much(), TIMEOUT_S)


@pytest.mark.parametrize(
    ("name", "seconds", "scale", "said"),
    [
        ("a.avi", 5.0, 4, r"--out: must end in \.mp4, \.gif or \.npy; got '.*a\.avi'"),
        ("no/a.mp4", 5.0, 4, "--out: must be in a folder that exists; got"),
        ("a.gif", 60.0, 4, "at most 20 seconds.*got --seconds 60"),
        ("a.gif", 0.0, 4, "at most 20 seconds.*got --seconds 0"),
        ("a.mp4", 5.0, 17, "--scale: must be from 1 to 16; got 17"),
        ("a.mp4", 5.0, 0, "--scale: must be from 1 to 16; got 0"),
    ],
)
def test_outputs_are_checked_first(tmp_path: Path, name: str, seconds: float, scale: int, said: str) -> None:
    with pytest.raises(Failure, match=said) as caught:
        check_out(tmp_path / name, seconds, scale)
    assert caught.value.exit_code == 2


def test_good_outputs_pass(tmp_path: Path) -> None:
    check_out(tmp_path / "a.gif", 20.0, 16)
    check_out(tmp_path / "a.mp4", 0.0, 1)
    check_out(None, 0.0, 1)


async def test_typed_lines() -> None:
    end, begin = os.pipe()
    try:
        typed = lines(end)
        os.write(begin, "a red circle\nein grünes".encode())
        assert await asyncio.wait_for(anext(typed), TIMEOUT_S) == "a red circle"
        os.write(begin, b" square\n\nlast, without a break")
        assert await asyncio.wait_for(anext(typed), TIMEOUT_S) == "ein grünes square"
        os.close(begin)
        begin = -1
        assert [line async for line in typed] == ["", "last, without a break"]
    finally:
        os.close(end)
        if begin >= 0:
            os.close(begin)


async def test_a_closed_input_has_no_lines() -> None:
    end, begin = os.pipe()
    os.close(begin)
    os.close(end)
    assert [line async for line in lines(end)] == []


def test_editing_a_line() -> None:
    editor = LineEditor(interactive=True)
    assert editor.feed("a gräy".encode()[:4]) == []
    assert editor.feed("a gräy".encode()[4:] + b"z\x7f dog\x1b[D\x1b[3~\x1bOA!\t") == []
    assert editor.text == "a gräy dog!"
    assert editor.feed(b"\rb\x15c\x04d\n") == ["a gräy dog!", "cd"]
    assert (editor.text, editor.ended) == ("", False)
    assert editor.feed(b"\x04") == []
    assert editor.ended


async def test_a_terminal_neither_echoes_nor_stays_changed() -> None:
    ours, theirs = pty.openpty()
    try:
        before = termios.tcgetattr(theirs)
        shown: list[str] = []
        typed = lines(theirs, shown.append)
        waiting = asyncio.ensure_future(anext(typed))
        await eventually(lambda: not termios.tcgetattr(theirs)[3] & (termios.ECHO | termios.ICANON), TIMEOUT_S)
        os.write(ours, b"ab")
        await eventually(lambda: shown[-1:] == ["ab"], TIMEOUT_S)
        assert termios.tcgetattr(theirs)[3] & termios.ISIG
        os.write(ours, b"\n")
        assert await asyncio.wait_for(waiting, TIMEOUT_S) == "ab"
        await typed.aclose()
        assert termios.tcgetattr(theirs) == before
    finally:
        os.close(ours)
        os.close(theirs)


def test_the_picture_fits_and_leaves_the_typed_text_alone() -> None:
    written: list[str] = []
    with TerminalScreen(written.append, columns=40, rows=30) as view:
        view.picture(np.zeros((64, 64, 3), np.uint8))
    drawing = written[2]
    assert drawing.startswith("\x1b7")
    assert drawing.endswith("\x1b8")
    # 64 pixel rows on 22 text rows, 64 pixels in 40 columns: every second one.
    assert drawing.count("▀") == 32 * 16
    assert written[0] == "\x1b[2J\x1b[24;29r"
    assert written[-1].startswith("\x1b[0m\x1b[r")


def test_a_small_terminal_gets_no_picture() -> None:
    written: list[str] = []
    with TerminalScreen(written.append, columns=40, rows=10) as view:
        view.picture(np.zeros((64, 64, 3), np.uint8))
        view.status("x" * 100)
    assert "▀" not in "".join(written)
    assert "x" * 39 in written[2]
    assert "x" * 40 not in written[2]


def test_a_pipe_gets_lines() -> None:
    written: list[str] = []
    with PlainScreen(written.append) as view:
        view.say("a")
        view.status("b")
        view.picture(np.zeros((4, 4, 3), np.uint8))
    assert written == ["a\n", "b\n"]


def test_progress_lines_once_a_second() -> None:
    said: list[str] = []
    with LineReporter(said.append) as progress:
        progress.waiting(2)
        progress.started(60, 24)
        for done in range(8, 65, 8):
            progress.frames(min(done, 60))
    assert said == ["waiting, position 2", "started, 60 frames at 24 a second", "24/60 frames", "48/60 frames"]


def chunk(*timings: tuple[str, float, float]) -> pb.Frames:
    return pb.Frames(timings=[pb.StageTiming(stage=s, queue_seconds=q, service_seconds=w) for s, q, w in timings])


def test_times_per_stage() -> None:
    first = chunk(("text_encoder", 0.0, 0.01), ("denoiser", 0.1, 0.2), ("decoder", 0.0, 0.05))
    rows = measure.per_stage([first, chunk(("denoiser", 0.3, 0.2), ("decoder", 0.0, 0.07)), chunk(("denoiser", 0.2, 0.5))])
    assert [(r.stage, r.chunks) for r in rows] == [("text_encoder", 1), ("denoiser", 3), ("decoder", 2)]
    assert (rows[1].queue_p50_s, rows[1].queue_max_s, rows[1].service_p50_s, rows[1].service_max_s) == (0.2, 0.3, 0.2, 0.5)
    assert measure.per_stage([]) == []


def test_first_frame_parts_add_up() -> None:
    parts = dict(measure.first_frame(0.5, chunk(("text_encoder", 0.0, 0.01), ("denoiser", 0.1, 0.2), ("decoder", 0.0, 0.05))))
    assert parts == pytest.approx({"text_encoder": 0.01, "denoiser": 0.3, "decoder": 0.05, "rest": 0.14})
