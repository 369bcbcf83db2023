"""Bad requests to the clip families behind the real gRPC server: field, limit and value are named, and nothing is left behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2

from headrace.v1 import video_pb2 as pb
from model_core.config import EngineConfig
from model_core.local import LocalPipeline
from model_core.pipeline import VideoPipeline
from tests import checkpoints
from tests.fakes import FakeStages
from tests.served import details_of, raw_call, serving

FRAMES = 9


@dataclass
class RealStages:
    """The family's stages in this process, as the server's tests look at them."""

    name: str
    local: LocalPipeline = field(init=False)

    def __post_init__(self) -> None:
        self.local = LocalPipeline(checkpoints.config(self.name), EngineConfig(batch_buckets=(1,)))
        self.config = self.local.config

    @property
    def pipeline(self) -> VideoPipeline:
        return self.local.pipeline

    @property
    def open_streams(self) -> int:
        return self.local.decoder.statistics().sessions + self.local.denoiser.statistics().sessions


@pytest.mark.parametrize("name", ["wan", "ltx", "cogvideox"])
async def test_each_bad_field_is_named_with_its_limit_and_value_and_then_a_clip_is_made(name: str) -> None:
    stages = RealStages(name)
    config = stages.config
    longest = FRAMES / config.fps
    bad: list[tuple[str, Any, str]] = [
        ("prompt", "", "must hold at least 1 character that is not white space; got ''"),
        ("prompt", "x" * 100_000, "must be at most 4096 bytes of UTF-8; got 100000: 'xxx"),
        ("seconds", 600.0, f"must be at most {longest:g}, a clip of model {name}; got 600"),
        ("width", config.width + 16, f"must be {config.width} for model {name}; got {config.width + 16}"),
        ("height", 8, f"must be {config.height} for model {name}; got 8"),
        ("steps", 101, f"must be from {config.min_steps} to 100, or 0 for the default; got 101"),
        ("model", "wan-14b", f"must be one of {name}; got 'wan-14b'"),
    ]
    try:
        async with serving(cast("FakeStages", stages)) as served:
            for field_name, value, sentence in bad:
                spec = pb.VideoSpec(**{"prompt": "a red circle", "seconds": longest, field_name: value})
                error = await raw_call(served, "Generate", pb.GenerateRequest(spec=spec).SerializeToString())
                assert isinstance(error, grpc.aio.AioRpcError)
                assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
                (details,) = details_of(error)
                assert isinstance(details, error_details_pb2.BadRequest)
                told = [(v.field, v.description) for v in details.field_violations]
                assert [where for where, _ in told] == [f"spec.{field_name}"] * len(told)
                assert any(sentence in what for _, what in told), told
                assert len(error.details() or "") < 1000
                await served.nothing_left()
            job = await served.client.generate("a red circle", seconds=longest, seed=7)
            assert job.mp4[4:8] == b"ftyp"
            events = served.client.stream("a red circle", seconds=longest, seed=7)
            assert sum([event.frame_count async for event in events if isinstance(event, pb.Frames)]) == FRAMES
            await served.nothing_left()
    finally:
        await stages.local.aclose()
