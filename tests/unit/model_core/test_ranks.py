"""One replica on several ranks: the same chunks but for rounding, caches that are never gathered, and an end to all of them."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest

from model_core.config import EngineConfig, Execution, RuntimeConfig
from model_core.engine.engine import Engine
from model_core.errors import RuntimeUnavailable, StageUnavailable
from model_core.families.millrace.parts import MillraceSampler
from model_core.families.parallel import ParallelSampler
from model_core.presets import millrace_64
from model_core.runtimes.environment import rank_environment, set_environment
from model_core.runtimes.ranks import Followers
from model_core.weights import load_dit
from tests.models import Collector, random_context
from tests.rounding import assert_rounds_alike

TWO = RuntimeConfig(ranks=2)
CONFIG = replace(millrace_64(), execution=Execution(denoiser=TWO))
ENGINE = EngineConfig(batch_buckets=(1, 2))


def test_two_ranks_make_what_one_makes_but_for_rounding_and_end_with_their_replica() -> None:
    """Of two sessions in one batch, over a window that fills, on gloo."""
    made = []
    sampler = ParallelSampler(CONFIG, ENGINE)
    contexts = [random_context(name, CONFIG, chunks=3) for name in ("one", "two")]
    for each in (sampler, MillraceSampler(load_dit(CONFIG), millrace_64(), ENGINE.batch_buckets)):
        collector = Collector(Engine(each, CONFIG, ENGINE))
        sessions = [collector.open(context) for context in contexts]
        collector.run()
        made.append(np.stack([collector.latents(session) for session in sessions]))
    together, alone = made
    assert not np.array_equal(together, alone)
    dit = CONFIG.dit
    sums = 3 * (contexts[0].num_steps + 1) * dit.depth * 8  # 3 chunks; in a layer 8 products follow one another
    assert_rounds_alike(together, alone, terms=dit.mlp_ratio * dit.width, sums=sums)

    leg = sampler.open(contexts[0])
    assert leg.leg.text.layers[0].key.shape[-1] == CONFIG.dit.width // 2
    (follower,) = sampler._followers._processes  # noqa: SLF001
    assert follower.poll() is None
    del leg, sampler, each, collector, sessions
    gc.collect()
    assert follower.poll() == 0


def test_a_rank_that_has_ended_is_noticed_by_the_next_call() -> None:
    followers = Followers(TWO, "this")  # a module that prints something and ends
    (follower,) = followers._processes  # noqa: SLF001
    follower.wait()
    with pytest.raises(StageUnavailable, match="rank 1 of 2 has ended with code 0"):
        followers.tell("anything")


def test_each_rank_is_shown_its_own_devices() -> None:
    cuda, neuron = replace(TWO, name="cuda"), replace(TWO, name="neuron", cores=4)
    assert rank_environment(RuntimeConfig(name="cuda"), 0, {}) == rank_environment(TWO, 1, {}) == {}
    assert rank_environment(cuda, 1, {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"})["CUDA_VISIBLE_DEVICES"] == "GPU-b"
    environ = {"NEURON_RT_VISIBLE_CORES": "4-7"}
    set_environment([neuron], environ, modules={})
    assert environ["NEURON_RT_VISIBLE_CORES"] == "4,5"
    assert rank_environment(neuron, 1, environ)["NEURON_RT_VISIBLE_CORES"] == "6,7"
    with pytest.raises(RuntimeUnavailable, match="3 devices do not divide by 2 ranks"):
        rank_environment(neuron, 1, {"NEURON_RT_VISIBLE_CORES": "0-2"})
    with pytest.raises(RuntimeUnavailable, match="CUDA_VISIBLE_DEVICES must name the devices of 2 ranks"):
        rank_environment(cuda, 1, {})
