"""The devices of the decode and the text stage: whose fault a failure is, and calls that never return."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model_core.errors import ChunkFailed, DeviceBroken, InvalidRequest, SessionBroken, StageUnavailable
from model_core.stages.decoder import LocalDecoder
from model_core.stages.device import DeviceThread
from model_core.stages.text_encoder import LocalTextEncoder
from model_core.stages.watchdog import Watchdog
from model_core.types import Conditioning, Footage, FrameChunk, LatentChunk, Latents, SessionContext
from tests.fakes import eventually
from tests.models import random_context, small_config

CONFIG = replace(small_config(), height=8, width=8)
BAD = 9.0  # latents that begin so are those of a poisoned session
TIMEOUT_S = 200.0  # only bounds a failing test


class Painter:
    """Grey frames as bright as the latents' first value; `fault` says what befalls the bad ones, or everything."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.held = threading.Event()
        self.inside = threading.Event()

    def fresh(self) -> list[torch.Tensor]:
        return [torch.zeros(1)]

    def paint(self, latents: Latents, memory: list[torch.Tensor]) -> tuple[NDArray[np.uint8], list[torch.Tensor]]:
        bad = latents.flat[0] == BAD
        if (bad and self.fault == "raises") or self.fault == "has gone":
            raise ArithmeticError("no pixels")
        if bad and self.fault == "hangs":
            self.inside.set()
            self.held.wait()
        light = 255 if self.fault == "makes nonsense" else 128 + int(latents.flat[0])
        after = memory[0] + (float("nan") if bad and self.fault in {"remembers NaN", "makes nonsense"} else 1.0)
        return np.full((CONFIG.frames_per_chunk, 8, 8, 3), light, np.uint8), [after]


class Upstream:
    """Chunks of one value each; those of the session `poison` are bad."""

    async def stream(self, context: SessionContext) -> AsyncGenerator[LatentChunk, None]:
        for index in range(context.next_chunk, 3):
            yield LatentChunk(index, np.full(CONFIG.latent_shape(index), BAD if context.session_id == "poison" else index, np.float32))


def context(name: str) -> SessionContext:
    return random_context(name, CONFIG, 3)


async def played(decoder: LocalDecoder, asked: SessionContext) -> list[FrameChunk]:
    async with asyncio.timeout(TIMEOUT_S), aclosing(decoder.stream(asked)) as stream:
        return [chunk async for chunk in stream]


@pytest.mark.parametrize("fault", ["raises", "remembers NaN"])
async def test_a_session_that_cannot_be_decoded_ends_alone_however_often_it_comes(fault: str) -> None:
    painter = Painter()
    decoder = LocalDecoder(painter, CONFIG, Upstream())
    try:
        sound = await played(decoder, context("a"))
        painter.fault = fault
        for _ in range(5):
            with pytest.raises(ChunkFailed, match="chunk 0 of session poison could not be made"):
                await played(decoder, context("poison"))
            with pytest.raises(SessionBroken, match="tried twice"):
                await played(decoder, replace(context("poison"), suspect_chunk=0))
            decoder.check_health()
        again = await played(decoder, context("a"))
        assert [chunk.data for chunk in again] == [chunk.data for chunk in sound]
        assert decoder.statistics().sessions == 0
    finally:
        await decoder.aclose()


@pytest.mark.parametrize("fault", ["has gone", "makes nonsense"])
async def test_a_decode_device_that_is_broken_ends_the_stage_at_its_first_failure(fault: str) -> None:
    painter = Painter()
    decoder = LocalDecoder(painter, CONFIG, Upstream())
    painter.fault = fault
    for _ in range(2):
        with pytest.raises(StageUnavailable, match="the device of the decode stage is broken") as error:
            await played(decoder, context("poison"))
        assert not isinstance(error.value, ChunkFailed)
        with pytest.raises(StageUnavailable, match="is broken"):
            decoder.check_health()
    async with asyncio.timeout(TIMEOUT_S):
        await decoder.aclose()


async def test_a_decode_that_never_returns_ends_the_streams_the_health_and_the_wait_for_the_end() -> None:
    now, others = 0.0, set(threading.enumerate())  # of tests before, which keep their stages
    painter = Painter("hangs")
    decoder = LocalDecoder(painter, CONFIG, Upstream(), watchdog=Watchdog("decode stage", 10.0, lambda: now, look_every_s=0.005))
    readers = [asyncio.create_task(played(decoder, context(name))) for name in ("poison", "behind it")]
    await eventually(painter.inside.is_set)
    decoder.check_health()
    now = 11.0
    for reader in readers:
        with pytest.raises(StageUnavailable, match="the decode stage is stuck: 11 s in one call, which may take 10 s"):
            await reader
    with pytest.raises(StageUnavailable, match="stuck"):
        decoder.check_health()
    async with asyncio.timeout(TIMEOUT_S):
        await decoder.aclose()
    painter.held.set()
    await eventually(lambda: not any(thread.name == "decoder" for thread in {*threading.enumerate()} - others))


class Embedder:
    """Token features of one value; prompts that say so fail, or give NaN."""

    def __init__(self) -> None:
        self.gone = False

    def embed(self, prompts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        if self.gone or "raise" in prompts[0]:
            raise ArithmeticError("no features")
        return np.full((1, 4, 2), np.nan if "NaN" in prompts[0] else 1.0, np.float32), np.ones((1, 4), np.bool_)

    def count(self, prompt: str) -> int:
        return len(prompt.split())


class Conditioner:
    """White frames fail, as all do once it is `gone`."""

    def __init__(self) -> None:
        self.gone = False

    def condition(self, frames: NDArray[np.uint8]) -> Conditioning:
        if self.gone or frames.min() == 255:
            raise ArithmeticError("no latents")
        return Conditioning(head=np.full((1, 1, 1, 1), frames.mean(), np.float32))


def footage(light: int) -> Footage:
    return Footage(np.full((1, 8, 8, 3), light, np.uint8))


@pytest.mark.parametrize("prompt", ["please raise", "NaN"])
async def test_a_prompt_without_features_is_refused_and_harms_nobody(prompt: str) -> None:
    encoder = LocalTextEncoder(Embedder(), Conditioner())
    for _ in range(5):
        with pytest.raises(
            InvalidRequest, match=rf"prompt: must be a text of which .* got {len(prompt)} characters, which failed with \w+"
        ) as error:
            await encoder.encode(prompt)
        assert prompt not in str(error.value)
        encoder.check_health()
    assert (await encoder.encode("a red circle")).tokens.all()
    with pytest.raises(InvalidRequest, match="footage: must be frames of which this model makes latents; got 1 x 8 x 8, which failed"):
        await encoder.condition(footage(255))
    assert (await encoder.condition(footage(1))).head is not None
    encoder.check_health()
    await encoder.aclose()


@pytest.mark.parametrize("part", ["text", "footage"])
async def test_a_text_device_whose_every_call_raises_ends_the_stage_at_its_first_failure(part: str) -> None:
    embedder, conditioner = Embedder(), Conditioner()
    encoder = LocalTextEncoder(embedder, conditioner)
    await encoder.encode("a")
    embedder.gone, conditioner.gone = part == "text", part == "footage"
    asked: list[Any] = [encoder.encode("b") if part == "text" else encoder.condition(footage(3)) for _ in range(3)]
    for answer in await asyncio.gather(*asked, return_exceptions=True):
        assert isinstance(answer, StageUnavailable)
        assert "the device of the text encoder is broken" in str(answer)
    with pytest.raises(StageUnavailable, match="is broken"):
        encoder.check_health()
    await encoder.aclose()


async def test_a_thread_gives_back_what_it_was_given_in_order_and_forgets_what_was_cancelled() -> None:
    device = DeviceThread("stage", Watchdog("stage", 10.0), "device")
    hold, done = threading.Event(), list[int]()
    first = device.submit(hold.wait)
    others = [device.submit(done.append, number) for number in range(3)]
    others[1].cancel()
    await asyncio.sleep(0)  # asyncio tells the other future in its next turn
    hold.set()
    assert await device.finished(first)
    await device.finished(others[2])
    assert done == [0, 2]

    def broken() -> None:
        raise DeviceBroken("no answer")

    with pytest.raises(StageUnavailable, match="the device of the stage is broken: no answer"):
        await device.finished(device.submit(broken))
    await device.aclose()
    with pytest.raises(StageUnavailable, match="the stage is closed"):
        device.submit(done.append, 4)
