"""Media: fragments made one by one must play as one file, and equal frames must give equal bytes."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model_core import media

FPS = 24


def clip(n: int, height: int = 64, width: int = 64) -> media.Frames:
    """A moving gradient `[n, height, width, 3]`: no two frames equal, smooth enough for 4:2:0."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([np.stack([2 * x + 3 * i + 20, 2 * y + 40, x + y], -1) for i in range(n)]).astype(np.uint8)


def decode(data: bytes) -> tuple[list[int], media.Frames]:
    """Presentation times in frames, and the frames."""
    with av.open(io.BytesIO(data), "r") as container:
        pictures = list(container.decode(video=0))
    times = [(p.pts or 0) * p.time_base * FPS for p in pictures if p.time_base is not None]
    assert all(t.denominator == 1 for t in times)
    return [int(t) for t in times], np.stack([p.to_ndarray(format="rgb24") for p in pictures])


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    mse = float(np.mean((a.astype(np.float64) - b) ** 2))
    return float(10 * np.log10(255**2 / mse)) if mse else float("inf")


def fragments(frames: media.Frames, sizes: tuple[int, ...]) -> list[bytes]:
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [media.fmp4_fragment(frames[s : s + n], s, FPS) for s, n in zip(starts, sizes, strict=True)]


def test_fragments_in_order_play_as_one_file() -> None:
    frames = clip(29)
    data = media.fmp4_init_segment(64, 64, FPS) + b"".join(fragments(frames, (8, 8, 8, 5)))
    times, got = decode(data)
    assert times == list(range(29))
    assert min(psnr(a, b) for a, b in zip(got, frames, strict=True)) > 35


def test_a_viewer_may_join_at_any_fragment() -> None:
    frames = clip(24)
    data = media.fmp4_init_segment(64, 64, FPS) + b"".join(fragments(frames, (8, 8, 8))[1:])
    times, got = decode(data)
    assert times == list(range(8, 24))
    assert min(psnr(a, b) for a, b in zip(got, frames[8:], strict=True)) > 35


def test_each_fragment_begins_with_a_key_frame_and_no_other() -> None:
    data = media.fmp4_init_segment(64, 64, FPS) + b"".join(fragments(clip(16), (8, 8)))
    with av.open(io.BytesIO(data), "r") as container:
        keys = [p.is_keyframe for p in container.demux(video=0) if p.size]
    assert keys == ([True] + [False] * 7) * 2


def test_a_single_frame_fragment_lasts_one_frame() -> None:
    data = media.fmp4_init_segment(64, 64, FPS) + b"".join(fragments(clip(4), (1, 1, 1, 1)))
    with av.open(io.BytesIO(data), "r") as container:
        lengths = {p.duration * p.time_base for p in container.demux(video=0) if p.size and p.duration is not None}
    assert lengths == {Fraction(1, FPS)}


def test_fragments_are_a_pure_function_across_processes() -> None:
    frames = clip(8)
    here = media.fmp4_fragment(frames, 80, FPS)
    media.fmp4_fragment(clip(8)[::-1], 0, FPS)
    assert media.fmp4_fragment(frames, 80, FPS) == here
    code = (
        "import sys, hashlib, numpy as np; from model_core import media\n"
        "f = np.frombuffer(sys.stdin.buffer.read(), np.uint8).reshape(8, 64, 64, 3)\n"
        "print(hashlib.sha256(media.fmp4_fragment(f, 80, 24) + media.fmp4_init_segment(64, 64, 24)).hexdigest())"
    )
    root = Path(__file__).parents[3]
    other = subprocess.run([sys.executable, "-c", code], input=frames.tobytes(), capture_output=True, cwd=root, timeout=600, check=True)
    assert other.stdout.decode().strip() == hashlib.sha256(here + media.fmp4_init_segment(64, 64, FPS)).hexdigest()


def test_position_changes_the_header_only() -> None:
    frames = clip(8)
    first, later = media.fmp4_fragment(frames, 0, FPS), media.fmp4_fragment(frames, 8 * 10**6, FPS)
    assert first != later
    assert first[first.index(b"mdat") :] == later[later.index(b"mdat") :]
    times, _ = decode(media.fmp4_init_segment(64, 64, FPS) + later)
    assert times == list(range(8 * 10**6, 8 * 10**6 + 8))


def test_fragments_carry_no_encoder_signature() -> None:
    assert b"x264" not in media.fmp4_fragment(clip(8), 0, FPS)


@pytest.mark.parametrize(("width", "height"), [(63, 64), (64, 63), (0, 64)])
def test_sizes_that_h264_cannot_hold_are_named(width: int, height: int) -> None:
    with pytest.raises(ValueError, match=f"even.*got {width}x{height}"):
        media.fmp4_init_segment(width, height, FPS)


def test_bad_frames_are_refused() -> None:
    bad_frames: list[Any] = [clip(1)[:0], clip(1)[0], clip(1).astype(np.float32)]
    for bad in bad_frames:
        with pytest.raises(ValueError, match=r"uint8 \[N, H, W, 3\]"):
            media.fmp4_fragment(bad, 0, FPS)
    with pytest.raises(ValueError, match="first_frame must be at least 0, got -8"):
        media.fmp4_fragment(clip(8), -8, FPS)


def test_mp4_has_its_index_in_front_and_every_frame() -> None:
    frames = clip(20)
    data = media.encode_mp4(frames, FPS)
    assert data.index(b"moov") < data.index(b"mdat")
    times, got = decode(data)
    assert times == list(range(20))
    assert min(psnr(a, b) for a, b in zip(got, frames, strict=True)) > 35
    assert media.encode_mp4(frames, FPS) == data


def test_mp4_writer_takes_frames_in_any_grouping(tmp_path: Path) -> None:
    frames = clip(11)
    writer = media.Mp4Writer(tmp_path / "a.mp4", FPS)
    for part in (frames[:3], frames[3:4], frames[4:]):
        writer.write(part)
    writer.close()
    times, got = decode((tmp_path / "a.mp4").read_bytes())
    assert times == list(range(11))
    assert np.array_equal(got, decode(media.encode_mp4(frames, FPS))[1])


def test_a_file_that_cannot_be_written_ends_with_an_error_and_not_with_the_process() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 64, 64, 3), np.uint8)
    writer = media.Mp4Writer(Path("/dev/full"), FPS)
    with pytest.raises(OSError, match="No space left on device"):
        writer.write(noise)
    writer.close()
    writer = media.Mp4Writer(Path("/dev/full"), FPS)
    writer.write(noise[:1])
    with pytest.raises(OSError, match="No space left on device"):  # the first picture leaves the encoder only now
        writer.close()


def test_mp4_writer_may_be_closed_before_a_frame_came(tmp_path: Path) -> None:
    media.Mp4Writer(tmp_path / "a.mp4", FPS).close()
    writer = media.Mp4Writer(tmp_path / "b.mp4", FPS)
    with pytest.raises(ValueError, match="even"):
        writer.write(clip(1, 63, 64))
    writer.close()


def test_jpeg_keeps_colour_edges() -> None:
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[:, 33:] = (255, 0, 0)
    got = np.asarray(Image.open(io.BytesIO(media.jpeg(frame, 95))))
    assert got.shape == (64, 64, 3)
    assert psnr(got, frame) > 30
    assert len(media.jpeg(clip(1)[0], 30)) < len(media.jpeg(clip(1)[0], 95))


def test_gif_plays_at_the_media_rate() -> None:
    with Image.open(io.BytesIO(media.encode_gif(clip(25), FPS))) as image:
        total_ms = 0
        for i in range(25):
            image.seek(i)
            total_ms += image.info["duration"]
        with pytest.raises(EOFError):
            image.seek(25)
    assert total_ms == pytest.approx(25 / FPS * 1000, abs=10)


def test_upscale() -> None:
    frames = clip(2, 4, 6)
    near = media.upscale(frames, 3, "nearest")
    assert near.shape == (2, 12, 18, 3)
    assert np.array_equal(near[:, 1::3, 1::3], frames)
    assert media.upscale(frames, 2).shape == (2, 8, 12, 3)
    assert media.upscale(frames, 1) is frames
    with pytest.raises(ValueError, match="scale must be at least 1, got 0"):
        media.upscale(frames, 0)


def test_contact_sheet_places_tiles_in_reading_order() -> None:
    frames = np.stack([np.full((8, 8, 3), 10 * i, np.uint8) for i in range(10)])
    sheet = np.asarray(media.contact_sheet(frames, columns=3, every=2, scale=2))
    assert sheet.shape == (2 * 20 + 4, 3 * 20 + 4, 3)
    assert [int(sheet[10, 10 + 20 * c, 0]) for c in range(3)] == [0, 20, 40]
    assert [int(sheet[30, 10 + 20 * c, 0]) for c in range(3)] == [60, 80, 255]


def test_contact_sheet_marks_and_captions() -> None:
    frames = np.zeros((4, 16, 16, 3), np.uint8)
    plain = np.asarray(media.contact_sheet(frames, columns=4))
    sheet = media.contact_sheet(frames, columns=4, captions=["a", "b", "c", "a caption far too long for its tile"], marked={2})
    got = np.asarray(sheet)
    assert got.shape[0] > plain.shape[0]
    red = np.argwhere((got == (220, 30, 30)).all(-1))
    tile = 36
    assert red[:, 1].min() >= 2 * tile
    assert red[:, 1].max() < 3 * tile + 4
    with pytest.raises(ValueError, match="as many as tiles, 4, got 1"):
        media.contact_sheet(frames, captions=["a"])
    assert Image.open(io.BytesIO(media.png(sheet))).size == sheet.size


def test_frame_hash_ignores_grouping_but_not_order() -> None:
    frames = clip(6)
    whole = hashlib.sha256(frames.tobytes()).hexdigest()
    assert media.frames_sha256([frames]) == whole
    assert media.frames_sha256([frames[0].tobytes(), frames[1:4], frames[4], frames[5:]]) == whole
    assert media.frames_sha256([frames[::-1]]) != whole
