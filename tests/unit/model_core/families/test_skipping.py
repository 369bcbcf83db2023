"""Skipping forwards: off it changes nothing, on it saves forwards, and either way a clip's frames are its own affair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from model_core.config import EngineConfig
from model_core.engine.engine import Engine
from model_core.families.common.clip import ClipLeg, ClipSampler
from model_core.families.common.skipping import Skipping
from model_core.families.registry import family
from model_core.fingerprint import model_fingerprint
from model_core.types import Latents
from tests import checkpoints
from tests.models import Collector, make

STEPS, THRESHOLD, BUCKETS = 10, 0.4, EngineConfig(batch_buckets=(1, 2, 4))
NAMES = ("wan-2.2", "ltx", "cogvideox")


def counted(name: str, threshold: float) -> tuple[Engine, list[list[ClipLeg]]]:
    """An engine that skips, and the clips of each forward that it makes."""
    config = replace(checkpoints.config(name), skip_threshold=threshold)
    sampler = family(config.family).parts.sampler(config, BUCKETS)
    assert isinstance(sampler, ClipSampler)
    forwards: list[list[ClipLeg]] = []
    predict = sampler.predict

    def counting(legs: Sequence[ClipLeg], x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        forwards.append(list(legs))
        return predict(legs, x_t, t)

    sampler.predict = counting  # type: ignore[method-assign]
    return Engine(sampler, config, BUCKETS), forwards


def alone(name: str, threshold: float, seed: int = 7, steps: int = STEPS) -> tuple[Latents, int]:
    """A clip, and the forwards that it took."""
    engine, forwards = counted(name, threshold)
    (latents,) = make(engine, checkpoints.context(name, f"clip {seed}", seed, steps))
    return latents, len(forwards)


@pytest.mark.parametrize("name", NAMES)
def test_a_threshold_of_zero_is_the_clip_that_diffusers_makes_and_above_it_is_near_it(name: str) -> None:
    engine = checkpoints.engine(name)
    (plain,) = make(engine, checkpoints.context(name, "clip 7", 7, STEPS))
    off, all_forwards = alone(name, 0.0)
    on, fewer = alone(name, THRESHOLD)
    np.testing.assert_array_equal(off, plain)
    assert all_forwards == STEPS
    assert fewer < STEPS
    assert 0 < np.abs(on - plain).mean() < 0.25 * np.abs(plain).mean()  # clips of two seeds are more than their own size apart


@pytest.mark.parametrize("name", NAMES)
def test_who_else_is_in_the_batch_does_not_change_what_is_skipped(name: str) -> None:
    engine, forwards = counted(name, THRESHOLD)
    collector = Collector(engine)
    sessions = []
    for seed in (1, 2, 3):
        sessions.append(collector.open(checkpoints.context(name, f"clip {seed}", seed, STEPS + seed)))
        collector.step()
    collector.run()
    assert len({len(set(legs)) for legs in forwards}) > 1  # of one step, some clips had a forward and some had none
    for session, seed in zip(sessions, (1, 2, 3), strict=True):
        latents, count = alone(name, THRESHOLD, seed, STEPS + seed)
        np.testing.assert_array_equal(collector.latents(session)[0], latents)
        assert sum(session.leg in legs for legs in forwards) == count


def test_it_is_part_of_what_a_session_resumes_by() -> None:
    config = checkpoints.config("ltx")
    assert model_fingerprint(config) != model_fingerprint(replace(config, skip_threshold=0.1))
    assert model_fingerprint(config) == model_fingerprint(replace(config, skip_threshold=0.0))


def test_first_and_last_steps_and_another_network_need_a_forward() -> None:
    skipping = Skipping(threshold=1.0, steps=10)
    x = [torch.full((1, 2), float(i)) for i in range(10)]
    for i in (0, 1):
        assert skipping.guess(x[i], i, "first") is None
        skipping.learn(x[i], 10 + x[i], "first")
    torch.testing.assert_close(skipping.guess(x[2], 2, "first"), 10 + x[2])  # the change is in steady proportion
    assert skipping.guess(x[3], 3, "second") is None
    assert skipping.guess(x[9], 9, "first") is None


def test_drift_adds_up_and_a_number_that_is_none_is_not_trusted() -> None:
    skipping = Skipping(threshold=0.3, steps=100)
    for x in (0.0, 1.0):
        skipping.learn(torch.tensor([x]), torch.tensor([10 + x]), None)
    told = [skipping.guess(torch.tensor([x]), 50, None) is not None for x in (2.0, 3.0, 4.0, 5.0)]
    assert told == [True, True, True, False]  # 1/11 + 1/12 + 1/13 < 0.3 < 1/11 + 1/12 + 1/13 + 1/14
    skipping.learn(torch.tensor([math.nan]), torch.tensor([1.0]), None)
    assert skipping.guess(torch.tensor([1.0]), 50, None) is None
