"""Guidance and negative prompts a request: each clip as diffusers makes it, whoever shares its forwards, and in the log for good."""

from __future__ import annotations

import math
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

import diffusers
import numpy as np
import pytest
import torch

from autoscaling.admission.decide import Ask
from headrace.v1 import video_pb2 as pb
from model_core.config import EngineConfig
from model_core.engine.session import check
from model_core.errors import InvalidRequest, WeightsError
from model_core.families.common.clip import ClipSampler
from model_core.families.registry import family
from model_core.graphs import DENOISER
from model_core.pipeline import Session, SessionRequest
from model_core.presets import millrace_64
from model_core.session_log import SessionRecord
from model_core.types import FrameChunk, Guidance, SessionContext
from service.checks import Catalogue, Limits, Validator
from service.orders import Doorway, Mode, VideoRequest
from tests import checkpoints
from tests.fakes import FakeStages
from tests.models import Collector, make
from tests.rounding import assert_rounds_alike
from tests.served import serving

ASKED = [(5.0, ""), (1.0, ""), (2.5, "a cat"), (1.0, ""), (7.0, "blurred")]


def context(name: str, number: int) -> SessionContext:
    """A clip of its own prompt, seed, number of steps and guidance."""
    scale, negative = ASKED[number]
    _, embedder, _ = checkpoints.parts(name)
    plain = checkpoints.context(name, f"clip {number}", seed=number, steps=2 + number % 3)
    return replace(plain, guidance=checkpoints.guidance(embedder, scale, negative))


@pytest.mark.parametrize("name", ["wan", "wan-2.2", "ltx", "cogvideox", "cogvideox-2b"])
def test_clips_of_any_guidance_are_diffusers_alone_and_together(name: str) -> None:
    settings, _, sampler = checkpoints.parts(name)
    assert isinstance(sampler, ClipSampler)
    contexts = [context(name, number) for number in range(len(ASKED))]
    alone = [make(checkpoints.engine(name), each)[0] for each in contexts]
    collector = Collector(checkpoints.engine(name))
    sessions = [collector.open(each) for each in contexts[:3]]
    collector.step()
    sessions += [collector.open(each) for each in contexts[3:]]
    collector.run()
    for session, latents in zip(sessions, alone, strict=True):
        np.testing.assert_array_equal(collector.latents(session)[0], latents)
    pipeline = getattr(diffusers, settings.checkpoint.index()["_class_name"]).from_pretrained(checkpoints.folder(name))
    pipeline.set_progress_bar_config(disable=True)
    for number in (1, 2):
        scale, negative = ASKED[number]
        theirs = pipeline(
            prompt=f"clip {number}", negative_prompt=negative, height=settings.height, width=settings.width, num_frames=9,
            num_inference_steps=2 + number % 3, guidance_scale=scale, generator=torch.Generator().manual_seed(number),
            max_sequence_length=settings.max_tokens, output_type="latent",
        ).frames[0]  # fmt: skip
        assert_rounds_alike(alone[number], sampler.clean(theirs[None]).numpy(), terms=512, sums=4 * 24)


def test_wan_looks_twice_only_for_clips_with_guidance(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, sampler = checkpoints.parts("wan")
    rows: list[int] = []
    plain: Any = sampler
    run = plain.run

    def counting(graph: str, *inputs: torch.Tensor) -> torch.Tensor:
        rows.append(len(inputs[0]))
        return cast("torch.Tensor", run(graph, *inputs))

    monkeypatch.setattr(plain, "run", counting)
    collector = Collector(checkpoints.engine("wan"))
    for number in (1, 2, 3):
        collector.open(context("wan", number))
    collector.step()
    assert rows == [4, 1]  # three prompts in a bucket of four; what one of them leads away from


def test_networks_that_see_all_texts_at_once_have_a_bucket_for_each_number_of_rows() -> None:
    graphs = family("ltx").parts.graphs(checkpoints.config("ltx"), EngineConfig(batch_buckets=(1, 3)))
    assert [g.bucket.rows for g in graphs if g.stage == DENOISER] == [1, 2, 3, 6]


def test_a_deployment_that_turns_guidance_off_has_none_and_no_graphs_for_it() -> None:
    config = checkpoints.config("ltx", guidance=1.0)
    assert (config.guidance, config.max_guidance) == (1.0, 1.0)
    graphs = family("ltx").parts.graphs(config, EngineConfig(batch_buckets=(1, 2)))
    assert [g.bucket.rows for g in graphs if g.stage == DENOISER] == [1, 2]
    with pytest.raises(WeightsError, match="negative_prompt must be empty where guidance is 1, which looks at none; got 'a cat'"):
        checkpoints.config("ltx", guidance=1.0, negative_prompt="a cat")


@pytest.mark.parametrize(
    ("guidance", "sentence"),
    [
        (Guidance(0.5), "guidance.scale: must be from 1 to 20; got 0.5"),
        (Guidance(math.nan), "guidance.scale: must be from 1 to 20; got nan"),
        (Guidance(21.0), "guidance.scale: must be from 1 to 20; got 21"),
        (Guidance(3.0), "guidance.away: must have features of .* where the scale is above 1; got None"),
    ],
)
def test_a_replica_refuses_what_it_has_no_graph_for(guidance: Guidance, sentence: str) -> None:
    settings, _, sampler = checkpoints.parts("wan")
    with pytest.raises(InvalidRequest, match=sentence):
        check(settings, sampler, replace(context("wan", 0), guidance=guidance))


@pytest.mark.parametrize(
    ("name", "choice", "cost"),
    [
        ("wan", {}, {(10, 5.0): 10, (10, 1.0): 5, (3, 1.0): 2, (10, 20.0): 10}),
        ("wan", {"guidance": 1.0}, {(10, 1.0): 10}),
        ("causal-wan", {}, {(4, 1.0): 4}),
    ],
)
def test_what_a_chunk_costs_follows_steps_and_guidance(name: str, choice: dict[str, Any], cost: dict[tuple[int, float], int]) -> None:
    config = checkpoints.config(name, **choice)
    assert {asked: config.work(*asked) for asked in cost} == cost
    assert {(steps, scale): config.steps_within(work, steps, scale) for (steps, scale), work in cost.items()} == {
        asked: asked[0] for asked in cost
    }
    assert [config.steps_within(work, 4, config.guidance) for work in range(6)] == [1, 1, 2, 3, 4, 4]


# -- the wire and the log -----------------------------------------------------------------------------------------------------


LED = replace(millrace_64(), guidance=3.0, max_guidance=20.0, negative_prompt="grey")


def order(config: Any, **spec: Any) -> SessionRequest:
    validator = Validator(Catalogue({config.name: config}, config.name), Limits())
    request = VideoRequest(prompt="a dog", seconds=0.5, **spec)
    return validator.order(request, Doorway(Mode.FILE, "spec."), "session", 7).request


@pytest.mark.parametrize(
    ("spec", "asked"),
    [
        ({}, (3.0, "grey")),
        ({"guidance": 20.0}, (20.0, "grey")),
        ({"guidance": 5.0, "negative_prompt": ""}, (5.0, "")),
        ({"guidance": 1.0}, (1.0, "grey")),
        ({"negative_prompt": "a cat"}, (3.0, "a cat")),
    ],
)
def test_what_is_unset_is_the_model_s(spec: dict[str, Any], asked: tuple[float, str]) -> None:
    request = order(LED, **spec)
    assert (request.guidance, request.negative_prompt) == asked


@pytest.mark.parametrize(
    ("config", "spec", "sentence"),
    [
        (LED, {"guidance": 0.0}, r"spec.guidance: must be from 1 \(none\) to 20 for model millrace-64; got 0"),
        (LED, {"guidance": 20.5}, r"spec.guidance: must be from 1 \(none\) to 20 for model millrace-64; got 20.5"),
        (LED, {"guidance": math.nan}, "spec.guidance: must be from 1 .* got nan"),
        (LED, {"guidance": math.inf}, "spec.guidance: must be from 1 .* got inf"),
        (LED, {"guidance": 1.0, "negative_prompt": "a cat"}, "spec.negative_prompt: must be unset without guidance; got 'a cat'"),
        (LED, {"negative_prompt": "x" * 5000}, "spec.negative_prompt: must be at most 4096 bytes of UTF-8; got 5000"),
        (LED, {"negative_prompt": "\x07"}, "spec.negative_prompt: must hold no control character"),
        (millrace_64(), {"guidance": 3.0}, "spec.guidance: must be unset or 1: model millrace-64 has no guidance; got 3"),
        (millrace_64(), {"negative_prompt": "a cat"}, "spec.negative_prompt: must be unset without guidance; got 'a cat'"),
    ],
)
def test_what_a_model_does_not_take_is_refused_by_name(config: Any, spec: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        order(config, **spec)


async def played(session: Session, switch_at: int | None = None) -> list[bytes]:
    frames: list[bytes] = []
    async with aclosing(session.events()) as events:
        async for event in events:
            if isinstance(event, FrameChunk):
                frames += event.data
                if event.index == switch_at:
                    await session.set_prompt("a cat")
    return frames


async def test_guidance_is_in_the_log_of_a_session_that_changes_its_prompt_and_of_one_that_goes_on_elsewhere() -> None:
    stages, other = FakeStages(config=LED), FakeStages(config=LED, keep_chunks=1)
    request = SessionRequest("s", "a dog", 7, 4, 32, guidance=5.0, negative_prompt="mist")
    whole = await played(await stages.pipeline.open(request), switch_at=1)
    told = {(c.guidance.scale, c.guidance.away and c.guidance.away.prompt) for c in stages.denoiser.contexts}
    assert told == {(5.0, "mist")}
    assert len(stages.denoiser.contexts) == 2
    session = await FakeStages(config=LED).pipeline.open(request)
    halfway: list[bytes] = []
    async with aclosing(session.events()) as events:
        async for event in events:
            if isinstance(event, FrameChunk):
                halfway += event.data
                if event.index == 1:
                    await session.set_prompt("a cat")
                    break
    record = SessionRecord.from_bytes(session.record().to_bytes())
    assert (record.guidance, record.negative_prompt) == (5.0, "mist")
    assert halfway + await played(await other.pipeline.restore(record, 16)) == whole
    assert whole != await played(await FakeStages(config=LED).pipeline.open(replace(request, negative_prompt="fog")), switch_at=1)
    assert whole != await played(await FakeStages(config=LED).pipeline.open(replace(request, guidance=4.0)), switch_at=1)


async def test_admission_counts_the_forwards_of_a_session_and_leaves_it_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(FakeStages(config=LED)) as served:
        asked: list[int] = []
        enter = served.desk.enter

        def entering(ask: Ask, *more: Any) -> Any:
            asked.append(ask.steps)
            return enter(ask, *more)

        monkeypatch.setattr(served.desk, "enter", entering)
        for guidance in (None, 1.0):
            async for event in served.client.stream("a dog", seconds=0.1, guidance=guidance):
                if isinstance(event, pb.Started):
                    assert (event.steps, event.degraded) == (4, False)
        assert asked == [4, 2]
        assert [context.num_steps for context in served.stages.denoiser.contexts] == [4, 4]


async def test_over_the_wire() -> None:
    async with serving(FakeStages(config=LED)) as served:
        (model,) = await served.client.list_models()
        assert (model.default_guidance, model.max_guidance, model.default_negative_prompt) == (3.0, 20.0, "grey")
        async for _ in served.client.stream("a dog", seconds=0.1, guidance=2.0, negative_prompt="mist"):
            pass
        (context,) = served.stages.denoiser.contexts
        assert context.guidance.away is not None
        assert (context.guidance.scale, context.guidance.away.prompt) == (2.0, "mist")
