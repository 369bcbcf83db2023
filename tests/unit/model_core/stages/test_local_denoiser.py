"""The denoise stage: its thread, its slots, its end."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model_core.config import EngineConfig
from model_core.errors import DeviceBroken, EngineDead, InvalidRequest
from model_core.families.millrace.parts import MillraceLeg, MillraceSampler
from model_core.nn.causal_dit import CausalDiT, KeyValue, Modulation, TextCondition
from model_core.stages.denoiser import LocalDenoiser
from model_core.types import Latents, SessionContext, TextEmbedding
from tests.fakes import eventually
from tests.models import SMALL_DIT, make, new_engine, random_context, random_dit, small_config

CONFIG = small_config()
TIMEOUT_S = 200.0  # only bounds a failing test

MakeDenoiser = Callable[..., LocalDenoiser]


class Failing(CausalDiT):
    """The network, until a flag is raised: then `graph` breaks, by an exception or by what it returns."""

    def __init__(self, graph: str, *, nan: bool = False) -> None:
        super().__init__(SMALL_DIT)
        self.load_state_dict(random_dit().state_dict())
        self.graph, self.nan = graph, nan
        self.broken = threading.Event()

    def denoise(self, x_t: Tensor, step: Modulation, text: TextCondition, cache: list[KeyValue], cache_mask: Tensor | None) -> Tensor:
        return self._spoil("denoise", super().denoise(x_t, step, text, cache, cache_mask))

    def commit(self, x_0: Tensor) -> list[KeyValue]:
        self._spoil("commit", x_0)
        return super().commit(x_0)

    def condition(self, tokens: Tensor, mask: Tensor) -> TextCondition:
        self._spoil("condition", tokens)
        return super().condition(tokens, mask)

    def _spoil(self, graph: str, x: Tensor) -> Tensor:
        if graph == self.graph and self.broken.is_set():
            if self.nan:
                return x * float("nan")
            raise RuntimeError("the device has gone")
        return x


class Gated(MillraceSampler):
    """A sampler that, once `gated`, notes the sessions of each step and waits for a permit.

    Steps are counted, and not the network's forwards: where a processor would round a row by its batch, a step is several of those.
    """

    def __init__(self, buckets: tuple[int, ...]) -> None:
        super().__init__(random_dit(), CONFIG, buckets)
        self.gated = threading.Event()
        self.permits = threading.Semaphore(0)
        self.rows: list[int] = []

    async def next_step(self) -> None:
        """Let the step under way end, and wait until the next one is."""
        before = len(self.rows)
        self.permits.release()
        await eventually(lambda: len(self.rows) > before)

    def step(self, legs: Sequence[MillraceLeg]) -> None:
        if self.gated.is_set():
            self.rows.append(len(legs))
            self.permits.acquire(timeout=TIMEOUT_S)
        super().step(legs)


@pytest.fixture
async def make_denoiser() -> AsyncIterator[MakeDenoiser]:
    """Makes denoisers and, after the test, closes them and looks for threads they left."""
    torch.set_num_threads(1)
    made: list[LocalDenoiser] = []
    before = set(threading.enumerate())  # of tests that keep their stages

    def build(
        model: CausalDiT | None = None, slots: int = 16, buckets: tuple[int, ...] = (1, 4), sampler: MillraceSampler | None = None
    ) -> LocalDenoiser:
        sampler = sampler or MillraceSampler(model or random_dit(), CONFIG, buckets)
        made.append(LocalDenoiser(sampler, CONFIG, EngineConfig(slots=slots, batch_buckets=buckets)))
        return made[-1]

    yield build
    async with asyncio.timeout(TIMEOUT_S):
        for denoiser in made:
            await denoiser.aclose()
            await denoiser.aclose()
    assert not any(thread.name == "denoiser" for thread in {*threading.enumerate()} - before)


async def latents(denoiser: LocalDenoiser, context: SessionContext) -> list[Latents]:
    async with asyncio.timeout(TIMEOUT_S), aclosing(denoiser.stream(context)) as stream:
        return [chunk.latents async for chunk in stream]


def context(name: str, chunks: int | None = 3) -> SessionContext:
    return random_context(name, CONFIG, chunks, seed=len(name))


def expected(name: str, chunks: int = 3) -> list[Latents]:
    return make(new_engine(random_dit(), CONFIG), context(name, chunks))


async def idle(denoiser: LocalDenoiser, slots: int = 16) -> None:
    def nothing_held() -> bool:
        s = denoiser.statistics()
        return (s.sessions, s.waiting, s.undelivered, s.free_slots) == (0, 0, 0, slots)

    await eventually(nothing_held)


async def test_it_streams_what_the_engine_makes(make_denoiser: MakeDenoiser) -> None:
    denoiser = make_denoiser()
    async with aclosing(denoiser.stream(context("a session"))) as stream:
        chunks = [chunk async for chunk in stream]
    assert [chunk.index for chunk in chunks] == [0, 1, 2]
    np.testing.assert_array_equal([chunk.latents for chunk in chunks], expected("a session"))
    assert [timing.stage for chunk in chunks for timing in chunk.timings] == ["denoiser"] * 3
    assert all(timing.service_s >= timing.device_s > 0 for chunk in chunks for timing in chunk.timings)
    assert denoiser.statistics().chunks == 3
    await idle(denoiser)


async def test_a_stream_opened_at_its_end_is_empty(make_denoiser: MakeDenoiser) -> None:
    denoiser = make_denoiser()
    blank = np.zeros((SMALL_DIT.latent_channels, SMALL_DIT.latent_frames, SMALL_DIT.latent_height, SMALL_DIT.latent_width), np.float32)
    assert await latents(denoiser, replace(context("a session"), next_chunk=3, suffix=(blank,) * 3)) == []
    await idle(denoiser)


async def test_a_reader_that_stops_reading_holds_its_session_back(make_denoiser: MakeDenoiser) -> None:
    denoiser = make_denoiser()
    async with aclosing(denoiser.stream(context("endless", None))) as stream:
        await anext(stream)
        await eventually(lambda: denoiser.statistics().undelivered == 2)
        assert await latents(denoiser, context("another")) != []  # time enough to do too much
        await eventually(lambda: denoiser.statistics().sessions == 1)
        assert denoiser.statistics().undelivered == 2
        assert denoiser.statistics().chunks == 3 + 3
        await anext(stream)
        await eventually(lambda: denoiser.statistics().chunks == 3 + 3 + 1)
    await idle(denoiser)


async def test_sessions_beyond_the_slots_are_served_in_order_of_arrival(make_denoiser: MakeDenoiser) -> None:
    denoiser = make_denoiser(slots=2)
    ended: list[int] = []

    async def read(number: int) -> None:
        np.testing.assert_array_equal(await latents(denoiser, context("x" * number)), expected("x" * number))
        ended.append(number)

    async with asyncio.TaskGroup() as group, aclosing(denoiser.stream(context("endless", None))) as stream:
        await anext(stream)
        for number in range(1, 7):
            group.create_task(read(number))
            await asyncio.sleep(0)  # so that they arrive in this order
        await eventually(lambda: len(ended) == 6)
    assert ended == [1, 2, 3, 4, 5, 6]  # one slot for all of them
    await idle(denoiser, slots=2)


async def test_cancelling_one_that_waits_for_a_slot(make_denoiser: MakeDenoiser) -> None:
    denoiser = make_denoiser(slots=1)
    async with aclosing(denoiser.stream(context("endless", None))) as stream:
        await anext(stream)
        waiting = asyncio.create_task(latents(denoiser, context("waiting")))
        await eventually(lambda: denoiser.statistics().waiting == 1)
        waiting.cancel()
        await eventually(lambda: denoiser.statistics().waiting == 0)
        assert denoiser.statistics().sessions == 1
    await idle(denoiser, slots=1)


async def test_cancelling_frees_the_slot_within_a_step(make_denoiser: MakeDenoiser) -> None:
    """The step under way at the cancellation ends; the next one is without the session."""
    rng = random.Random(7)
    buckets = (1, 2, 3, 4)
    sampler = Gated(buckets)
    denoiser = make_denoiser(slots=4, buckets=buckets, sampler=sampler)
    sampler.gated.set()
    witness = asyncio.create_task(latents(denoiser, context("endless", None)))
    await eventually(lambda: sampler.rows == [1])
    for turn in range(6):
        readers = [asyncio.create_task(latents(denoiser, context(f"{turn} {i}", None))) for i in range(rng.randint(1, 5))]
        await asyncio.sleep(0)
        for _ in range(rng.randint(1, 6)):
            await sampler.next_step()
        assert sampler.rows[-1] == min(4, 1 + len(readers))
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        await sampler.next_step()
        assert sampler.rows[-1] == 1
        assert (denoiser.statistics().sessions, denoiser.statistics().free_slots, denoiser.statistics().waiting) == (1, 3, 0)
    witness.cancel()
    sampler.gated.clear()
    sampler.permits.release()
    await idle(denoiser, slots=4)


async def test_cancelling_at_random_moments_loses_nothing(make_denoiser: MakeDenoiser) -> None:
    rng = random.Random(5)
    denoiser = make_denoiser(slots=4)
    async with aclosing(denoiser.stream(context("endless", None))) as witness:
        await anext(witness)
        for turn in range(25):
            readers = [asyncio.create_task(latents(denoiser, context(f"{turn} {i}", None))) for i in range(rng.randint(1, 6))]
            await asyncio.sleep(rng.random() * 0.02)
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
            await eventually(lambda: denoiser.statistics().sessions == 1 and denoiser.statistics().waiting == 0)
            await anext(witness)
    await idle(denoiser, slots=4)


async def test_streams_from_two_event_loops(make_denoiser: MakeDenoiser) -> None:
    denoiser = make_denoiser()
    there, here = await asyncio.gather(
        asyncio.to_thread(lambda: asyncio.run(latents(denoiser, context("there")))),
        latents(denoiser, context("here")),
    )
    np.testing.assert_array_equal(there, expected("there"))
    np.testing.assert_array_equal(here, expected("here"))
    await idle(denoiser)


async def test_a_reader_whose_loop_has_gone_harms_nobody(make_denoiser: MakeDenoiser) -> None:
    """Its stream is never closed; the others go on, and closing the stage ends it."""
    denoiser = make_denoiser()
    loop = asyncio.new_event_loop()
    abandoned = denoiser.stream(context("abandoned", None))
    assert (await asyncio.to_thread(lambda: loop.run_until_complete(anext(abandoned)))).index == 0
    loop.close()
    np.testing.assert_array_equal(await latents(denoiser, context("here")), expected("here"))
    assert denoiser.statistics().sessions == 1
    denoiser.check_health()


@pytest.mark.parametrize(
    ("graph", "nan", "reason"),
    [
        ("denoise", False, "RuntimeError: the device has gone; and a known computation: RuntimeError: the device has gone"),
        ("commit", False, "RuntimeError: the device has gone; and a known computation: RuntimeError: the device has gone"),
        ("denoise", True, r"FloatingPointError: chunk \d+ is not finite; and a known computation has another result than it had"),
    ],
)
async def test_a_broken_device_fails_every_waiter_and_all_who_come_later(
    make_denoiser: MakeDenoiser, graph: str, nan: bool, reason: str
) -> None:
    model = Failing(graph, nan=nan)
    denoiser = make_denoiser(model, slots=3)
    readers = [asyncio.create_task(latents(denoiser, context(f"{i}", None))) for i in range(6)]  # more than there are slots
    await eventually(lambda: denoiser.statistics().chunks > 6 and denoiser.statistics().waiting == 3)
    denoiser.check_health()
    model.broken.set()

    async with asyncio.timeout(TIMEOUT_S):
        errors = await asyncio.gather(*readers, return_exceptions=True)
    assert {type(error) for error in errors} == {EngineDead}
    with pytest.raises(EngineDead, match=rf"the denoise engine crashed: DeviceBroken: {reason}") as health:
        denoiser.check_health()
    assert str(errors[0]) == str(health.value)
    assert isinstance(health.value.__cause__, DeviceBroken)
    with pytest.raises(EngineDead):
        await latents(denoiser, context("later"))
    await idle(denoiser, slots=3)


async def test_a_crash_while_a_session_is_opened_fails_that_session_too(make_denoiser: MakeDenoiser) -> None:
    model = Failing("condition")
    denoiser = make_denoiser(model)
    reader = asyncio.create_task(latents(denoiser, context("endless", None)))
    await eventually(lambda: denoiser.statistics().chunks > 0)
    model.broken.set()
    for failed in (latents(denoiser, context("newcomer")), reader):
        with pytest.raises(EngineDead, match="the device has gone"):
            await failed
    await idle(denoiser)


async def test_an_error_is_new_for_each_who_sees_it(make_denoiser: MakeDenoiser) -> None:
    """An exception object that is raised by every health check would hold a growing traceback."""
    denoiser = make_denoiser()
    await denoiser.aclose()
    seen = []
    for _ in range(2):
        with pytest.raises(EngineDead, match="the denoise stage is closed") as error:
            denoiser.check_health()
        seen.append(error.value)
    assert seen[0] is not seen[1]


@pytest.mark.parametrize("attempt", range(5))
async def test_closing_the_stage_ends_every_stream(make_denoiser: MakeDenoiser, attempt: int) -> None:
    """Also those that come while it closes: nobody is left waiting."""
    denoiser = make_denoiser(slots=2)
    readers = [asyncio.create_task(latents(denoiser, context(f"{i}", None))) for i in range(4)]
    await asyncio.sleep(0.004 * attempt)
    closing = asyncio.create_task(denoiser.aclose())
    for i in range(40):
        readers.append(asyncio.create_task(latents(denoiser, context(f"late {i}", None))))
        await asyncio.sleep(0)
    await closing
    async with asyncio.timeout(TIMEOUT_S):
        errors = await asyncio.gather(*readers, return_exceptions=True)
    assert {(type(error), str(error)) for error in errors} == {(EngineDead, "the denoise stage is closed")}
    await idle(denoiser, slots=2)


async def test_closing_a_stage_that_nobody_uses(make_denoiser: MakeDenoiser) -> None:
    denoiser = make_denoiser()
    await denoiser.aclose()
    with pytest.raises(EngineDead, match="the denoise stage is closed"):
        await latents(denoiser, context("late"))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"num_steps": 0}, "context.num_steps"),
        ({"num_steps": 99}, "context.num_steps"),
        ({"next_chunk": 2}, "context.suffix"),
        ({"next_chunk": 1, "suffix": (np.zeros((1, 1, 1, 1), np.float32),)}, "context.suffix"),
        ({"embedding": TextEmbedding("", np.zeros((1, 1), np.float32), np.ones(1, np.bool_))}, "context.embedding.tokens"),
    ],
)
async def test_a_context_that_does_not_fit_is_refused_and_harms_nobody(
    make_denoiser: MakeDenoiser, change: dict[str, Any], field: str
) -> None:
    denoiser = make_denoiser()
    context = random_context("a", CONFIG)
    with pytest.raises(InvalidRequest, match=field):
        await anext(denoiser.stream(replace(context, **change)))
    async with aclosing(denoiser.stream(context)) as chunks:
        assert (await anext(chunks)).index == 0
