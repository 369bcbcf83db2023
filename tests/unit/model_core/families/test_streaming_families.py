"""Streaming families: each against code that nobody here wrote, and each session against itself alone, in company and resumed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from functools import cache
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from bench.models.block_causal import velocity, whole_network
from model_core.config import EngineConfig
from model_core.diffusion.flow_match import chunk_noise
from model_core.engine.engine import Engine
from model_core.engine.session import check, given_chunks
from model_core.families.causal_wan.keys import load_transformer
from model_core.families.causal_wan.parts import CausalWanSampler
from model_core.families.registry import family
from model_core.local import LocalPipeline
from model_core.nn.causal_dit import KeyValue
from model_core.nn.wan import CausalWan, rotary
from model_core.pipeline import PromptApplied, SessionRequest
from model_core.types import FrameChunk, Latents, SessionContext
from tests import checkpoints
from tests.models import Collector, make
from tests.pictures import moving
from tests.rounding import assert_rounds_alike

STREAMS = ("anyflow-far", "causal-wan")
CHUNKS = {"anyflow-far": 4, "causal-wan": 14}  # causal-wan renews its cache after 9
_TERMS = 512  # text tokens that attention sums over; no other sum of the small networks is as long
_PRODUCTS = 2 * 10 + 4  # in a forward: 2 layers of queries, keys, values, attention, output twice over, and 2 more; before and after them 4
PROMPT = "a red circle moves left"


def context(name: str, prompt: str = PROMPT, seed: int = 7, steps: int = 2, chunks: int = 0) -> SessionContext:
    grid = checkpoints.parts(name)[0].grid
    return replace(checkpoints.context(name, prompt, seed, steps), num_frames=grid.first_frame(chunks or CHUNKS[name]))


@cache
def alone(name: str) -> list[Latents]:
    return make(checkpoints.engine(name), context(name))


def resumed(name: str, chunk: int, prompt: str = PROMPT) -> SessionContext:
    settings = checkpoints.parts(name)[0]
    made, first = alone(name), max(0, chunk - settings.context_chunks)
    chunks = min(chunk + 2, CHUNKS[name])
    sink = tuple(made[: min(settings.sink_chunks, first)])
    return replace(context(name, prompt, chunks=chunks), next_chunk=chunk, suffix=tuple(made[first:chunk]), sink=sink)


# -- a session alone, in company, resumed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STREAMS)
def test_a_session_does_not_notice_the_others_in_its_batch(name: str) -> None:
    """Others with other prompts, seeds and step counts, each some steps ahead of the next, so that chunks are apart too."""
    collector = Collector(checkpoints.engine(name))
    contexts = [context(name, "a dog", 1, 3), context(name), context(name, "", 9, 1)]
    sessions = []
    for each in contexts:
        sessions.append(collector.open(each))
        for _ in range(3):
            collector.step()
    collector.run()
    got = collector.latents(sessions[1])
    assert len(got) == CHUNKS[name]
    np.testing.assert_array_equal(np.concatenate(got, 1), np.concatenate(alone(name), 1))


@pytest.mark.parametrize("name", STREAMS)
def test_a_session_that_goes_on_elsewhere_goes_on_as_if_undisturbed(name: str) -> None:
    """From every chunk, so from each place between two renewals of the cache."""
    settings, _, sampler = checkpoints.parts(name)
    for chunk in range(1, CHUNKS[name]):
        again = resumed(name, chunk)
        check(settings, sampler, again)
        for ours, undisturbed in zip(make(checkpoints.engine(name), again), alone(name)[chunk:], strict=False):
            np.testing.assert_array_equal(ours, undisturbed, err_msg=f"resumed at chunk {chunk}")


@pytest.mark.parametrize("name", STREAMS)
def test_a_chunk_depends_on_what_came_before_on_its_prompt_and_on_its_seed(name: str) -> None:
    """What the tests above compare would also be equal if the network ignored it."""
    chunk = 2
    plain = make(checkpoints.engine(name), resumed(name, chunk))[0]
    changed = tuple(latents + 1 if i == 0 else latents for i, latents in enumerate(resumed(name, chunk).suffix))
    for other in (replace(resumed(name, chunk), suffix=changed), resumed(name, chunk, "a dog"), replace(resumed(name, chunk), seed=8)):
        assert np.abs(make(checkpoints.engine(name), other)[0] - plain).max() > 1e-4


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: replace(c, suffix=c.suffix[1:]),
        lambda c: replace(c, suffix=(c.suffix[0][:, :0], *c.suffix[1:])),
        lambda c: replace(c, sink=(c.suffix[0],)),
        lambda c: replace(c, embedding=replace(c.embedding, tokens=c.embedding.tokens[:, :1])),
    ],
)
def test_what_the_graphs_have_no_shape_for_is_refused(name: str, spoil: Callable[[SessionContext], SessionContext]) -> None:
    settings, _, sampler = checkpoints.parts(name)
    with pytest.raises(Exception, match="context"):
        check(settings, sampler, spoil(resumed(name, 2)))


# -- through the stages -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STREAMS)
async def test_a_change_of_prompt_through_the_stages_of_one_process(name: str) -> None:
    """Latents of the staged session are the engine's alone; the new prompt's are those of a leg that opens with it."""
    settings = checkpoints.parts(name)[0]
    pipeline = LocalPipeline(settings, EngineConfig(batch_buckets=(1, 2)))
    chunks: list[FrameChunk] = []
    try:
        frames = settings.grid.first_frame(4)
        session = await pipeline.pipeline.open(SessionRequest("s", PROMPT, 7, 2, frames))
        async with aclosing(session.events()) as events:
            async for event in events:
                if isinstance(event, FrameChunk):
                    chunks.append(event)
                    if event.index == 1:
                        await session.set_prompt("a dog")
                else:
                    assert isinstance(event, PromptApplied)
                    assert event.first_frame == settings.grid.first_frame(2)
    finally:
        await pipeline.aclose()
    after = make(checkpoints.engine(name), resumed(name, 2, "a dog"))
    expected = [*alone(name)[:2], *after]
    assert [chunk.index for chunk in chunks] == [0, 1, 2, 3]
    for chunk, latents in zip(chunks, expected, strict=True):
        np.testing.assert_array_equal(chunk.latents, latents)
    assert sum(chunk.num_frames for chunk in chunks) == frames
    assert all(chunk.pixels().std() > 1 for chunk in chunks)


# -- against diffusers --------------------------------------------------------------------------------------------------------------


def test_anyflow_is_what_diffusers_makes() -> None:
    """But for rounding: their rotary positions are complex, in float64, and their attention is FlexAttention. Both kinds of patch occur."""
    settings = checkpoints.parts("anyflow-far")[0]
    pipeline = diffusers.AnyFlowFARPipeline.from_pretrained(checkpoints.folder("anyflow-far"))
    pipeline.set_progress_bar_config(disable=True)

    def theirs(**given: Any) -> Any:
        return pipeline(
            prompt=PROMPT, height=settings.height, width=settings.width, num_frames=settings.grid.max_frames, num_inference_steps=2,
            generator=torch.Generator().manual_seed(7), output_type="latent", **given,
        ).frames[0]  # fmt: skip

    # 4 chunks, each made in 2 steps and then seen by the next one.
    sums = 4 * 3 * _PRODUCTS
    assert_rounds_alike(np.concatenate(alone("anyflow-far"), 1), theirs(), terms=_TERMS, sums=sums)

    # From an image, whose latents are the first chunk, and from a video, of 1 + 12 frames.
    look = family("anyflow-far").parts.conditioner(settings)
    for count in (1, 13):
        frames = moving(count, settings.height, settings.width)
        with torch.inference_mode():
            given = look.condition(frames)
        opened = replace(context("anyflow-far"), given=given)
        *_, (_, after) = given_chunks(opened, settings)
        assert after.next_chunk == len(after.suffix) == (count > 1) + 1
        ours = np.concatenate([*after.suffix, *make(checkpoints.engine("anyflow-far"), after)], 1)
        pixels = torch.tensor(frames).permute(0, 3, 1, 2)[None].float() / 255
        assert_rounds_alike(ours, theirs(video=pixels), terms=_TERMS, sums=sums)


@cache
def wan() -> Any:
    """Diffusers' whole network with the weights of the small causal checkpoint."""
    return whole_network(checkpoints.parts("causal-wan")[0].checkpoint)


def test_causal_wan_with_nothing_before_a_clip_is_diffusers_wan() -> None:
    draw = torch.Generator().manual_seed(1)
    x, text, t = torch.randn(1, 4, 6, 4, 6, generator=draw), torch.randn(1, 512, 32, generator=draw), torch.tensor([937.5])
    ours = CausalWan(load_transformer(checkpoints.parts("causal-wan")[0].checkpoint))
    nothing = [KeyValue(torch.empty(1, 0, 48), torch.empty(1, 0, 48))] * 2
    with torch.inference_mode():
        theirs = wan()(x, t, text, return_dict=False)[0]
        words = ours.condition(text)
        made = ours.predict(x, ours.modulate(t), rotary(24, range(6), 2, 3), words, nothing, None)
    assert_rounds_alike(made, theirs, terms=_TERMS, sums=_PRODUCTS)


@pytest.mark.parametrize("chunk", [2, 5])
def test_chunks_with_a_cache_are_a_whole_sequence_under_a_block_causal_mask(chunk: int) -> None:
    """Also after a change of prompt: all chunks before the new one are seen as the new prompt has them, as in LongLive's recache."""
    name = "causal-wan"
    settings, _, sampler = checkpoints.parts(name)
    assert isinstance(sampler, CausalWanSampler)
    opened = resumed(name, chunk, "a dog")
    with torch.inference_mode():
        leg = sampler.open(opened)
        sampler.start(leg, chunk)
        noise = leg.x_t.clone()
        sampler.step([leg])
    clean, text = [torch.tensor(latents) for latents in opened.suffix], torch.tensor(opened.embedding.tokens)
    theirs = noise - velocity(whole_network(settings.checkpoint), clean, noise, 1000.0, text, settings.attention)
    # The first step leads from pure noise to the clean chunk, and back with fresh noise.
    t_next = float(leg.times[1])
    fresh = chunk_noise(opened.seed, chunk, settings.latent_shape(chunk), step=1)
    assert_rounds_alike(leg.x_t, (1 - t_next) * theirs + t_next * fresh, terms=_TERMS, sums=(chunk + 1) * _PRODUCTS)


def test_steps_are_those_of_self_forcing() -> None:
    sampler = checkpoints.parts("causal-wan")[2]
    assert isinstance(sampler, CausalWanSampler)
    warped = [1000 * 5 * u / (1 + 4 * u) for u in (1.0, 0.75, 0.5, 0.25, 0.0)]  # of denoising_step_list, with timestep_shift 5
    assert (1000 * sampler.times(4)).tolist() == pytest.approx(warped)


def test_the_sink_stays_in_the_log_of_a_long_session() -> None:
    settings = checkpoints.parts("causal-wan")[0]
    late = resumed("causal-wan", 13)
    assert len(late.suffix) == settings.context_chunks < 13
    assert len(late.sink) == 1
    plain = make(checkpoints.engine("causal-wan"), late)[0]
    moved = make(checkpoints.engine("causal-wan"), replace(late, sink=(late.sink[0] + 1,)))[0]
    assert np.abs(plain - moved).max() > 1e-5


@pytest.mark.parametrize("name", STREAMS)
def test_weights_in_bfloat16_give_nearly_the_same(name: str) -> None:
    settings = checkpoints.parts(name)[0]
    settings = replace(settings, checkpoint=replace(settings.checkpoint, dtype="bfloat16"))
    engine = EngineConfig(batch_buckets=(1,))
    made = make(Engine(family(name).parts.sampler(settings, engine), settings, engine), context(name, chunks=3))
    for rough, exact in zip(made, alone(name), strict=False):
        assert rough.dtype == np.float32
        assert 0 < np.abs(rough - exact).mean() < 0.1 * exact.std()
