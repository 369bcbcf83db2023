"""`headrace restyle` against a server, and `generate --local --source` without one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from headrace.cli import app
from model_core.media import encode_mp4
from model_core.video_file import NoVideo, frames_of
from tests.pictures import moving
from tests.served import serving


def invoked(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """20 frames at 24 a second, wider than they are high."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(encode_mp4(moving(20, 64, 96), 24))
    return path


def test_frames_of_a_file_come_at_the_model_s_rate_and_size(clip: Path) -> None:
    assert [frame.shape for frame in frames_of(clip, 64, 64, 24)] == [(64, 64, 3)] * 20
    assert len([*frames_of(clip, 64, 64, 12)]) == 10
    assert len([*frames_of(clip, 64, 64, 48)]) == 40


def test_a_file_that_is_no_video_says_so(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"nothing")
    with pytest.raises(NoVideo, match="InvalidDataError"):
        next(frames_of(path, 64, 64, 24))


async def test_a_file_plays_and_comes_back_restyled(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    async with serving() as served:
        arguments = (
            "restyle",
            str(clip),
            "--prompt",
            "a blue square",
            "-o",
            str(out),
            "--address",
            served.address,
            "--seed",
            "3",
            "--json",
        )
        done = await asyncio.to_thread(invoked, *arguments)

    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert (told["frames"], told["source_frames"], told["dropped"]) == (20, 20, 0)
    assert np.load(out).shape == (20, 64, 64, 3)
    assert 0 < told["delay_s"] <= told["max_delay_s"]


def test_a_source_without_a_server(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    done = invoked("generate", "a blue square", "--local", "--source", str(clip), "--strength", "0.75", "--out", str(out))

    assert done.exit_code == 0, done.output
    assert np.load(out).shape == (20, 64, 64, 3)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--strength", "0.5"), "--strength: needs --source; got 0.5"),
        (("--source", "clip.mp4"), "--source: needs --local"),
        (("--local", "--source", "nowhere.mp4"), "--source: must be a file that exists; got 'nowhere.mp4'"),
        (("--local", "--source", __file__, "--strength", "2"), "spec.strength: must be above 0 and at most 1; got 2"),
    ],
)
def test_a_wrong_option_is_named(arguments: tuple[str, ...], told: str) -> None:
    done = invoked("generate", "a blue square", *arguments)

    assert done.exit_code == 2
    assert told in done.output
