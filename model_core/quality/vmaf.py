"""VMAF, by the program that the package imageio-ffmpeg brings: a build of FFmpeg that has libvmaf, which PyAV's has not.

The package is optional, and its program is under the GPL: it runs as a program of its own.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from model_core.errors import HeadraceError
from model_core.quality.video import FORMATS, opened

LEAST_SIDE = 32  # pixels; libvmaf reduces pictures four times, and does not bear it of smaller ones
_WITHIN_S = 3600.0
_DECIMALS = 4
# As `model_core.quality.video` opens files.
_SAFE = ("-format_whitelist", ",".join(FORMATS), "-protocol_whitelist", "file")


class NoVmaf(HeadraceError):
    """VMAF cannot be measured here; says why, and what to install where something is missing."""


def program() -> str:
    """The path of the program. Raises NoVmaf: it is not there."""
    try:
        from imageio_ffmpeg import get_ffmpeg_exe  # noqa: PLC0415 - optional

        return str(get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise NoVmaf("VMAF needs the package imageio-ffmpeg: pip install -r requirements-quality.txt") from error


def vmaf(
    path: Path, field: str, reference: Path, reference_field: str, *, find: Callable[[], str] = program, within_s: float = _WITHIN_S
) -> float:
    """The mean score of the file at `path` against the one at `reference`, from 0 to 100, by the model vmaf_v0.6.1.

    Both have the same size and number of frames: `model_core.quality.reference` finds out.

    Args:
        find: where the program is.
        within_s: seconds after which it is killed.

    Raises:
        InvalidRequest: a file is no video.
        NoVmaf: a file is too small, or see there.
    """
    for each, name in ((path, field), (reference, reference_field)):
        with opened(each, name) as video:
            if min(video.width, video.height) < LEAST_SIDE:
                raise NoVmaf(f"{name} must have {LEAST_SIDE} pixels or more on each side for VMAF; got {video.width}x{video.height}")
    executable = find()
    with tempfile.TemporaryDirectory(prefix="headrace-vmaf-") as folder:
        told = Path(folder) / "vmaf.json"
        # Pictures are compared in order, whatever their times are.
        pairs = "[0:v:0]setpts=N,format=yuv420p[a];[1:v:0]setpts=N,format=yuv420p[b]"
        inputs = [word for each in (path, reference) for word in (*_SAFE, "-i", f"file:{each.resolve()}")]
        command = [
            executable, "-hide_banner", "-nostdin", "-loglevel", "error", *inputs, "-lavfi",
            f"{pairs};[a][b]libvmaf=log_fmt=json:log_path={told.name}:n_threads=1", "-an", "-f", "null", "-",
        ]  # fmt: skip
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, timeout=within_s, check=False)
        except OSError as error:
            raise NoVmaf(f"VMAF needs a program that runs; {executable} does not: {error.strerror}") from error
        except subprocess.TimeoutExpired:
            raise NoVmaf(f"VMAF must be measured within {within_s:g} s; it took longer") from None
        try:
            return round(float(json.loads(told.read_bytes())["pooled_metrics"]["vmaf"]["mean"]), _DECIMALS)
        except (OSError, ValueError, KeyError, TypeError):
            said = done.stderr.decode(errors="replace").strip().splitlines()
            reason = said[-1][:200] if said else f"exit code {done.returncode}"
            raise NoVmaf(f"VMAF needs an FFmpeg with libvmaf; {executable} could not measure it: {reason}") from None
