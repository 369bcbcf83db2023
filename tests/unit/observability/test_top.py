"""`headrace top`: what it makes of scraped metrics, and that it reads a real endpoint."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from typer.testing import CliRunner

from deployments.cluster.local import free_port
from headrace.cli import app
from headrace.cli.top import picture
from model_core.types import StageTiming
from observability.exporter import Exporter
from observability.metrics import Metrics, StatisticsCollector
from observability.session_meter import SessionMeter
from observability.top import Reading, busiest, quantile, reading, view
from tests.reports import DENOISER


class Door:
    """A front door's metrics, and those of stages behind it, as they would be scraped."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.meter = SessionMeter(self.metrics.of("m"), "default", 24, paced=True)
        self.stage = replace(DENOISER, sessions=2, free_slots=14, busy_s=5.0)
        self.denoiser = CollectorRegistry()
        self.denoiser.register(StatisticsCollector(lambda: [self.stage]))

    def read(self, at: float, *, denoisers: int = 1) -> Reading:
        door = ("FrontDoor", generate_latest(self.registry).decode())
        stage = ("Denoiser", generate_latest(self.denoiser).decode())
        return reading(at, {"door:1": door, **{f"denoiser:{n}": stage for n in range(denoisers)}, "decoder:1": ("Decoder", None)})


def test_what_happened_between_two_readings() -> None:
    door = Door()
    for _ in range(5):
        door.metrics.of("m").ttff_seconds.observe(4.0)  # long ago
    before = door.read(100.0)
    for seconds in (0.06, 0.07, 0.08, 0.9):
        door.metrics.of("m").ttff_seconds.observe(seconds)
    for lateness in (0.0, 0.0, 0.0, 0.25):
        door.metrics.of("m").chunk_lateness_seconds.observe(lateness)
    door.metrics.of("m").frames["jpeg"].inc(480)
    door.metrics.sessions_live.set(3)
    door.metrics.sessions_waiting.set(1)
    door.metrics.capacity_sessions.set(8)
    door.meter.encoded(StageTiming("text_encoder", 0.0, 0.03, 0.03), 0.0, 0.0)
    door.stage = replace(door.stage, busy_s=14.0)
    seen = view(before, door.read(110.0))
    assert (seen.span_s, seen.live, seen.waiting, seen.capacity) == (10.0, 3, 1, 8)
    assert (seen.slots_used, seen.slots) == (2, 16)
    assert seen.frames_per_s == 48.0
    assert (seen.first_frames, seen.late, seen.chunks) == (4, 1, 4)
    assert 0.05 <= seen.ttff_p50_s <= 0.1
    assert 0.75 <= seen.ttff_p99_s <= 1.0
    encoder, denoiser, decoder, front = seen.stages
    assert [row.replicas for row in seen.stages] == [0, 1, 0, 1]
    assert denoiser.busy == pytest.approx(0.9)
    assert 0.02 <= encoder.work_p50_s <= 0.05
    assert math.isnan(decoder.work_p50_s)
    assert math.isnan(front.busy)
    assert seen.unreadable == 1
    assert busiest(seen.stages) == "Denoiser"


def test_what_was_started_anew_counts_from_zero_and_a_second_replica_is_counted_beside_the_first() -> None:
    door = Door()
    before = door.read(100.0)
    door.stage = replace(door.stage, busy_s=2.0)
    seen = view(before, door.read(110.0, denoisers=2))
    assert seen.stages[1].replicas == 2
    assert seen.stages[1].busy == pytest.approx((2.0 + 2.0) / 10 / 2)
    assert seen.slots == 32


def test_nothing_happened() -> None:
    door = Door()
    seen = view(door.read(0.0), door.read(1.0))
    assert (seen.frames_per_s, seen.chunks, seen.first_frames) == (0.0, 0, 0)
    assert math.isnan(seen.ttff_p50_s)
    assert busiest(tuple(replace(row, busy=0.0) for row in seen.stages)) == ""
    assert picture("somewhere", seen)


def test_quantiles_are_those_of_prometheus() -> None:
    buckets = [(0.1, 10.0), (0.2, 20.0), (math.inf, 20.0)]
    assert quantile(buckets, 0.5) == pytest.approx(0.1)
    assert quantile(buckets, 0.75) == pytest.approx(0.15)
    assert quantile([(0.1, 0.0), (math.inf, 5.0)], 0.5) == 0.1
    assert math.isnan(quantile([(0.1, 0.0), (math.inf, 0.0)], 0.5))


def test_the_command_reads_a_running_endpoint_and_prints_one_view() -> None:
    door = Door()
    door.metrics.sessions_live.set(3)
    address = f"127.0.0.1:{free_port()}"
    targets = [{"targets": [address], "labels": {"process": "FrontDoor"}}, {"targets": ["127.0.0.1:1"], "labels": {"process": "Decoder"}}]
    exporter = Exporter(door.registry, port=int(address.rpartition(":")[2]), targets=lambda: targets)
    try:
        shown = CliRunner().invoke(app, ["top", "--metrics", address, "--every", "0.1", "--once"])
    finally:
        exporter.close()
    assert shown.exit_code == 0
    assert "3 live, 0 waiting" in shown.output
    assert "1 processes do not answer" in shown.output
    refused = CliRunner().invoke(app, ["top", "--metrics", address, "--once"])
    assert refused.exit_code == 1
    assert CliRunner().invoke(app, ["top", "--every", "0"]).exit_code == 2
