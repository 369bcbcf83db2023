"""What goes wrong for one session in the denoise stage ends that session alone; what goes wrong with the device ends the stage."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from torch import Tensor

from headrace.errors import ClientError
from headrace.v1 import video_pb2 as pb
from model_core.config import EngineConfig
from model_core.engine.engine import Engine
from model_core.errors import ChunkFailed, DeviceBroken, EngineDead, SessionBroken, StageUnavailable
from model_core.families.common.clip import ClipLeg
from model_core.families.interface import Sampler
from model_core.families.millrace.parts import MillraceLeg, MillraceSampler
from model_core.families.wan.parts import WanSampler, networks
from model_core.stages.denoiser import LocalDenoiser
from model_core.stages.watchdog import Watchdog
from model_core.types import LatentChunk, Latents, SessionContext, TextEmbedding
from tests import checkpoints
from tests.fakes import FakeDenoiser, FakeEncoder, FakeStages, eventually
from tests.models import Collector, make, new_engine, random_context, random_dit, random_embedding, small_config
from tests.served import serving

CONFIG = small_config()
BUCKETS = (1, 2, 4)
POISON = 666
TIMEOUT_S = 200.0  # only bounds a failing test
FAULTS = ("not finite", "open", "start", "step", "latents", "commit")


class Poisoned(MillraceSampler):
    """The real one, but that `fault` befalls sessions with one seed, from their second chunk on (`open`: at once)."""

    def __init__(self, fault: str = "") -> None:
        super().__init__(random_dit(), CONFIG, BUCKETS)
        self.fault = fault
        self.rows: list[int] = []

    def open(self, context: SessionContext) -> MillraceLeg:
        if context.seed == POISON:
            self._strike("open")
        return super().open(context)

    def start(self, leg: MillraceLeg, chunk: int) -> None:
        super().start(leg, chunk)
        if self._is_poisoned(leg):
            self._strike("start")

    def step(self, legs: Sequence[MillraceLeg]) -> None:
        self.rows.append(len(legs))
        if any(map(self._is_poisoned, legs)):
            self._strike("step")
        super().step(legs)
        for leg in legs:
            if self._is_poisoned(leg) and self.fault == "not finite":
                leg.x_t = leg.x_t * float("nan")

    def latents(self, leg: MillraceLeg) -> Latents:
        if self._is_poisoned(leg):
            self._strike("latents")
        return super().latents(leg)

    def commit(self, legs: Sequence[MillraceLeg]) -> None:
        if any(leg.seed == POISON for leg in legs):
            self._strike("commit")
        super().commit(legs)

    def _is_poisoned(self, leg: MillraceLeg) -> bool:
        return leg.seed == POISON and len(leg.window) > 0

    def _strike(self, where: str) -> None:
        if self.fault == where:
            raise ArithmeticError(f"{where} of a poisoned session")


def context(name: str, chunks: int | None = 4, seed: int = 5) -> SessionContext:
    return random_context(name, CONFIG, chunks, seed=seed)


async def latents(denoiser: LocalDenoiser, asked: SessionContext) -> list[Latents]:
    async with asyncio.timeout(TIMEOUT_S), aclosing(denoiser.stream(asked)) as stream:
        return [chunk.latents async for chunk in stream]


def new_denoiser(sampler: Sampler, **more: Any) -> LocalDenoiser:
    torch.set_num_threads(1)
    return LocalDenoiser(sampler, CONFIG, EngineConfig(slots=4, batch_buckets=BUCKETS), **more)


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_poisoned_session_ends_alone_however_often_it_comes(fault: str) -> None:
    """The others share its forwards, have the frames that they would have had, and are never interrupted."""
    sampler = Poisoned(fault)
    denoiser = new_denoiser(sampler)
    sampler.rows.clear()
    try:
        others = [asyncio.create_task(latents(denoiser, context(f"{i}", 12))) for i in range(3)]
        where = 0 if fault == "open" else 1
        for _ in range(3):
            with pytest.raises(ChunkFailed, match=f"chunk {where} of session poison could not be made") as first:
                await latents(denoiser, context("poison", None, seed=POISON))
            assert first.value.chunk == where
            with pytest.raises(SessionBroken, match="tried twice"):
                await latents(denoiser, replace(context("poison", None, seed=POISON), suspect_chunk=where))
        made = await asyncio.gather(*others)
        denoiser.check_health()
        await eventually(lambda: denoiser.statistics().free_slots == 4)
    finally:
        await denoiser.aclose()
    for i, own in enumerate(made):
        np.testing.assert_array_equal(own, make(new_engine(random_dit(), CONFIG), context(f"{i}", 12)))
    assert max(sampler.rows) > 1


def test_a_forward_that_fails_for_many_and_for_none_alone_again_and_again_is_the_devices_fault() -> None:
    class Crowded(MillraceSampler):
        def step(self, legs: Sequence[MillraceLeg]) -> None:
            if len({id(leg) for leg in legs}) > 1:
                raise MemoryError("no room for two")
            super().step(legs)

    torch.set_num_threads(1)
    engine = Engine(Crowded(random_dit(), CONFIG, BUCKETS), CONFIG, EngineConfig(slots=4, batch_buckets=BUCKETS))
    engine.warm_up()
    collector = Collector(engine)
    sessions = [collector.open(context(f"{i}")) for i in range(2)]
    assert collector.step()
    assert collector.step()
    assert [len(collector.chunks[session]) for session in sessions] == [1, 1]
    with pytest.raises(DeviceBroken, match="3 forwards in a row failed for several sessions at once and for none alone"):
        collector.step()


def test_a_model_with_one_chunk_is_probed_without_a_past() -> None:
    """It has no graph for one."""

    class Alone(WanSampler):
        def commit(self, legs: Sequence[ClipLeg]) -> None:
            raise AssertionError("nothing comes after the only chunk")

    settings = checkpoints.config("wan")
    Engine(Alone(settings, BUCKETS, *networks(settings)), settings, EngineConfig(slots=4, batch_buckets=BUCKETS)).warm_up()


def test_a_solver_that_fails_for_one_clip_leaves_the_others_their_bits() -> None:
    class Stumbling(WanSampler):
        failed = False

        def predict(self, legs: Sequence[ClipLeg], x_t: Tensor, t: Tensor) -> Tensor:
            predicted = super().predict(legs, x_t, t)
            if not self.failed and len(legs) > 1 and legs[0].step == 1:
                self.failed = True
                raise RuntimeError("a kernel failed, once")
            return predicted

        def advance(self, leg: ClipLeg, predicted: Tensor) -> Tensor:
            if leg.context.seed == POISON and leg.step == 2:
                raise ArithmeticError("the solver stumbled")
            return super().advance(leg, predicted)

    torch.set_num_threads(1)
    settings = checkpoints.config("wan", skip_threshold=0.3)
    sampler = Stumbling(settings, BUCKETS, *networks(settings))
    engine = Engine(sampler, settings, EngineConfig(slots=4, batch_buckets=BUCKETS))
    engine.warm_up()
    collector, broken = Collector(engine), dict[str, Exception]()
    asked = [checkpoints.context("wan", f"clip {seed}", seed, steps=6) for seed in (1, POISON, 2)]
    sessions = [collector.open(one) for one in asked]
    while engine.step(collector.emit, lambda session, error: broken.update({session.context.session_id: error})):
        pass
    assert [str(error) for error in broken.values()] == ["the solver stumbled"]
    assert sampler.failed
    for session, one in zip(sessions, asked, strict=True):
        if one.seed != POISON:
            np.testing.assert_array_equal(collector.latents(session), make(engine, one))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("where", ["step", "open"])
async def test_a_forward_that_never_returns_ends_the_streams_the_health_and_the_wait_for_the_end(where: str) -> None:
    class Stuck(MillraceSampler):
        held: threading.Event | None = None

        def step(self, legs: Sequence[MillraceLeg]) -> None:
            self._maybe("step")
            super().step(legs)

        def open(self, context: SessionContext) -> MillraceLeg:
            self._maybe("open")
            return super().open(context)

        def _maybe(self, here: str) -> None:
            if here == where and self.held is not None:
                inside.set()
                self.held.wait()

    clock, inside = Clock(), threading.Event()
    sampler = Stuck(random_dit(), CONFIG, BUCKETS)
    others = set(threading.enumerate())  # of tests before, which keep their stages
    denoiser = new_denoiser(sampler, clock=clock, watchdog=Watchdog("denoise engine", 10.0, clock, look_every_s=0.005))
    sampler.held = threading.Event()
    reader = asyncio.create_task(latents(denoiser, context("a")))
    await eventually(inside.is_set)
    clock.now += 9.0
    denoiser.check_health()
    clock.now += 2.0
    with pytest.raises(EngineDead, match="the denoise engine is stuck: 11 s in one call, which may take 10 s"):
        denoiser.check_health()
    for waiting in (reader, latents(denoiser, context("b"))):
        with pytest.raises(EngineDead, match="stuck"):
            await waiting
    async with asyncio.timeout(TIMEOUT_S):
        await denoiser.aclose()  # and nobody is left waiting for the thread
    sampler.held.set()
    await eventually(lambda: not any(thread.name == "denoiser" for thread in {*threading.enumerate()} - others))


def test_work_may_take_twenty_times_as_long_as_it_has_taken_before() -> None:
    clock = Clock()
    watchdog = Watchdog("device", 1.0, clock)
    watchdog.took(5.0)
    with watchdog.working():
        clock.now += 100.0
        watchdog.check()
        clock.now += 1.0
        with pytest.raises(StageUnavailable, match="stuck: 101 s in one call, which may take 100 s"):
            watchdog.check()
    watchdog.check()
    first = Watchdog("device", 1.0, clock)
    with first.working():
        clock.now += 10.0
        first.check()
        clock.now += 1.0
        with pytest.raises(StageUnavailable, match="which may take 10 s"):
            first.check()
    with watchdog.working(units=3):
        clock.now += 3 * 20 * 101.0
        watchdog.check()


class Encoder(FakeEncoder):
    """Features of the shape that the small network takes."""

    async def encode(self, prompt: str, numerics: str = "") -> TextEmbedding:
        return random_embedding(prompt, CONFIG)


class RealDenoiser(FakeDenoiser):
    """The real stage, where tests look for a fake."""

    def __init__(self, inner: LocalDenoiser) -> None:
        super().__init__(CONFIG)
        self._inner = inner

    async def stream(self, context: SessionContext) -> AsyncGenerator[LatentChunk, None]:
        async with aclosing(self._inner.stream(context)) as chunks:
            async for chunk in chunks:
                yield chunk


async def test_a_caller_who_comes_again_and_again_with_a_poisoned_request_denies_nobody_anything() -> None:
    """Over gRPC: its calls end with INTERNAL, and a viewer beside them sees what it would see alone."""
    denoiser = new_denoiser(Poisoned("not finite"))
    try:
        async with serving(FakeStages(RealDenoiser(denoiser), Encoder(), config=CONFIG)) as served:

            async def watched() -> list[bytes]:
                events = served.client.stream("a red circle", seconds=2.0, seed=1, steps=2)
                return [bytes(frame) async for event in events if isinstance(event, pb.Frames) for frame in event.data]

            alone = await watched()
            viewer = asyncio.create_task(watched())
            for _ in range(4):
                with pytest.raises(ClientError) as error:
                    [event async for event in served.client.stream("a blue square", seconds=2.0, seed=POISON, steps=2)]
                assert error.value.code is grpc.StatusCode.INTERNAL
            assert await viewer == alone
            denoiser.check_health()
            await served.nothing_left()
    finally:
        await denoiser.aclose()
