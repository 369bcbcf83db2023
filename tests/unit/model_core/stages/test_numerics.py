"""Two replicas on two kinds of processor: either they give equal bits, or they say that they do not, and sessions go to one that does."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deployments.links.routing import rounds_alike
from deployments.links.wishes import Avoid
from deployments.replicas.stages import numerics
from model_core.pipeline import VideoPipeline
from model_core.probe import Probe
from model_core.session_log import SessionRecord
from model_core.types import FrameChunk, LatentChunk, Numerics, SessionContext
from tests.fakes import FakeDecoder, FakeStages
from tests.models import random_context, small_config
from tests.processor import CHUNKS, PORTABLE, Encoder, Made, Replica, config, played
from tests.rounding import assert_rounds_alike, assert_same_picture
from tests.routers import OURS, THEIRS, StubReplica, chosen
from tests.served import serving

ROOT = Path(__file__).parents[4]
_BOUNDARY = 3
_DIT = config().dit
_TERMS = _DIT.mlp_ratio * _DIT.width
_SUMS = 3 * _DIT.depth * 8  # two steps and a commit; in a layer 8 products follow one another
_CONVOLUTIONS = 20


@dataclass(frozen=True, slots=True)
class Seen:
    """A session played in this process, cut after `_BOUNDARY` chunks here and gone on with elsewhere, and elsewhere from its beginning."""

    here: Made
    told: dict[str, str]
    record: SessionRecord
    alike: tuple[Made, Made]
    other: tuple[Made, Made]
    capabilities: tuple[str, str]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Two processes: one under the instruction set of this one, one under the least that PyTorch has."""
    folder = tmp_path_factory.mktemp("processors")

    async def cut() -> tuple[Made, dict[str, str], SessionRecord]:
        replica = Replica()
        told = numerics({"text_encoder": Encoder(), "denoiser": replica.denoiser, "decoder": replica.decoder})
        try:
            begun = await replica.open()
            await played(begun, _BOUNDARY)
            return await played(await replica.open()), told, begun.record()
        finally:
            await replica.aclose()

    here, told, record = asyncio.run(cut())
    (folder / "record").write_bytes(record.to_bytes())
    plain = os.environ | {"PYTHONPATH": str(ROOT)}
    running = {
        name: subprocess.Popen([sys.executable, "-m", "tests.processor", folder / "record", folder / f"{name}.npz"], env=env, cwd=ROOT)
        for name, env in (("alike", plain), ("other", plain | PORTABLE))
    }
    assert {name: process.wait(600) for name, process in running.items()} == {"alike": 0, "other": 0}
    arrays = {name: np.load(folder / f"{name}.npz") for name in running}
    made = {name: (Made.read(got, "whole"), Made.read(got, "rest")) for name, got in arrays.items()}
    capabilities = (torch.backends.cpu.get_cpu_capability(), str(arrays["other"]["capability"][0]))
    return Seen(here, told, record, made["alike"], made["other"], capabilities)


def test_replicas_that_round_alike_say_so_and_give_equal_frames(seen: Seen) -> None:
    whole, rest = seen.alike
    assert all(seen.here.numerics)
    assert whole.numerics == rest.numerics == seen.here.numerics
    assert whole.frames.tobytes() == seen.here.frames.tobytes()
    frames = seen.here.frames[config().grid.first_frame(_BOUNDARY) :]
    assert rest.frames.tobytes() == frames.tobytes()
    assert rest.latents.tobytes() == seen.here.latents[_BOUNDARY:].tobytes()


def test_replicas_that_do_not_round_alike_say_so(seen: Seen) -> None:
    whole, _ = seen.other
    (denoiser, decoder), (own_denoiser, own_decoder) = whole.numerics, seen.here.numerics
    assert (denoiser == own_denoiser) == np.array_equal(whole.latents, seen.here.latents)
    assert (denoiser, decoder) != (own_denoiser, own_decoder) or np.array_equal(whole.frames, seen.here.frames)
    if len(set(seen.capabilities)) == 1:
        pytest.skip(f"this processor, or the environment, has but one instruction set: {seen.capabilities[0]}")
    assert denoiser != own_denoiser


def test_a_session_that_goes_on_where_nobody_rounds_alike_has_no_seam_and_is_apart_by_rounding_alone(seen: Seen) -> None:
    """Its next chunk is made from the very latents that were made before; with each chunk after it rounding has more to work on."""
    _, rest = seen.other
    assert len(rest.latents) == CHUNKS - _BOUNDARY
    assert_rounds_alike(rest.latents[0], seen.here.latents[_BOUNDARY], terms=_TERMS, sums=_SUMS)
    first, after = (config().grid.first_frame(chunk) for chunk in (_BOUNDARY, _BOUNDARY + 1))
    assert_same_picture(rest.frames[: after - first], seen.here.frames[first:after], terms=9 * 48, sums=_SUMS + _CONVOLUTIONS)


def test_the_log_says_by_what_it_was_made(seen: Seen) -> None:
    numerics = Numerics(*seen.here.numerics)
    assert seen.record.numerics == numerics
    assert SessionRecord.from_bytes(seen.record.to_bytes()).numerics == numerics
    older = seen.record.to_bytes().replace(b'"numerics"', b'"whatever"')  # as one is read that was written before there was this field
    assert SessionRecord.from_bytes(older).numerics == Numerics()


def test_a_replica_tells_the_router_of_each_stage_that_makes_chunks(seen: Seen) -> None:
    assert seen.told == dict(zip(("denoiser", "decoder"), seen.here.numerics, strict=True))
    assert rounds_alike(seen.told, seen.record.numerics)


def test_a_chunk_that_was_given_leaves_what_is_known() -> None:
    assert Numerics("", "decoder 2").after(Numerics("denoiser", "decoder")) == Numerics("denoiser", "decoder 2")


def test_one_bit_makes_other_numerics() -> None:
    def told(numbers: Any) -> str:
        probe = Probe(lambda: np.asarray(numbers, np.float32))
        assert not probe.numerics
        probe.learn()
        return probe.numerics

    one = np.float32(1.0)
    assert told([one, 2.0]) == told([one, 2.0])
    assert told([one, 2.0]) != told([np.nextafter(one, np.float32(2)), 2.0])


class TwoKinds(FakeDecoder):
    """From the third chunk on another denoiser makes them."""

    def _decode(self, chunk: LatentChunk, context: SessionContext) -> FrameChunk:
        return replace(super()._decode(chunk, context), numerics=Numerics(OURS if chunk.index < 2 else THEIRS, OURS))


async def test_the_front_door_logs_where_a_session_went_on_with_other_roundings(caplog: pytest.LogCaptureFixture) -> None:
    stages = FakeStages()
    stages.pipeline = VideoPipeline(stages.config, stages.encoder, TwoKinds(stages.config, stages.denoiser))
    with caplog.at_level(logging.INFO, "observability.session_meter"):
        async with serving(stages) as served:
            assert [event async for event in served.client.stream("a red circle", seconds=1.5)]
    frame = stages.config.grid.first_frame(2)
    told = [record.message for record in caplog.records if "round" in record.message]
    assert told == [f"from frame {frame} on the session is made by devices that round otherwise"]


# -- routing ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "alike"),
    [
        ({"denoiser": OURS}, True),
        ({"denoiser": THEIRS}, False),
        ({"decoder": OURS, "denoiser": OURS}, True),
        ({"decoder": OURS, "denoiser": THEIRS}, False),
        ({"text_encoder": THEIRS, "decoder": OURS, "denoiser": OURS}, True),
        ({"text_encoder": THEIRS}, False),
        ({"denoiser": ""}, False),
        ({}, False),
        (None, False),
    ],
)
def test_a_replica_rounds_alike_if_each_of_its_stages_does(told: dict[str, str] | None, alike: bool) -> None:
    assert rounds_alike(told, Numerics(OURS, OURS)) is alike
    assert rounds_alike(told, None) is False
    assert rounds_alike(told, Numerics()) is False


def leg(numerics: str) -> SessionContext:
    return replace(random_context("s", small_config()), numerics=Numerics(numerics, numerics))


@pytest.mark.parametrize("sessions", [4, None])
async def test_a_leg_goes_to_a_replica_that_rounds_as_the_last_one_did(sessions: int | None) -> None:
    replicas = [StubReplica("a", THEIRS, 0, sessions), StubReplica("b", OURS, 2, sessions), StubReplica("c", THEIRS, 1, sessions)]
    assert await chosen(replicas, leg(OURS)) == "b"
    assert await chosen(replicas, leg(THEIRS)) == "a"


async def test_where_none_has_room_that_does_it_goes_to_another() -> None:
    replicas = [StubReplica("a", THEIRS), StubReplica("b", OURS, busy=4)]
    assert await chosen(replicas, leg(OURS)) == "a"
    assert await chosen([StubReplica("b", OURS, busy=8), *replicas[:1]], leg(OURS)) == "a"  # it takes no more calls at all
    assert await chosen([StubReplica("a", THEIRS), StubReplica("c", THEIRS)], leg(OURS)) == "a"


async def test_a_replica_that_just_failed_its_caller_is_taken_only_if_no_other_takes_a_call() -> None:
    replicas = [StubReplica("a", OURS), StubReplica("b", OURS, busy=3)]
    avoid = Avoid(frozenset({b"a".hex()}))
    assert await chosen(replicas, leg(""), avoid) == "b"
    assert await chosen(replicas, "a prompt", avoid) == "b"
    assert await chosen(replicas[:1], leg(""), avoid) == "a"
    assert await chosen([replicas[0], StubReplica("b", OURS, busy=8)], leg(OURS), avoid) == "a"


async def test_a_new_session_and_other_calls_go_by_room_alone() -> None:
    replicas = [StubReplica("a", THEIRS), StubReplica("b", OURS)]
    assert [await chosen(replicas, *arguments) for arguments in ((leg(""),), ("a prompt",), ())] == ["a", "a", "a"]
