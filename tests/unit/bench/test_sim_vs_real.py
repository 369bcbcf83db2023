"""What the replay takes from a recording of the real cluster."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from autoscaling.simulator.policies import Ours
from bench.scaling.burst import Measurements
from bench.scaling.sim_vs_real import policy, real, setting, simulated, start_s
from model_core.stage import Stage
from model_core.statistics import ForwardProfile

NAMES = ("TextEncoder", "Denoiser", "Decoder")


def counts(at: float, denoisers: int, starting: int) -> list[Any]:
    return [at, {"TextEncoder": 1, "Denoiser": denoisers, "Decoder": 1}, dict.fromkeys(NAMES, 0) | {"Denoiser": starting}]


def recording(seconds: float = 20.0) -> tuple[dict[str, Any], dict[str, Any]]:
    """One session at a time, a first frame 0.25 s after it was asked for, and a second denoiser that takes six seconds to start."""
    measured = Measurements(ForwardProfile((1, 2, 4, 8), (0.05,) * 4, (0.05,) * 4), prompts=10, encoding_s=0.1, chunks=100, decoding_s=1.0)
    visits = [{"at_s": 1.0 + 5 * n, "seconds": 4.0} for n in range(3)]
    sessions = [{**v, "chunks": [[0.25 + k, 8 * k, 8, False] for k in range(4)]} for v in visits]
    recorded = {
        "policy": "headrace", "measured": json.loads(json.dumps(asdict(measured))), "sessions": sessions,
        "replicas": [counts(0.0, 1, 0), counts(4.0, 2, 1), counts(10.0, 2, 0), counts(20.0, 2, 0)],
    }  # fmt: skip
    found = {"settings": {"seconds": seconds}, "stages": {"fps": 8, "most": dict.fromkeys(NAMES, 2)}, "arrivals": visits}
    return found, recorded


def test_a_recording_says_how_long_stages_and_starts_take() -> None:
    found, recorded = recording()
    assert start_s(recorded) == pytest.approx(6.0)
    x = setting(found, recorded)
    assert (x.times.encode_s, x.times.decode_s, x.times.chunk_s) == pytest.approx((0.01, 0.01, 1.0))
    assert x.hardware.replica_start_s[Stage.DENOISER] == pytest.approx(6.0)
    assert real(recorded)["denoiser replica-s"] == pytest.approx(4 + 6 + 20)


def test_the_policy_has_the_arguments_of_serve_yaml() -> None:
    found, recorded = recording()
    ours = policy("headrace", setting(found, recorded), found["stages"]["most"], 4)
    assert isinstance(ours, Ours)
    assert (ours.config.replica_start_s, ours.config.burst_k, ours.config.limits[Stage.DENOISER].max_replicas) == (15, 2, 2)


def test_the_replay_of_an_idle_cluster_takes_as_long_as_the_recording() -> None:
    found, recorded = recording()
    measured, modelled = real(recorded), simulated(found, recorded)
    assert modelled["ttff p50"] == pytest.approx(measured["ttff p50"], rel=0.1)
