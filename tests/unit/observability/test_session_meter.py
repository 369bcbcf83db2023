"""What a viewer feels, in numbers: the parts of the first frame, gaps, stalls; and that no caller can add a series."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from headrace.client import ClientError, HeadraceClient
from headrace.v1 import video_pb2 as pb
from model_core.events import Forward
from model_core.types import Codec, FrameChunk, LatentChunk, SessionContext, StageTiming, received
from observability import catalogue as c
from observability.catalogue import CATALOGUE, PREFIX
from observability.metrics import DenoiserMetrics, Metrics
from observability.session_meter import SessionMeter, first_frame
from tests.fakes import DECODE_TIMING, FakeDenoiser, FakeStages
from tests.served import Served, serving
from tests.work import calls_of

FPS = 24
DENOISED = StageTiming("denoiser", queue_s=0.1, service_s=0.2, device_s=0.05, transfer_s=0.01)
DECODED = StageTiming("decoder", queue_s=0.02, service_s=0.04, device_s=0.04, transfer_s=0.005)
TENANTS = ("default", "other", "studio")


def chunk(index: int, frames: int = 8) -> FrameChunk:
    latents = np.zeros((1, 1, 1, 1), np.float32)
    return FrameChunk(index, index * frames, frames, 8, 8, Codec.JPEG, (b"",) * frames, latents, (DENOISED, DECODED))


class Meter:
    """A session's meter with the registry to look at."""

    def __init__(self, *, paced: bool = True) -> None:
        self.registry = CollectorRegistry()
        self.meter = SessionMeter(Metrics(self.registry).of("m"), "default", FPS, paced=paced)

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"headrace_{name}", labels | {"model": "m"}) or 0.0


def test_the_parts_of_a_first_frame_sum_to_the_whole() -> None:
    encoded = StageTiming("text_encoder", queue_s=0.003, service_s=0.02, device_s=0.02, transfer_s=0.004)
    parts = first_frame(0.5, (encoded, DENOISED, DECODED))
    assert parts.queue_s == pytest.approx(0.123)
    assert parts.service_s == pytest.approx(0.26)
    assert parts.transfer_s == pytest.approx(0.019)
    assert parts.queue_s + parts.service_s + parts.transfer_s + parts.overhead_s == pytest.approx(0.5)


def test_a_first_frame_without_timings_is_all_overhead() -> None:
    assert first_frame(0.5, ()).overhead_s == 0.5


async def test_the_served_parts_sum_to_the_served_whole_and_nothing_is_counted_twice() -> None:
    """Stages that really take their time, behind the real server: if parts overlapped, they would exceed the whole."""

    class Timed(FakeDenoiser):
        async def stream(self, context: SessionContext) -> AsyncGenerator[LatentChunk, None]:
            async with aclosing(super().stream(context)) as chunks:
                async for made in chunks:
                    started = time.perf_counter()
                    await asyncio.sleep(0.05)
                    took = time.perf_counter() - started
                    await asyncio.sleep(DECODE_TIMING.queue_s + DECODE_TIMING.service_s)  # the fake decoder only says so
                    yield replace(made, timings=(StageTiming("denoiser", 0.0, took, took),))

    async with serving(FakeStages(denoiser=Timed(FakeStages().config))) as served:
        for _ in range(3):
            assert [event async for event in served.client.stream("a red circle", seconds=1)]
        await served.nothing_left()

        whole = served.metric("ttff_seconds_sum")
        parts = {part: served.metric("ttff_part_seconds_sum", part=part) for part in c.PART.values}
        assert served.metric("ttff_seconds_count") == 3
        assert parts["service"] >= 3 * 0.05
        assert sum(parts.values()) == pytest.approx(whole)
        assert whole >= 3 * 0.05
        assert served.metric("framework_overhead_seconds_sum", of="first_frame") == pytest.approx(parts["transfer"] + parts["overhead"])


def test_transfer_is_the_part_of_the_wait_in_which_the_result_was_on_its_way() -> None:
    def transfer(left_at: float | None, asked_at: float, now: float) -> float:
        made = LatentChunk(0, np.zeros((1, 1, 1, 1), np.float32), (replace(DENOISED, transfer_s=0.0, left_at=left_at),))
        return received(made, asked_at, now).timings[-1].transfer_s

    assert transfer(10.0, 9.0, 10.25) == 0.25  # waited for the stage, then for the way
    assert transfer(10.0, 12.0, 12.5) == 0.5  # done long before anybody asked
    assert transfer(11.0, 9.0, 10.0) == 0.0  # the other host's clock is ahead
    assert transfer(1.0, 9.0, 10.0) == 1.0  # or behind: never more than the wait
    assert transfer(None, 9.0, 10.0) == 0.0


def test_gaps_and_jitter_leave_pauses_out() -> None:
    m = Meter()
    for index, at in enumerate((0.0, 0.3, 0.7)):
        m.meter.sent(chunk(index), at, at, 0.0)
    m.meter.paused()
    m.meter.sent(chunk(3), 60.0, 60.0, 0.0)
    assert m.value("interframe_gap_seconds_count") == 2
    assert m.value("interframe_gap_seconds_sum") == pytest.approx(0.7)
    assert m.value("jitter_seconds_sum") == pytest.approx(abs(0.3 - 8 / FPS) + abs(0.4 - 8 / FPS))


def test_what_the_viewer_put_off_is_nobodys_gap() -> None:
    m = Meter()
    m.meter.sent(chunk(0), 0.0, 0.0, 0.0)
    m.meter.sent(chunk(1), 0.3, 55.3, 0.0, waited_s=55.0)
    assert m.value("interframe_gap_seconds_sum") == pytest.approx(0.3)
    assert m.value("jitter_seconds_sum") == pytest.approx(abs(0.3 - 8 / FPS))
    assert m.value("stall_seconds_total") == 0


def test_a_stall_moves_everything_after_it() -> None:
    m = Meter()
    for index, late in enumerate((0.0, 0.5, 0.5, 0.3, 0.8)):
        m.meter.sent(chunk(index), 1.0, 1.0, late)
    m.meter.ended()
    assert m.value("stall_seconds_total") == pytest.approx(0.8)
    assert m.value("sessions_played_total", continuous="no") == 1
    assert m.value("sessions_played_total", continuous="yes") == 0


def test_a_job_is_neither_late_nor_stalled() -> None:
    m = Meter(paced=False)
    m.meter.sent(chunk(0), 0.0, 0.0, 0.0)
    m.meter.sent(chunk(1), 9.0, 9.0, 8.0)
    m.meter.ended()
    assert m.value("chunk_lateness_seconds_count") == m.value("stall_seconds_total") == m.value("jitter_seconds_count") == 0
    assert m.value("sessions_played_total", continuous="yes") == 0
    assert m.value("frames_total", codec="jpeg") == 16


def test_cost_is_told_by_tenant_and_stage() -> None:
    m = Meter()
    m.meter.sent(chunk(0), 0.99, 1.0, 0.0)
    mine = {"tenant": "default", "door": "grpc"}
    assert m.value("accelerator_seconds_total", **mine, stage="denoiser") == pytest.approx(0.05)
    assert m.value("video_seconds_total", **mine) == pytest.approx(8 / FPS)
    assert m.value("pixels_total", **mine) == 8 * chunk(0).height * chunk(0).width
    assert m.value("framework_overhead_seconds_sum", of="chunk") == pytest.approx(0.01 + 0.015)


def series(served: Served) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    return {(sample.name, tuple(sorted(sample.labels.items()))) for family in served.registry.collect() for sample in family.samples}


async def visit(served: Served, number: int) -> None:
    """A caller who makes up all that a caller can make up."""
    async with HeadraceClient(served.address, tenant=f"tenant-{number}") as client:
        if number % 2:
            with pytest.raises(ClientError):
                _ = [event async for event in client.stream("", seconds=-1, model=f"model-{number}")]
        else:
            _ = [event async for event in client.stream(f"prompt {number}", seconds=0.3, seed=number, codec=pb.CODEC_JPEG)]


async def test_no_caller_adds_a_series() -> None:
    async with serving() as served:
        for number in range(4):
            await visit(served, number)
        before = series(served)
        for number in range(4, 40):
            await visit(served, number)
        await served.nothing_left()
        after = series(served)
    assert after == before
    named = [(name, m) for m in CATALOGUE for name in (m.full, *([f"{PREFIX}_{m.formerly}"] if m.formerly else []))]
    allowed = {(name, label.name): set(label.values) for name, m in named for label in m.labels}
    rpcs = {method.name for method in pb.DESCRIPTOR.services_by_name["VideoService"].methods}
    bounded = {"tenant": set(TENANTS), "level": {"1", "2"}, "model": {served.stages.config.name}, "door": {"grpc"}, "rpc": rpcs}
    for name, labels in after:
        metric = name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum").removesuffix("_created")
        for label, value in labels:
            names = [key for key in ((metric, label), (f"{metric}_total", label)) if key in allowed]
            assert label == "le" or value in (allowed[names[0]] or bounded[label]), (name, label, value)


def test_counting_a_chunk_is_a_bounded_number_of_calls() -> None:
    """`sent`, and a chunk's forwards, however many chunks came before; `bench.costs.hot_path` has the seconds."""
    metrics = Metrics(CollectorRegistry())
    meter, denoiser = SessionMeter(metrics.of("m"), "default", FPS, paced=True), DenoiserMetrics(CollectorRegistry())
    forwards = [*(Forward("step", 1, 1, 0.01, (0.2,)) for _ in range(4)), Forward("commit", 1, 1, 0.01)]

    def count(index: int) -> None:
        meter.sent(chunk(index), 1.0, 1.01, 0.0)
        for forward in forwards:
            denoiser.observe(forward)

    count(0)
    early = calls_of(lambda: count(1))
    for index in range(2, 300):
        count(index)
    assert calls_of(lambda: count(300)) <= early < 1000
