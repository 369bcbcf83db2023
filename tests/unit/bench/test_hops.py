from __future__ import annotations

import os

import pytest

from bench.costs.hops import costs, usage


def test_device_time_is_the_busiest_threads_and_the_rest_is_what_serving_costs() -> None:
    idle = ({("Decoder", 1): 1.0, ("Front", 5): 0.0}, {("Decoder", 1): 1.1, ("Front", 5): 0.2})
    before = idle[1]
    after = {("Decoder", 1): 1.3, ("Decoder", 2): 2.0, ("Front", 5): 0.7, ("Front", 6): 0.1}
    decoder, front = costs(idle, 10.0, (before, after), chunks=100)
    assert decoder.process == "Decoder"
    assert [decoder.device_ms, decoder.rest_ms] == pytest.approx([20.0, 2.0])
    assert decoder.idle_percent == pytest.approx(1.0)
    assert front.process == "Front"
    assert [front.device_ms, front.rest_ms] == pytest.approx([0.0, 6.0])


def test_a_fused_replica_has_a_device_thread_for_each_heavy_stage() -> None:
    after = {("FusedPipeline", 1): 0.4, ("FusedPipeline", 2): 0.2, ("FusedPipeline", 3): 0.1}
    (fused,) = costs(({}, {}), 1.0, ({}, after), chunks=100)
    assert [fused.device_ms, fused.rest_ms] == pytest.approx([6.0, 1.0])


def test_usage_reads_this_process() -> None:
    assert any(thread == os.getpid() for _, thread in usage(os.getpid()))
