"""`headrace generate` with more and larger frames, from a server and in one process."""

from __future__ import annotations

import asyncio
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headrace.cli import app
from headrace.cli.console import Failure
from headrace.cli.source import LocalSource, Opened, RawFrames, Wish, enhance_of
from headrace.v1 import video_pb2 as pb
from model_core.errors import InvalidRequest
from model_core.video_file import frames_of
from tests.documents import ROOT, named_by
from tests.fakes import FakeStages
from tests.served import serving

PROMPT = "a red circle moving left"


def invoked(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


async def test_a_server_s_frames_are_those_of_the_pipeline_in_this_process() -> None:
    asked = ("--seconds", "1", "--seed", "3", "--enhance-frames", "2", "--enhance-size", "2", "--json")
    async with serving(FakeStages(enhances=True)) as served:
        outcome = await asyncio.to_thread(invoked, "generate", PROMPT, "--address", served.address, *asked)
    assert outcome.exit_code == 0, outcome.output
    report = json.loads(outcome.stdout)
    assert (report["width"], report["height"], report["media_fps"], report["frames"]) == (128, 128, 48, 48)
    wish = Wish(PROMPT, 1.0, 3, enhance_frames=2, enhance_size=2)
    events = [event async for event in LocalSource(FakeStages(enhances=True)).stream(wish)]
    assert events[0] == Opened("millrace-64", 3, 128, 128, 48, 48)
    assert sum(event.count for event in events if isinstance(event, RawFrames)) == 48


async def test_without_an_enhancer_the_pipeline_says_so_as_a_server_does() -> None:
    with pytest.raises(InvalidRequest, match=r"spec\.enhance.*nothing here enhances"):
        await anext(LocalSource(FakeStages()).stream(Wish(PROMPT, enhance_size=2)))


def test_what_does_not_fit_a_request_is_named_and_frames_as_rendered_ask_for_nothing() -> None:
    assert enhance_of(Wish(PROMPT)) is None
    assert enhance_of(Wish(PROMPT, enhance_size=4)) == pb.Enhance(frames=1, size=4)
    with pytest.raises(Failure, match=r"--enhance-frames.*from 1 to 64; got 0"):
        enhance_of(Wish(PROMPT, enhance_frames=0))


@pytest.mark.slow
def test_the_local_pipeline_enhances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = named_by("tests/unit/headrace/test_cli_enhance.py::test_the_local_pipeline_enhances", [ROOT / "docs" / "enhance.md"])
    monkeypatch.chdir(tmp_path)
    program, *arguments = shlex.split(block.text)
    assert program == "headrace"
    outcome = invoked(*arguments, "--json")
    assert outcome.exit_code == 0, outcome.output
    report = json.loads(outcome.stdout.splitlines()[-1])
    assert (report["width"], report["media_fps"], report["frames"]) == (128, 48, 48)
    assert len([*frames_of(tmp_path / "circle.mp4", 128, 128, 48)]) == 48
