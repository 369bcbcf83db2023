"""Keys in the sampler: they change what is made, rows do not notice each other's, and a leg goes on under them from the log alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from model_core.config import EngineConfig, MillraceConfig
from model_core.engine.engine import Engine
from model_core.families.millrace.parts import MillraceSampler
from model_core.nn.causal_dit import CausalDiT
from model_core.presets import millrace_64, millrace_64_world
from model_core.types import Latents, SessionContext
from model_core.weights import load_vae
from tests.models import SMALL_DIT, Collector, make, random_context, random_dit, resumed, small_config

DIT = replace(SMALL_DIT, keys=4)
WORLD: MillraceConfig = replace(millrace_64_world(), dit=DIT)
NETWORK = random_dit(DIT)
BUCKETS = (1, 2, 4)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def engine(network: CausalDiT = NETWORK, config: MillraceConfig = WORLD) -> Engine:
    return Engine(MillraceSampler(network, config, BUCKETS), config, EngineConfig(batch_buckets=BUCKETS))


def context(*keys: str, name: str = "a red circle", chunks: int = 3) -> SessionContext:
    return replace(random_context(name, WORLD, chunks=chunks), keys=keys)


def equal(made: list[Latents], expected: list[Latents]) -> bool:
    return len(made) == len(expected) and all(np.array_equal(a, b) for a, b in zip(made, expected, strict=True))


def test_each_set_of_keys_makes_other_frames_and_opposite_keys_are_none() -> None:
    made = [make(engine(), context(*keys)) for keys in ((), ("up",), ("down",), ("left",), ("right",), ("up", "left"))]
    for index, one in enumerate(made):
        assert not any(equal(one[:1], other[:1]) for other in made[:index])
    assert equal(make(engine(), context("up", "down")), made[0])
    assert equal(make(engine(), context("left", "up")), made[5])


def test_a_session_does_not_notice_the_keys_of_the_others() -> None:
    contexts = [context(*keys, name=f"session {keys}") for keys in ((), ("up",), ("left", "down"), ("right",))]
    collector = Collector(engine())
    sessions = [collector.open(each) for each in contexts]
    collector.run()
    for session, each in zip(sessions, contexts, strict=True):
        assert equal(collector.latents(session), make(engine(), each))


def test_a_log_is_replayed_at_any_chunk_whatever_was_held_before() -> None:
    held = [(), ("up",), ("up",), ("left",), (), ("right", "down")]
    whole: list[Latents] = []
    for keys in held:
        leg = replace(resumed(context(*keys, chunks=len(whole) + 1), whole, DIT.window), keys=keys)
        whole += make(engine(), leg)
    for chunk, keys in enumerate(held):
        again = make(engine(), resumed(context(*keys, chunks=chunk + 1), whole[:chunk], DIT.window))
        assert equal(again, whole[chunk : chunk + 1])


def test_a_leg_with_keys_that_the_network_does_not_have_is_refused() -> None:
    (told,) = MillraceSampler(NETWORK, WORLD, BUCKETS).violations(context("up", "jump"))
    assert (told.field, told.description) == ("context.keys", "must be among ('up', 'down', 'left', 'right'); got 'jump'")
    (told,) = MillraceSampler(random_dit(), small_config(), BUCKETS).violations(context("up"))
    assert told.description == "must be among (); got 'up'"
    assert not MillraceSampler(NETWORK, WORLD, BUCKETS).violations(context("up"))


def test_the_world_shares_the_autoencoder_of_the_embedded_model() -> None:
    world, base = load_vae(millrace_64_world()).state_dict(), load_vae(millrace_64()).state_dict()
    assert all(torch.equal(world[name], base[name]) for name in base)
