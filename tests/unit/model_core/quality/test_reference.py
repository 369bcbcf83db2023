"""How far a video is from a reference: equal ones, known differences, and pairs that cannot be compared."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model_core.errors import InvalidRequest
from model_core.media import Mp4Writer
from model_core.quality.reference import likeness
from model_core.quality.vmaf import NoVmaf, vmaf
from tests.pictures import moving


def written(path: Path, frames: NDArray[np.uint8]) -> Path:
    writer = Mp4Writer(path, 24)
    writer.write(frames)
    writer.close()
    return path


def test_a_video_is_identical_to_itself(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mp4", moving(9))
    like = likeness(path, "FILE", path, "--reference")
    assert (like.frames, like.identical, like.psnr_db, like.worst_psnr_db, like.ssim, like.worst_ssim, like.xpsnr_db) == (
        9, True, None, None, 1.0, 1.0, None,
    )  # fmt: skip
    assert json.loads(json.dumps(like.as_json(), allow_nan=False))["identical"] is True


def test_a_known_difference_has_a_known_psnr(tmp_path: Path) -> None:
    """Grey is stored without loss, so each plane of brightness is off by as much as it was made to be."""
    one = written(tmp_path / "a.mp4", np.full((6, 64, 64, 3), 100, np.uint8))
    other = written(tmp_path / "b.mp4", np.full((6, 64, 64, 3), 120, np.uint8))
    like = likeness(one, "FILE", other, "--reference")
    off = round(120 * 219 / 255) - round(100 * 219 / 255)  # in the range of television
    error = off**2 * 4 / 6  # planes of colour, half as many values, are equal
    assert like.psnr_db == pytest.approx(10 * math.log10(255**2 / error), abs=0.3)
    assert like.psnr_db == pytest.approx(like.worst_psnr_db)
    assert not like.identical
    assert 0.9 < like.ssim < 1
    assert like.xpsnr_db is not None


def test_one_frame_that_differs_is_the_worst(tmp_path: Path) -> None:
    frames = moving(8)
    changed = frames.copy()
    changed[5] = 255 - changed[5]
    like = likeness(written(tmp_path / "a.mp4", changed), "FILE", written(tmp_path / "b.mp4", frames), "--reference")
    assert like.psnr_db is not None
    assert like.worst_psnr_db is not None
    assert like.worst_psnr_db < 15 < like.psnr_db
    assert like.worst_ssim < 0.6 < like.ssim


def test_pairs_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    one = written(tmp_path / "a.mp4", moving(8))
    wide = written(tmp_path / "wide.mp4", moving(8, 64, 96))
    long = written(tmp_path / "long.mp4", moving(9))
    with pytest.raises(InvalidRequest, match=r"^--reference: must have the size of FILE, 64x64; got 96x64$"):
        likeness(one, "FILE", wide, "--reference")
    with pytest.raises(InvalidRequest, match=r"^--reference: must have as many frames as FILE, 8; got 9$"):
        likeness(one, "FILE", long, "--reference")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(InvalidRequest, match=r"^--reference: must be a video; got a file that is none: "):
        likeness(one, "FILE", tmp_path / "text.mp4", "--reference")


def test_a_length_that_no_header_tells_is_found_out(tmp_path: Path) -> None:
    """Matroska says no number of frames."""
    import av

    paths = []
    for name, count in (("a.mkv", 5), ("b.mkv", 7)):
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream("libx264", rate=24)
            stream.width = stream.height = 64
            for pixels in moving(count):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        paths.append(tmp_path / name)
    with pytest.raises(InvalidRequest, match="must have as many frames as FILE; FILE has 5, and --reference has more"):
        likeness(paths[0], "FILE", paths[1], "--reference")
    with pytest.raises(InvalidRequest, match="must have as many frames as FILE; --reference has 5, and FILE has more"):
        likeness(paths[1], "FILE", paths[0], "--reference")


def test_vmaf_of_noise_is_lower_than_of_the_same_video(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="VMAF needs the optional package imageio-ffmpeg")
    frames = moving(8)
    noise = np.random.default_rng(1).normal(0, 25, frames.shape)
    plain = written(tmp_path / "a.mp4", frames)
    noisy = written(tmp_path / "b.mp4", np.clip(frames + noise, 0, 255).astype(np.uint8))
    same, worse = (vmaf(each, "FILE", plain, "--reference") for each in (plain, noisy))
    assert same > 90
    assert worse < same - 10


def test_why_there_is_no_vmaf_is_told(tmp_path: Path) -> None:
    def missing() -> str:
        raise NoVmaf("VMAF needs a package")

    small, path = written(tmp_path / "small.mp4", moving(4, 16, 64)), written(tmp_path / "a.mp4", moving(4))
    with pytest.raises(NoVmaf, match=r"^FILE must have 32 pixels or more on each side for VMAF; got 64x16$"):
        vmaf(small, "FILE", small, "--reference", find=missing)
    with pytest.raises(NoVmaf, match="needs a package"):
        vmaf(path, "FILE", path, "--reference", find=missing)
    with pytest.raises(NoVmaf, match=r"^VMAF needs a program that runs; .*nowhere does not: No such file"):
        vmaf(path, "FILE", path, "--reference", find=lambda: str(tmp_path / "nowhere"))
    other = tmp_path / "other"
    other.write_text(f"#!{sys.executable}\nraise SystemExit('no such filter: libvmaf')\n")
    other.chmod(0o755)
    with pytest.raises(NoVmaf, match=r"needs an FFmpeg with libvmaf; .* could not measure it: no such filter: libvmaf$"):
        vmaf(path, "FILE", path, "--reference", find=lambda: str(other))


def test_a_program_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    path, slow = written(tmp_path / "a.mp4", moving(4)), tmp_path / "slow"
    slow.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(600)\n")
    slow.chmod(0o755)
    with pytest.raises(NoVmaf, match=r"^VMAF must be measured within 0\.2 s; it took longer$"):
        vmaf(path, "FILE", path, "--reference", find=lambda: str(slow), within_s=0.2)
