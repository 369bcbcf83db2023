"""What the soak run counts as missed, and that its poison stays with the session that brings it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from bench.faults.soak import MODEL, Late, Memory, SoakReport, late_chunks, lateness_by_kill, overrides, summed
from bench.kit.guests import LEFT, Call, Guests
from bench.kit.load import Arrival, Chunk, Heard
from bench.kit.poisoned import NAN, OPEN, STEP, PoisonedSampler
from deployments.cluster.local import STAGED_CONFIG, load
from tests.fakes import FakeEncoder, FakeStages
from tests.models import random_context, small_config
from tests.served import serving

PER_CHUNK_S = MODEL.chunk_seconds


def memory(*mb: float, every_s: float = 60.0) -> Memory:
    return Memory("FrontDoor", 7, [n * every_s for n in range(len(mb))], list(mb))


def caller(late_s: Sequence[float], result: str = "completed") -> Heard:
    chunks = [Chunk(n * PER_CHUNK_S + late, n * MODEL.frames_per_chunk, MODEL.frames_per_chunk) for n, late in enumerate(late_s)]
    return Heard(Arrival(0.0, "live", 9.0, 1), 0.0, lambda: 0.0, result, chunks=chunks)


def report(
    heard: Sequence[Heard] = (), calls: Sequence[Call] = (), memories: Sequence[Memory] = (), left: Sequence[str] = ()
) -> SoakReport:
    return summed(600.0, 8, 4, heard or [caller([0.0] * 2000)], calls, [(100.0, "Denoiser")], memories, left)


@pytest.mark.parametrize(
    ("series", "grew"),
    [
        ([300.0] * 12, False),
        ([100, 300, 301, 299, 300, 301, 300, 299, 300, 301], False),  # what it takes to be warm is no growth
        ([300.0 + 5 * n for n in range(12)], True),
        ([100.0 + n for n in range(12)], False),  # within noise
        ([100.0 + 50 * n for n in range(5)], False),  # too short a life
    ],
)
def test_memory_grows_where_its_last_quarter_holds_more_than_its_first(series: list[float], grew: bool) -> None:
    assert memory(*series).grew() is grew


def test_the_slope_is_a_line_through_what_was_seen() -> None:
    assert memory(*(100.0 + n for n in range(20))).slope_mb_an_hour() == 60.0
    assert memory(5.0).slope_mb_an_hour() == 0.0


def test_a_run_without_fault_misses_nothing() -> None:
    calls = [Call("stream", "OK", allowed=True), Call("live cancelled", LEFT, allowed=True)]
    found = report([caller([0.0] * 1000), caller([0.0], "refused"), caller([0.0], "cut off")], calls, [memory(*[300.0] * 12)])
    assert (found.missed(), found.on_time_share, found.refused) == ([], 1.0, 1)
    assert found.calls == {"live cancelled": {LEFT: 1}, "stream": {"OK": 1}}


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        ({"heard": [caller([0.0] * 900 + [0.1])]}, "99.889% of the bystanders' chunks were on time"),
        ({"heard": [caller([0.0], "INTERNAL: internal error")]}, "a bystander's session ended: INTERNAL: internal error"),
        ({"heard": [caller([0.0], "hung")]}, "a bystander's session ended: hung"),
        ({"calls": [Call("stream", "UNKNOWN", allowed=False)] * 2}, "unexpected: stream: UNKNOWN, 2 times"),
        ({"memories": [memory(*(300.0 + 5 * n for n in range(12)))]}, "FrontDoor 7: 310.0 MB, then 355.0 MB, +300.0 MB an hour"),
        ({"left": ["denoiser sessions = 1"]}, "left over: denoiser sessions = 1"),
    ],
)
def test_each_fault_is_missed_in_words(made: dict[str, Any], sentence: str) -> None:
    assert report(**made).missed() == [sentence]


def test_a_late_chunk_is_laid_beside_the_kill_before_it() -> None:
    heard = caller([0.0, 0.0, 0.5])
    at_s = heard.chunks[2].at_s
    kills = [(at_s - 40.0, "Decoder"), (at_s - 0.25, "Denoiser"), (at_s + 1.0, "TextEncoder")]
    (late,) = late_chunks([heard], kills)
    assert late == Late(0.5, round(at_s, 2), "Denoiser", 0.25)
    assert late_chunks([heard], [])[0].killed_before_s is None
    assert lateness_by_kill([late, Late(0.1, 3.0, "Decoder", 15.5), Late(0.2, 3.0)]) == [
        "2 at other times, 0.2 s at worst",
        "1 within 15 s of a killed Denoiser, 0.5 s at worst",
    ]


def test_what_came_with_an_unexpected_status_is_told_with_it() -> None:
    calls = [Call("generate", "UNAVAILABLE", allowed=False, details=f"text_encoder: replica {n} died") for n in (1, 1, 2, 3, 4)]
    (missed,) = report(calls=calls).missed()
    assert missed.splitlines() == [
        "unexpected: generate: UNAVAILABLE, 5 times",
        "    text_encoder: replica 1 died",
        "    text_encoder: replica 2 died",
        "    text_encoder: replica 3 died",
    ]


async def test_a_guest_says_what_came_with_a_status() -> None:
    async with serving(FakeStages(encoder=FakeEncoder(unavailable=10**9), attempts=1)) as served:
        guests = Guests(served.address, random.Random(3), poisoned=1.0)
        call = await guests.one()
    assert (call.status, call.details) == ("UNAVAILABLE", "text encoder: told to fail; try again in 2 s")


def test_a_replica_that_was_there_for_a_short_while_says_nothing_of_memory() -> None:
    assert report(memories=[memory(100.0, 900.0)]).memory == []


def test_guests_have_a_name_for_each_kind_and_know_statuses_of_grpc() -> None:
    import grpc

    kinds = Guests("127.0.0.1:1", random.Random(1), 0.0)._kinds  # noqa: SLF001 - the table
    names = [kind.name for kind in kinds]
    assert len(names) == len(set(names)) > 20
    known = {code.name for code in grpc.StatusCode} | {LEFT}
    assert all(kind.allowed and kind.allowed <= known and kind.share > 0 for kind in kinds)
    assert not any(kind.allowed & {"INTERNAL", "UNKNOWN"} for kind in kinds)


async def test_the_same_seed_draws_the_same_calls_and_nobody_there_is_an_unexpected_end() -> None:
    runs = [[await Guests("127.0.0.1:1", random.Random(3), 0.5).one() for _ in range(1)] for _ in range(2)]
    assert runs[0] == runs[1]


def test_the_cluster_is_one_that_can_be_configured() -> None:
    document, config = load(STAGED_CONFIG, overrides())
    assert config.stages == "bench.kit.poisoned"
    assert {block["name"]: block.get("num_replicas") for block in document["applications"][0]["deployments"]} == {
        "TextEncoder": 2, "Denoiser": 2, "Decoder": 2, "FrontDoor": None,
    }  # fmt: skip


class Fake:
    """A sampler whose legs are their sessions' prompts."""

    def open(self, context: Any) -> str:
        return str(context.embedding.prompt)

    def step(self, legs: Sequence[str]) -> None:
        self.stepped = list(legs)

    def latents(self, leg: str) -> Any:
        return np.ones((2, 3), np.float32)


def test_poison_stays_with_its_session() -> None:
    from dataclasses import replace

    plain = random_context("a", small_config())
    fake = Fake()
    sampler = PoisonedSampler(fake)  # type: ignore[arg-type]  # what it needs of one

    def prompted(words: str) -> Any:
        return replace(plain, embedding=replace(plain.embedding, prompt=words))

    sound, poisoned = sampler.open(prompted("a dog")), sampler.open(prompted(f"{STEP} dog"))
    with pytest.raises(RuntimeError, match="opened"):
        sampler.open(prompted(f"{OPEN} dog"))
    with pytest.raises(RuntimeError, match="forward"):
        sampler.step([sound, poisoned])
    sampler.step([sound])
    assert np.isfinite(sampler.latents(sound)).all()
    assert np.isnan(sampler.latents(sampler.open(prompted(f"{NAN} dog")))).all()
    assert fake.stepped == ["a dog"]
