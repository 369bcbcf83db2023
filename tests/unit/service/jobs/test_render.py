"""The file of a job while it grows: gone on with elsewhere, undone after an error, pictures of it."""

from __future__ import annotations

import io
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_core.file_parts import Placement
from model_core.presets import millrace_64
from service.jobs.files.presentation import placement
from service.jobs.files.render import Rendering
from service.jobs.job import Presentation
from service.jobs.worker.variants import spritesheet, thumbnail
from tests.pictures import moving

PLAIN = Placement(64, 64, 64, 64)


def rendering(folder: Path) -> Rendering:
    folder.mkdir(exist_ok=True)
    return Rendering(folder, 24, PLAIN)


def test_what_one_process_saved_another_goes_on_with_to_the_same_file(tmp_path: Path) -> None:
    frames = moving(24)
    whole, first, second = (rendering(tmp_path / name) for name in "abc")
    for start in (0, 8, 16):
        whole.add(frames[start : start + 8], start)
    first.add(frames[:8], 0)
    one = first.unsaved()
    first.mark_saved(len(one))
    first.add(frames[8:16], 8)
    two = first.unsaved()
    assert first.unsaved_bytes == len(two)
    for saved in (one, two):
        second.restore(saved)
    assert second.unsaved_bytes == 0
    second.add(frames[16:], 16)
    made, there = second.finish(), whole.finish()
    assert made.path.read_bytes() == there.path.read_bytes()
    assert (made.sha256, made.size_bytes) == (there.sha256, len(there.path.read_bytes()))


def test_what_is_unsaved_can_be_had_in_pieces_that_memory_holds(tmp_path: Path) -> None:
    made, elsewhere = rendering(tmp_path / "a"), rendering(tmp_path / "b")
    made.add(moving(16), 0)
    size, most = made.unsaved_bytes, 100
    pieces = [made.unsaved(begin, most) for begin in range(0, size, most)]
    assert len(pieces) > 1
    assert all(len(piece) <= most for piece in pieces)
    for piece in pieces:
        elsewhere.restore(piece)
    assert elsewhere.finish().sha256 == made.finish().sha256


def test_a_rendering_that_begins_anew_forgets_what_it_had(tmp_path: Path) -> None:
    frames = moving(16)
    plain, cleared = rendering(tmp_path / "a"), rendering(tmp_path / "b")
    cleared.add(frames[8:], 0)
    cleared.add(frames[8:], 8)
    cleared.clear()
    assert cleared.unsaved_bytes == 0
    for each in (plain, cleared):
        each.add(frames[:8], 0)
    assert plain.finish().sha256 == cleared.finish().sha256


def test_a_disk_without_room_is_told_before_the_file_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rendering(tmp_path / "a")
    made.add(moving(8), 0)
    usage = namedtuple("usage", "total used free")  # noqa: PYI024 - as shutil has it
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 0))
    with pytest.raises(OSError, match="No space left"):
        made.finish()
    monkeypatch.undo()
    assert made.finish().size_bytes > 0


def test_pictures_of_a_video(tmp_path: Path) -> None:
    made = rendering(tmp_path / "a")
    for start in range(0, 40, 8):
        made.add(moving(40)[start : start + 8], start)
    video = made.finish().path
    first, sheet = Image.open(io.BytesIO(thumbnail(video))), Image.open(io.BytesIO(spritesheet(video)))
    assert (first.format, first.size) == ("WEBP", (64, 64))
    assert (sheet.format, sheet.size) == ("JPEG", (5 * 64, 2 * 64))
    grey = np.asarray(sheet.convert("L"))
    ground = [int(grey[row * 64 + 60, column * 64 + 60]) for row in range(2) for column in range(5)]
    assert ground == sorted(ground)  # it grows brighter, frame by frame
    assert len(set(ground)) > 5


def test_a_video_of_one_frame_has_pictures_too(tmp_path: Path) -> None:
    made = rendering(tmp_path / "a")
    made.add(moving(1), 0)
    video = made.finish().path
    assert Image.open(io.BytesIO(thumbnail(video))).size == (64, 64)
    assert Image.open(io.BytesIO(spritesheet(video))).size == (320, 128)


@pytest.mark.parametrize(
    ("asked", "model", "expected"),
    [
        ((0, 0), (64, 64), Placement(64, 64, 64, 64)),
        ((1280, 720), (64, 64), Placement(1280, 720, 720, 720, 280, 0)),
        ((1280, 0), (832, 480), Placement(1280, 738, 1280, 738, 0, 0)),
        ((0, 480), (832, 480), Placement(832, 480, 832, 480, 0, 0)),
        ((720, 1280), (64, 64), Placement(720, 1280, 720, 720, 0, 280)),
        ((1280, 720), (832, 480), Placement(1280, 720, 1248, 720, 16, 0)),
        ((32, 32), (832, 480), Placement(32, 32, 32, 18, 0, 6)),
        ((16, 4096), (832, 480), Placement(16, 4096, 16, 10, 0, 2042)),
    ],
)
def test_pictures_are_as_large_as_they_fit(asked: tuple[int, int], model: tuple[int, int], expected: Placement) -> None:
    config = replace(millrace_64(), width=model[0], height=model[1])
    placed = placement(Presentation(*asked), config)
    assert placed == expected
    assert all(number % 2 == 0 for number in (placed.inner_width, placed.inner_height, placed.left, placed.top))
    assert placed.left + placed.inner_width <= placed.width
    assert placed.top + placed.inner_height <= placed.height
