"""Files that are made part by part: they play as one, and whoever made which part, the bytes are the same."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from model_core.file_parts import Placement, joined, part, part_header
from model_core.media import Frames
from tests.pictures import moving

FPS = 24
PLAIN = Placement(64, 64, 64, 64)


def parts(frames: Frames, sizes: tuple[int, ...], placed: Placement = PLAIN, fps: int = FPS) -> list[bytes]:
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    return [part(frames[start : start + size], start, fps, placed) for start, size in zip(starts, sizes, strict=True)]


def file_of(folder: Path, made: list[bytes], placed: Placement = PLAIN, fps: int = FPS) -> bytes:
    (folder / "parts").write_bytes(part_header(placed, fps) + b"".join(made))
    joined(folder / "parts", folder / "whole")
    return (folder / "whole").read_bytes()


def shown(data: bytes) -> tuple[list[Fraction], Frames]:
    with av.open(io.BytesIO(data), "r") as file:
        pictures = list(file.decode(video=0))
    times = [Fraction(picture.pts or 0) * (picture.time_base or 0) for picture in pictures]
    return times, np.stack([np.asarray(picture.to_ndarray(format="rgb24"), np.uint8) for picture in pictures])


@pytest.mark.parametrize(("sizes", "fps"), [((8, 8, 8, 5), 24), ((1, 1, 1), 24), ((9, 8), 7), ((40,), 16)])
def test_parts_in_order_are_one_video_with_its_index_in_front(tmp_path: Path, sizes: tuple[int, ...], fps: int) -> None:
    frames = moving(sum(sizes))
    data = file_of(tmp_path, parts(frames, sizes, fps=fps), fps=fps)
    times, pictures = shown(data)
    assert times == [Fraction(number, fps) for number in range(len(frames))]
    assert np.abs(pictures.astype(int) - frames).mean() < 6
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(io.BytesIO(data), "r") as file:
        stream = file.streams.video[0]
        assert (stream.frames, stream.duration * stream.time_base if stream.duration and stream.time_base else 0) == (
            len(frames),
            Fraction(len(frames), fps),
        )
        keys = [packet.is_keyframe for packet in file.demux(stream) if packet.size]
    starts = {sum(sizes[:number]) for number in range(len(sizes))}
    assert all(keys[start] for start in starts)


def test_a_file_is_the_same_whoever_makes_its_parts(tmp_path: Path) -> None:
    frames = moving(24)
    here = parts(frames, (8, 8, 8))
    part(moving(8, 32, 32), 0, FPS, Placement(32, 32, 32, 32))
    again = [*parts(frames[:16], (8, 8)), part(frames[16:], 16, FPS, PLAIN)]
    assert here == again
    assert file_of(tmp_path, here) == file_of(tmp_path, again)


def test_parts_that_are_made_at_once_have_the_bytes_of_parts_made_alone() -> None:
    """Where x264's mbtree is on, some of these differ in most runs."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 255, (6, 8, 4, 4, 3), np.uint8)
    chunks: list[Frames] = [np.kron(chunk, np.ones((1, 16, 16, 1), np.uint8)) for chunk in coarse]
    wide = Placement(96, 64, 64, 64, left=16)
    alone = [part(chunk, 0, FPS, wide) for chunk in chunks]
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda number: part(chunks[number % 6], 0, FPS, wide) == alone[number % 6], range(600)))
    assert made.count(False) == 0


def test_pictures_stand_in_the_middle_with_black_around_them(tmp_path: Path) -> None:
    placed = Placement(320, 180, 180, 180, 70, 0)
    frames = np.full((3, 64, 64, 3), 200, np.uint8)
    _, pictures = shown(file_of(tmp_path, parts(frames, (3,), placed), placed))
    assert pictures.shape == (3, 180, 320, 3)
    assert pictures[:, :, :66].max() < 12
    assert pictures[:, :, 254:].max() < 12
    assert np.abs(pictures[:, :, 76:244].astype(int) - 200).max() < 12


def test_scaling_is_smooth_and_keeps_where_things_are() -> None:
    from model_core.file_parts import _placed

    frames = moving(1)
    large = _placed(frames[0], Placement(256, 256, 256, 256))
    assert large.shape == (256, 256, 3)
    assert np.abs(large[2::4, 2::4].astype(int) - frames[0]).mean() < 6


def test_bad_sizes_and_files_without_parts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"even.*got 63x64"):
        part_header(Placement(63, 64, 63, 64), FPS)
    (tmp_path / "parts").write_bytes(part_header(PLAIN, FPS))
    with pytest.raises(ValueError, match="at least one part"):
        joined(tmp_path / "parts", tmp_path / "whole")
