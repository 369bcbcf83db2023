"""Files that are measured: frame by frame, in runs, and refused in one sentence that names them."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from model_core.errors import InvalidRequest
from model_core.media import Mp4Writer
from model_core.quality.look import look
from model_core.quality.measures import measured
from model_core.quality.video import Most, Reader, opened, runs
from model_core.quality.wish import Wish
from tests.pictures import moving, video


def written(path: Path, frames: int, height: int = 64, width: int = 64) -> Path:
    path.write_bytes(video(frames, height=height, width=width))
    return path


def test_a_file_has_the_numbers_of_its_frames(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mp4", 30)
    with av.open(str(path)) as container:
        frames = np.stack([Reader().rgb(picture) for picture in container.decode(video=0)])
    seen = look(path, "FILE", Wish())
    assert seen.measures == measured([frames])
    assert seen.adherence is None
    assert seen == look(path, "FILE", Wish())


def test_borders_are_left_out_where_the_content_is_known(tmp_path: Path) -> None:
    frames = np.zeros((12, 64, 96, 3), np.uint8)
    frames[:, :, 16:80] = moving(12)
    writer = Mp4Writer(tmp_path / "wide.mp4", 24)
    writer.write(frames)
    writer.close()
    whole = look(tmp_path / "wide.mp4", "FILE", Wish()).measures
    inner = look(tmp_path / "wide.mp4", "FILE", Wish(content=(16, 0, 64, 64))).measures
    assert (inner.width, inner.height, whole.width) == (64, 64, 96)
    assert inner.flicker is not None
    assert whole.flicker == pytest.approx(inner.flicker * 64 / 96, rel=0.05)


def test_of_a_long_file_runs_all_over_it_are_looked_at(tmp_path: Path) -> None:
    path = written(tmp_path / "long.mp4", 400)
    numbers: list[int] = []
    with opened(path, "FILE") as file:
        assert (file.frames, file.fps, file.width, file.height) == (400, 24.0, 64, 64)
        for frame in file.pictures(100):
            assert frame.begins == (frame.number in {0, 360})
            numbers.append(frame.number)
            # What the picture shows tells its number, up to the brightest one.
            shown = int(Reader().rgb(frame.picture)[60, 60, 0])
            assert abs(shown - min(40 + 3 * frame.number, 220)) <= 3
    assert numbers == [*range(40), *range(360, 400)]
    seen = look(path, "FILE", Wish(most_frames=100)).measures
    assert seen.frames == 80
    assert seen.worst_flicker is not None
    assert seen.worst_flicker < 0.2  # no step leads from one run to the next


@pytest.mark.parametrize(
    ("frames", "most", "expected"),
    [
        (10, 10, [range(10)]),
        (11, 10, [range(10)]),
        (100, 80, [range(40), range(60, 100)]),
        (1000, 120, [range(40), range(480, 520), range(960, 1000)]),
        (1000, 79, [range(40)]),
    ],
)
def test_runs_are_at_equal_distances(frames: int, most: int, expected: list[range]) -> None:
    assert runs(frames, most) == expected


def test_what_is_no_video_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("hello " * 100)
    (tmp_path / "empty.mp4").write_bytes(b"")
    Image.new("RGB", (64, 64)).save(tmp_path / "picture.png")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/a.ts\n")
    written(tmp_path / "whole.mp4", 3)
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "whole.mp4").read_bytes()[:300])
    for name in ("text.txt", "empty.mp4", "picture.png", "list.m3u8"):
        with pytest.raises(InvalidRequest, match=rf"^FILE: must be a video; got a file that is none: {name}: "):
            look(tmp_path / name, "FILE", Wish())
    with pytest.raises(InvalidRequest, match=r"^FILE: must hold a video; got none in cut\.mp4$"):
        look(tmp_path / "cut.mp4", "FILE", Wish())
    (tmp_path / "half.mp4").write_bytes((whole := video(48))[: len(whole) // 2])
    with pytest.raises(InvalidRequest, match=r"^FILE: must be a whole video; got one that cannot be decoded: "):
        look(tmp_path / "half.mp4", "FILE", Wish())
    with pytest.raises(FileNotFoundError):
        look(tmp_path / "missing.mp4", "FILE", Wish())


def test_a_file_with_sound_alone_is_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(InvalidRequest, match=r"^FILE: must hold a video; got none in sound\.mp4$"):
        look(tmp_path / "sound.mp4", "FILE", Wish())


def test_a_file_that_is_too_long_is_refused_with_the_limit(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mp4", 12)
    with pytest.raises(InvalidRequest, match=r"^FILE: must have at most 10 frames; got 12$"), opened(path, "FILE", Most(frames=10)):
        pass


def test_pictures_that_are_too_large_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mp4", 3)
    with (
        pytest.raises(InvalidRequest, match=r"^FILE: must have 1 to 1000 pixels a frame; got 64x64$"),
        opened(path, "FILE", Most(pixels=1000)),
    ):
        pass
