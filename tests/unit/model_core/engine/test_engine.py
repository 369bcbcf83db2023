"""The engine with the real network. Latents are compared bit for bit: that is what makes a session movable."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from model_core.config import EngineConfig, MillraceConfig
from model_core.diffusion.flow_match import chunk_noise
from model_core.engine.engine import Engine
from model_core.families.millrace.parts import MillraceSampler
from model_core.nn.causal_dit import CausalDiT
from model_core.presets import millrace_64
from model_core.statistics import ForwardProfile
from model_core.types import Latents, SessionContext
from model_core.weights import load_dit
from tests.models import SMALL_DIT, Collector, make, random_context, random_dit, random_embedding, resumed, small_config
from tests.models import new_engine as build
from tests.rounding import assert_rounds_alike
from training.rollout import rollout

MODELS = {"millrace-64": (load_dit(millrace_64()), millrace_64()), "small": (random_dit(), small_config())}
Rig = tuple[CausalDiT, MillraceConfig]
SMALL = MODELS["small"]
CHUNKS = SMALL_DIT.window + 3  # so that chunks leave the window


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=MODELS)
def rig(request: pytest.FixtureRequest) -> Rig:
    return MODELS[request.param]


@cache
def sampler(network: CausalDiT, config: MillraceConfig, buckets: tuple[int, ...]) -> MillraceSampler:
    """Shared by engines: it keeps nothing of a session, and tries each shape both ways but once."""
    return MillraceSampler(network, config, buckets)


def new_engine(rig: Rig, buckets: tuple[int, ...] = (1, 2, 4, 8), slots: int = 16) -> Engine:
    return Engine(sampler(*rig, buckets), rig[1], EngineConfig(slots=slots, batch_buckets=buckets))


def assert_equal(made: list[Latents], expected: list[Latents]) -> None:
    assert len(made) == len(expected)
    assert [np.abs(a - b).max() for a, b in zip(made, expected, strict=True)] == [0.0] * len(expected)


def crowd(config: MillraceConfig) -> list[SessionContext]:
    """Seven others: other prompts, seeds, lengths, step counts; one of them in the middle of its life."""
    others = [random_context(f"other {i}" * (i + 1), config, chunks=5 + i, num_steps=2 + i, seed=i) for i in range(6)]
    shape = (config.dit.latent_channels, config.dit.latent_frames, config.dit.latent_height, config.dit.latent_width)
    past = [chunk_noise(99, i, shape).numpy() for i in range(3)]
    return [*others, resumed(random_context("moved here", config, chunks=7, num_steps=3), past, config.dit.window)]


def test_a_session_does_not_notice_the_others(rig: Rig) -> None:
    """Alone, and with seven others that come at other times and are at other steps."""
    context = random_context("a session", rig[1], chunks=CHUNKS, num_steps=4)
    alone = make(new_engine(rig), context)

    collector = Collector(new_engine(rig))
    others = crowd(rig[1])
    for other in others[:3]:
        collector.open(other)
        collector.step()
    session = collector.open(context)
    for other in others[3:]:
        collector.step()
        collector.open(other)
    widest = 0
    while collector.step():
        widest = max(widest, sum(not s.finished for s in collector.chunks))
    collector.engine.check_integrity()

    assert widest == 8
    assert_equal(collector.latents(session), alone)
    assert np.abs(alone[0]).max() > 0.1
    assert not np.array_equal(alone[0], alone[1])


@pytest.mark.parametrize("buckets", [(1,), (2,), (8,), (1, 3, 5), (16,)])
def test_latents_do_not_depend_on_the_buckets(rig: Rig, buckets: tuple[int, ...]) -> None:
    contexts = [random_context(f"session {i}", rig[1], chunks=2, num_steps=1 + i % 3, seed=i) for i in range(5)]
    collector = Collector(new_engine(rig, buckets))
    sessions = [collector.open(context) for context in contexts]
    collector.run()
    for session, context in zip(sessions, contexts, strict=True):
        assert_equal(collector.latents(session), make(new_engine(rig, (1,)), context))


@pytest.mark.parametrize("num_steps", [1, 4, 16])
def test_it_agrees_with_the_plain_batched_sampler(rig: Rig, num_steps: int) -> None:
    """But for rounding: the sampler conditions all rows at once, at one time; the engine one row, at all times."""
    model, config = rig
    contexts = [random_context(f"session {i}", config, chunks=4, num_steps=num_steps, seed=i) for i in range(2)]
    shape = (config.dit.latent_channels, config.dit.latent_frames, config.dit.latent_height, config.dit.latent_width)
    tokens, masks = (torch.stack([torch.tensor(getattr(c.embedding, part)) for c in contexts]) for part in ("tokens", "mask"))
    text = model.condition(tokens, masks)
    expected = rollout(
        model,
        prompt=lambda _: text,
        noise=lambda index: torch.stack([chunk_noise(c.seed, index, shape) for c in contexts]),
        chunks=4,
        num_steps=num_steps,
        shift=config.shift,
    )
    collector = Collector(new_engine(rig))
    sessions = [collector.open(context) for context in contexts]
    collector.run()
    for row, session in enumerate(sessions):
        for made, chunk in zip(collector.latents(session), expected, strict=True):
            # 4 chunks, each of so many forwards and a commit; in a layer 8 products follow one another.
            sums = 4 * (num_steps + 1) * config.dit.depth * 8
            assert_rounds_alike(made, chunk[row], terms=config.dit.mlp_ratio * config.dit.width, sums=sums)


@pytest.mark.parametrize("boundary", range(1, CHUNKS))
def test_a_session_goes_on_elsewhere_from_its_last_chunks(rig: Rig, boundary: int) -> None:
    """At every boundary, so with fewer chunks made than the window holds, and with more."""
    context = random_context("a session", rig[1], chunks=CHUNKS, num_steps=2)
    undisturbed = make(new_engine(rig), context)
    elsewhere = new_engine(rig, (4,))
    assert_equal(make(elsewhere, resumed(context, undisturbed[:boundary], rig[1].dit.window)), undisturbed[boundary:])


def test_the_suffix_matters(rig: Rig) -> None:
    """Guards the test above: were the past ignored, moving would be easy."""
    context = random_context("a session", rig[1], chunks=4, num_steps=2)
    made = make(new_engine(rig), context)
    for forgetful in (made[:0], made[2:3]):
        again = make(new_engine(rig), replace(context, next_chunk=3, suffix=tuple(forgetful)))
        assert not np.array_equal(again[0], made[3])


def test_a_prompt_switch_is_a_session_reopened_with_another_prompt(rig: Rig) -> None:
    """What the first leg has made stays; the rest depends on the new prompt, and not on where or with whom it is made."""
    context = random_context("a red circle", rig[1], chunks=CHUNKS, num_steps=2)
    made = make(new_engine(rig), context)
    switched = replace(resumed(context, made[:3], rig[1].dit.window), embedding=random_embedding("a blue square", rig[1]))

    collector = Collector(new_engine(rig))
    first = collector.open(context)
    while len(collector.chunks[first]) < 3:
        collector.step()
    collector.engine.close(first)
    for other in crowd(rig[1]):
        collector.open(other)
    second = collector.open(switched)
    collector.run()

    assert_equal(collector.latents(first), made[:3])
    assert_equal(collector.latents(second), make(new_engine(rig), switched))
    assert not np.array_equal(collector.latents(second)[0], made[3])


@pytest.mark.parametrize("num_steps", range(1, SMALL[1].max_steps + 1))
def test_every_step_count_takes_that_many_forwards_a_chunk(num_steps: int) -> None:
    collector = Collector(new_engine(SMALL))
    session = collector.open(random_context("a session", SMALL[1], chunks=2, num_steps=num_steps))
    collector.run()
    assert [chunk.index for chunk in collector.chunks[session]] == [0, 1]
    assert collector.engine.statistics().rows == 2 * num_steps + 1  # and one commit: nothing follows the last chunk
    assert collector.steps == 2 * num_steps + 1  # the last finds nothing to do


@pytest.mark.parametrize("lead", [1, 2, 3])
def test_a_session_whose_reader_is_slow_is_not_stepped(lead: int) -> None:
    engine = build(*SMALL, EngineConfig(max_lead_chunks=lead))
    collector = Collector(engine)
    held = collector.open(random_context("held", SMALL[1], chunks=None, num_steps=2))
    collector.held.add(held)
    collector.run()
    assert len(collector.chunks[held]) == held.waiting_chunks == lead

    other = collector.open(random_context("other", SMALL[1], chunks=3, num_steps=2))
    collector.run()
    assert len(collector.chunks[other]) == 3
    assert len(collector.chunks[held]) == lead

    for taken in range(1, 4):
        engine.taken(held)
        collector.run()
        assert len(collector.chunks[held]) == lead + taken
    free = make(new_engine(SMALL), random_context("held", SMALL[1], chunks=lead + 3, num_steps=2))
    assert_equal(collector.latents(held), free)


def test_time_held_back_is_not_time_in_the_queue() -> None:
    """A manual clock: forwards take no time, and the reader lets 50 s pass."""
    now = [0.0]
    sampler = MillraceSampler(*SMALL, EngineConfig().batch_buckets)
    collector = Collector(Engine(sampler, SMALL[1], EngineConfig(max_lead_chunks=1), clock=lambda: now[0]))
    session = collector.open(random_context("a session", SMALL[1], chunks=3, num_steps=2))
    collector.held.add(session)
    now[0] = 1.0
    collector.run()
    now[0] = 51.0
    collector.engine.taken(session)
    now[0] = 53.0
    collector.run()
    assert [chunk.timings[0].queue_s for chunk in collector.chunks[session]] == [1.0, 2.0]


def test_slots_come_back_whatever_a_session_was_doing() -> None:
    rng = random.Random(3)
    collector = Collector(new_engine(SMALL, slots=4))
    engine = collector.engine
    open_sessions = []
    for turn in range(80):
        if engine.free_slots and rng.random() < 0.5:
            open_sessions.append(collector.open(random_context(f"{turn}", SMALL[1], chunks=rng.choice([1, 3, None]), num_steps=3)))
        if open_sessions and rng.random() < 0.3:
            gone = open_sessions.pop(rng.randrange(len(open_sessions)))
            engine.close(gone)
            engine.close(gone)
        collector.step()
        engine.check_integrity()
        assert engine.statistics().sessions == len(open_sessions) == 4 - engine.free_slots
    collector.close(open_sessions)
    assert engine.free_slots == 4
    assert not collector.step()


def test_closing_a_session_late_does_not_touch_the_slot_s_next_holder() -> None:
    collector = Collector(new_engine(SMALL, slots=1))
    first = collector.open(random_context("first", SMALL[1]))
    collector.engine.close(first)
    second = collector.open(random_context("second", SMALL[1]))
    assert second.slot == first.slot
    collector.engine.close(first)
    assert collector.engine.statistics().sessions == 1
    collector.engine.check_integrity()


def test_a_session_that_cannot_be_opened_takes_no_slot() -> None:
    engine = new_engine(SMALL, slots=1)
    context = replace(random_context("a session", SMALL[1]), next_chunk=1, suffix=(np.zeros((1, 2, 3, 4), np.float32),))
    with pytest.raises(RuntimeError):
        engine.open(context)
    assert engine.free_slots == 1
    engine.check_integrity()


def test_nothing_is_left_to_do_for_a_session_opened_at_its_end() -> None:
    collector = Collector(new_engine(SMALL))
    session = collector.open(replace(random_context("a session", SMALL[1], chunks=2), next_chunk=2))
    assert session.finished
    assert not collector.step()


def test_warming_up_leaves_no_trace() -> None:
    engine = new_engine(SMALL, slots=1)
    engine.warm_up()
    assert engine.free_slots == 1
    profile = engine.statistics().profile
    assert profile.buckets == engine.engine.batch_buckets
    assert all(seconds > 0 for seconds in (*profile.step_s, *profile.commit_s))
    assert replace(engine.statistics(), profile=ForwardProfile()) == new_engine(SMALL, slots=1).statistics()
