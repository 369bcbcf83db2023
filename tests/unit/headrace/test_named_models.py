"""A model named on the command line or in a notebook: a preset, or the folder of a checkpoint, in a length that it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.config.application import AppConfig
from headrace.cli import source
from headrace.cli.console import Failure
from headrace.cli.recording import default_scale
from headrace.cli.serve import model_args
from headrace.cli.source import LocalSource, Opened, RawFrames, Wish
from headrace.client import HeadraceClient
from headrace.v1 import video_pb2 as pb
from model_core.config import EngineConfig
from model_core.errors import InvalidRequest, WeightsError
from model_core.local import load_pipeline
from model_core.named import model_named
from model_core.presets import millrace_64
from tests import checkpoints
from tests.fakes import FakeStages

SMALL = {"height": 32, "width": 48, "frames": 9}


def test_a_preset_or_a_folder() -> None:
    assert model_named() == model_named("millrace-64") == millrace_64()
    config = model_named(str(checkpoints.folder("wan")), **SMALL)
    assert (config.name, config.family, config.height, config.width, config.grid.max_frames) == ("wan", "wan", 32, 48, 9)


@pytest.mark.parametrize(
    ("name", "more", "sentence"),
    [
        ("sora", {}, "model: must be one of: millrace-64, millrace-64-world, or the folder of a checkpoint; got 'sora'"),
        ("\x00" * 9, {}, "or the folder of a checkpoint; got"),
        ("~nobody-here/x", {}, "or the folder of a checkpoint; got '~nobody-here/x'"),
        ("x" * 5000, {}, "or the folder of a checkpoint; got 'x{256}'$"),
        ("millrace-64", {"frames": 9}, "must be the folder of a checkpoint where size or frames are given; got millrace-64"),
        ("", {"height": 64}, "must be the folder of a checkpoint where size or frames are given; got millrace-64"),
    ],
)
def test_what_names_no_model(name: str, more: dict[str, int], sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        model_named(name, **more)


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"is empty, and has no model_index\.json"):
        model_named(str(tmp_path))
    (tmp_path / "wan.gguf").touch()
    with pytest.raises(WeightsError, match=r"wan\.gguf is the quantised weights of another program .* and no folder; take the checkpoint"):
        model_named(str(tmp_path / "wan.gguf"))


def test_a_pipeline_of_a_checkpoint_makes_a_clip_of_its_length() -> None:
    pipeline = load_pipeline(str(checkpoints.folder("wan")), EngineConfig(batch_buckets=(1,)), **SMALL)
    whole = pipeline.generate("a dog", steps=2)
    assert whole.shape == (9, 32, 48, 3)
    assert not np.array_equal(whole, pipeline.generate("a dog", steps=2, guidance=1.0))
    assert not np.array_equal(whole, pipeline.generate("a dog", steps=2, negative_prompt="a cat"))
    assert len(pipeline.generate("a dog", seconds=5 / 16, steps=2)) == 5
    with pytest.raises(InvalidRequest, match=r"seconds: must be at most 0.5625, a clip of model wan; got 2"):
        pipeline.generate("a dog", seconds=2.0)
    for seconds in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidRequest, match="seconds: must be a number above 0; got"):
            pipeline.generate("a dog", seconds=seconds)


@pytest.mark.parametrize(
    ("size", "scale"), [((64, 64), 4), ((128, 96), 4), ((256, 256), 2), ((352, 352), 1), ((832, 480), 1), ((4096, 16), 1)]
)
def test_only_small_frames_are_enlarged(size: tuple[int, int], scale: int) -> None:
    assert default_scale(*size) == scale


@pytest.mark.parametrize(("text", "size"), [(None, (0, 0)), ("832x480", (832, 480)), ("16x16", (16, 16))])
def test_a_size(text: str | None, size: tuple[int, int]) -> None:
    assert source.read_size(text) == size


@pytest.mark.parametrize("text", ["832", "x", "832x", "-1x4", "1e3x4", "8" * 99 + "x1", "\u0663x4x"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(Failure, match="--size: must be WIDTHxHEIGHT, such as 832x480; got"):
        source.read_size(text)


def test_the_options_of_serve_are_a_configuration() -> None:
    folder = str(checkpoints.folder("wan"))
    assert model_args(None, (0, 0), 0) == {}
    assert model_args("millrace-64", (0, 0), 0) == {"model": "millrace-64"}
    args = model_args(folder, (48, 32), 9)
    assert AppConfig.model_validate(args).preset() == model_named(folder, **SMALL)
    with pytest.raises(WeightsError, match="width must be a multiple of 16"):
        model_args(folder, (50, 32), 9)


async def test_a_length_that_nobody_says_is_one_that_the_model_makes() -> None:
    assert Wish("a").length(9 / 16) == 9 / 16
    assert Wish("a").length(60.0) == 5.0
    assert Wish("a", 7.0).length(0.5) == 7.0
    events = [event async for event in LocalSource(FakeStages()).stream(Wish("a red circle"))]
    assert isinstance(events[0], Opened)
    assert events[0].frames == sum(event.count for event in events if isinstance(event, RawFrames)) == 120


class Lists(HeadraceClient):
    """A client that knows what the server would list."""

    def __init__(self, *longest_s: float) -> None:
        self._models = [pb.Model(max_stream_seconds=seconds, default_model=not index) for index, seconds in enumerate(longest_s)]

    async def list_models(self, timeout_s: float | None = 10.0) -> list[pb.Model]:
        return self._models


@pytest.mark.parametrize(
    ("longest", "wish", "asked"), [((3.0, 60.0), Wish("a"), 3.0), ((60.0,), Wish("a"), 5.0), ((), Wish("a", 9.0), 9.0)]
)
async def test_a_server_is_asked_what_its_model_makes(longest: tuple[float, ...], wish: Any, asked: float) -> None:
    assert await source.wished_seconds(Lists(*longest), wish) == asked


async def test_local_frames_of_a_checkpoint_follow_what_is_wished_for() -> None:
    seen = []
    async with source.local(str(checkpoints.folder("wan")), (48, 32), 9) as made:
        for wish in (Wish("a dog", seed=7, steps=2), Wish("a dog", seed=7, steps=2, guidance=1.0), Wish("a dog", seed=7, steps=3)):
            events = [event async for event in made.stream(wish)]
            assert events[0] == Opened("wan", 7, 48, 32, 16, 9)
            seen.append(b"".join(event.data for event in events if isinstance(event, RawFrames)))
    assert [len(data) for data in seen] == [9 * 48 * 32 * 3] * 3
    assert len(set(seen)) == 3
