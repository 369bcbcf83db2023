"""Files that are measured in a process of their own: with the same numbers, in time, and without a process that stays."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from model_core.quality.adherence import Judge, reduced
from model_core.quality.aside import Aside, Late, Unmeasured
from model_core.quality.look import look
from model_core.quality.wish import Wish, has_detector
from model_core.quality.words import asked_for
from tests.fakes import eventually
from tests.pictures import moving, video


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "a.mp4"
    made.write_bytes(video(20))
    return made


def script(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text)


async def test_numbers_are_those_that_this_process_would_find(path: Path) -> None:
    wish = Wish(most_frames=1000, content=(8, 8, 32, 32))
    found = await Aside(60.0).look(path, wish)
    assert found.as_json() == look(path, "file", wish).as_json()


async def test_a_prompt_is_judged_there_too(path: Path) -> None:
    found = await Aside(120.0).look(path, Wish(prompt="a white square moving right on gray", prompt_frames=16))
    assert found.adherence is not None
    assert (found.adherence.detector, found.adherence.windows) == ("millrace-64", 1)
    assert set(found.adherence.shares) == {"background", "colour", "shape", "motion"}


async def test_what_cannot_be_measured_is_told(tmp_path: Path, path: Path) -> None:
    (tmp_path / "text").write_text("no video")
    with pytest.raises(Unmeasured, match="file: must be a video; got a file that is none: text"):
        await Aside(60.0).look(tmp_path / "text", Wish())
    with pytest.raises(Unmeasured, match="ended with code 1: ZeroDivisionError"):
        await Aside(60.0, script("1 / 0")).look(path, Wish())
    with pytest.raises(Unmeasured, match="ended with code 0"):
        await Aside(60.0, script("print('{\"quality\": {}}')")).look(path, Wish())
    with pytest.raises(Unmeasured, match="no process started: No such file"):
        await Aside(60.0, (str(tmp_path / "nowhere"),)).look(path, Wish())


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("cancelled", [False, True])
async def test_no_process_stays_behind(tmp_path: Path, path: Path, cancelled: bool) -> None:
    told = tmp_path / "pid"
    endless = script(f"import os, time\nopen({str(told)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)")
    looking = asyncio.create_task(Aside(600.0 if cancelled else 1.0, endless).look(path, Wish()))
    if cancelled:
        await eventually(lambda: told.is_file() and told.read_text() != "")
        looking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looking
    else:
        with pytest.raises(Late, match="it took more than 1 s"):
            await looking
    if told.is_file() and told.read_text():  # a process that had no time to begin is gone anyway
        assert not alive(int(told.read_text()))


async def test_one_file_at_a_time_and_waiting_counts(path: Path) -> None:
    aside = Aside(1.0, script("import time; time.sleep(600)"))
    found = await asyncio.gather(*(aside.look(path, Wish()) for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in found] == [Late, Late, Late]


def test_what_is_too_short_is_not_judged() -> None:
    judge = Judge(asked_for("a white square"))
    for frame in moving(7):
        judge.add(frame)
    assert judge.adherence() is None


def test_windows_of_forty_frames_and_what_is_left_are_judged() -> None:
    judge = Judge(asked_for("a square moving right"))
    for frame in moving(40, 128, 128):
        judge.add(frame)
    for frame in moving(9):
        judge.add(frame)
    judge.cut()
    for frame in moving(5):
        judge.add(frame)
    found = judge.adherence()
    assert found is not None
    assert found.windows == 2


def test_the_square_in_the_middle_is_what_is_looked_at() -> None:
    frame = moving(1, 128, 200)[0]
    assert reduced(frame).shape == (64, 64, 3)
    assert (reduced(moving(1)[0]) == moving(1)[0]).all()


def test_only_the_model_that_comes_along_has_a_detector() -> None:
    from model_core.presets import millrace_64

    assert has_detector(millrace_64())
