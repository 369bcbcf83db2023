"""Each noise schedule that is accepted makes the clip that diffusers' pipeline makes with it, alone and among others.

The rest is refused by name.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from model_core.config import EngineConfig
from model_core.engine.engine import Engine
from model_core.engine.session import check
from model_core.errors import InvalidRequest, WeightsError
from model_core.families.checkpoints.checkpoint import CHECKSUMS, Checkpoint
from model_core.families.common.clip import ClipSampler
from model_core.families.common.config import CheckpointConfig
from model_core.families.common.solvers import SOLVERS
from model_core.families.described import Choice, describe
from model_core.families.registry import family
from model_core.types import Latents, SessionContext
from service.checks import Catalogue, Limits, Validator
from service.orders import Doorway, Mode, VideoRequest
from tests import checkpoints
from tests.models import Collector, make
from tests.rounding import assert_rounds_alike

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # diffusers with a new numpy

ENGINE = EngineConfig(batch_buckets=(1, 2, 4))
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
V = {
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
}  # fmt: skip
LTX = {"use_dynamic_shifting": True, "base_shift": 0.95, "max_shift": 2.05, "shift_terminal": 0.1}
ACCEPTED: list[tuple[str, str, dict[str, Any]]] = [
    ("wan", "UniPCMultistepScheduler", FLOW | {"solver_order": 3}),
    ("wan", "DPMSolverMultistepScheduler", FLOW),
    ("wan", "DPMSolverMultistepScheduler", FLOW | {"algorithm_type": "sde-dpmsolver++"}),
    ("wan", "DEISMultistepScheduler", FLOW),
    ("wan", "FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    ("wan", "FlowMatchEulerDiscreteScheduler", {"shift": 3.0, "stochastic_sampling": True}),
    ("wan", "FlowMatchHeunDiscreteScheduler", {"shift": 3.0}),
    ("wan", "FlowMatchLCMScheduler", {"shift": 3.0}),
    ("wan-2.2", "FlowMatchHeunDiscreteScheduler", {"shift": 3.0}),
    ("ltx", "FlowMatchEulerDiscreteScheduler", LTX | {"stochastic_sampling": True}),
    ("ltx", "FlowMatchEulerDiscreteScheduler", {"shift": 2.0}),
    ("ltx", "FlowMatchLCMScheduler", LTX),
    ("cogvideox", "CogVideoXDDIMScheduler", V | {"rescale_betas_zero_snr": True, "snr_shift_scale": 1.0}),
    ("cogvideox", "DDIMScheduler", V | {"clip_sample": False}),
    ("cogvideox", "UniPCMultistepScheduler", V),
    ("cogvideox", "DPMSolverMultistepScheduler", V),
    ("cogvideox", "DPMSolverMultistepScheduler", V | {"algorithm_type": "sde-dpmsolver++"}),
    ("cogvideox", "DEISMultistepScheduler", V),
    ("cogvideox", "EulerDiscreteScheduler", V),
    ("cogvideox", "EulerDiscreteScheduler", V | {"timestep_spacing": "leading"}),
    ("cogvideox", "EulerAncestralDiscreteScheduler", V),
    ("cogvideox", "HeunDiscreteScheduler", V),
    ("cogvideox", "LCMScheduler", V | {"original_inference_steps": 50}),
]


def with_schedule(name: str, folder: Path, settings: dict[str, Any]) -> Path:
    """A checkpoint of the family, with another scheduler_config.json."""
    shutil.copytree(checkpoints.folder(name), folder, ignore=shutil.ignore_patterns(CHECKSUMS, "scheduler_config.json"))
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(settings))
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", settings["_class_name"]]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def described(name: str, folder: Path, **choice: Any) -> CheckpointConfig:
    sizes = {"height": 64, "width": 96} if name in ("ltx", "anyflow-far") else {"height": 32, "width": 48}
    return describe(Choice(checkpoint=Checkpoint(folder=str(folder)), **({"frames": 9, "steps": 3} | sizes | choice)))


def theirs(config: CheckpointConfig, prompt: str, seed: int, steps: int) -> torch.Tensor:
    """What diffusers' pipeline makes, whose solver is given the clip's generator where it can draw."""
    pipeline = getattr(diffusers, config.checkpoint.index()["_class_name"]).from_pretrained(config.checkpoint.path())
    pipeline.set_progress_bar_config(disable=True)
    draw = torch.Generator().manual_seed(seed)
    step: Callable[..., Any] = pipeline.scheduler.step
    if config.family != "cogvideox" and "generator" in step.__code__.co_varnames:
        pipeline.scheduler.step = partial(step, generator=draw)
    made: torch.Tensor = pipeline(
        prompt=prompt, negative_prompt="", height=config.height, width=config.width, num_frames=9, num_inference_steps=steps,
        guidance_scale=config.guidance, generator=draw, max_sequence_length=config.max_tokens, output_type="latent",
    ).frames[0]  # fmt: skip
    return made


@pytest.mark.parametrize(("name", "schedule", "settings"), ACCEPTED, ids=[f"{n}-{s}-{i}" for i, (n, s, _) in enumerate(ACCEPTED)])
def test_an_accepted_schedule_is_diffusers_alone_and_among_others(
    name: str, schedule: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    config = described(name, with_schedule(name, tmp_path / name, {"_class_name": schedule, **settings}))
    parts = family(config.family).parts
    embedder, sampler = parts.embedder(config), parts.sampler(config, ENGINE)
    assert isinstance(sampler, ClipSampler)
    engine = Engine(sampler, config, ENGINE)

    def context(prompt: str, seed: int, steps: int) -> SessionContext:
        led = checkpoints.guidance(embedder, config.guidance)
        return SessionContext(prompt, seed, steps, checkpoints.embedded(embedder, prompt), num_frames=9, guidance=led)

    def clean(latents: torch.Tensor) -> Latents:
        return sampler.clean(latents[None]).float().numpy()

    contexts = [context("a red circle", 7, 4), context("a dog", 8, 3), context("", 9, 2)]
    process = torch.get_rng_state()
    alone = [make(engine, each)[0] for each in contexts]
    collector = Collector(engine)
    sessions = []
    for each in contexts:
        sessions.append(collector.open(each))
        collector.step()
    collector.run()
    for session, latents in zip(sessions, alone, strict=True):
        np.testing.assert_array_equal(collector.latents(session)[0], latents)
        assert session.forwards == config.forwards(session.context.num_steps)
    collector.close(sessions)
    np.testing.assert_array_equal(make(engine, contexts[0])[0], alone[0])  # nothing is left of the clips before it
    assert torch.equal(torch.get_rng_state(), process)  # whose generator no clip draws from
    expected = clean(theirs(config, "a red circle", 7, 4))
    assert np.isfinite(expected).all()
    # 4 steps, with Heun 7 looks, of 2 layers of 10 products and 4 more; attention sums over up to 512 tokens of text
    assert_rounds_alike(alone[0], expected, terms=512, sums=7 * 24)


def test_every_schedule_that_is_accepted_is_compared() -> None:
    assert set(SOLVERS) == {schedule for _, schedule, _ in ACCEPTED} | {"CogVideoXDPMScheduler"}  # which test_families compares


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("wan", {"_class_name": "EulerDiscreteScheduler"}, "names EulerDiscreteScheduler; wan is solved by one of DEISMultistep"),
        ("wan", {"_class_name": "SASolverScheduler", **FLOW}, "names SASolverScheduler; wan is solved by one of"),
        ("wan", {"_class_name": "NoSuchScheduler"}, "names NoSuchScheduler; wan is solved by one of"),
        ("wan", {}, "names None; wan is solved by one of"),
        ("wan", {"_class_name": "UniPCMultistepScheduler"}, r"prediction_type must be 'flow_prediction' .* for wan; got None"),
        (
            "wan",
            {"_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction"},
            r"use_flow_sigmas must be true with UniPCMultistepScheduler for wan; got None",
        ),
        (
            "wan",
            {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True},
            "use_dynamic_shifting must be false with FlowMatchEulerDiscreteScheduler for wan; got True",
        ),
        (
            "ltx",
            {"_class_name": "LTXEulerAncestralRFScheduler"},
            "names LTXEulerAncestralRFScheduler; ltx is solved by one of FlowMatchEuler",
        ),
        ("ltx", {"_class_name": "FlowMatchHeunDiscreteScheduler"}, "names FlowMatchHeunDiscreteScheduler; ltx is solved by one of"),
        ("ltx", {"_class_name": "FlowMatchLCMScheduler", "scale_factors": [0.5]}, "scale_factors must be null"),
        ("cogvideox", {"_class_name": "FlowMatchEulerDiscreteScheduler"}, "names FlowMatchEulerDiscreteScheduler; cogvideox is solved by"),
        ("cogvideox", {"_class_name": "UniPCMultistepScheduler", **FLOW}, "prediction_type must be 'v_prediction' or 'epsilon'"),
        ("cogvideox", {"_class_name": "PNDMScheduler"}, "names PNDMScheduler; cogvideox is solved by one of"),
        ("anyflow-far", {"_class_name": "FlowMatchEulerDiscreteScheduler"}, "anyflow-far is solved by FlowMapEulerDiscreteScheduler"),
    ],
)
def test_other_schedules_are_refused_when_the_checkpoint_is_described(
    name: str, settings: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    folder = checkpoints.copied(name, tmp_path)
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match=sentence):
        described(name, folder)


def test_heun_looks_twice_in_every_step_but_the_last(tmp_path: Path) -> None:
    config = described("wan", with_schedule("wan", tmp_path / "wan", {"_class_name": "FlowMatchHeunDiscreteScheduler"}))
    assert [config.forwards(steps) for steps in (1, 2, 3, 50)] == [1, 3, 5, 99]
    assert [checkpoints.config("wan").forwards(steps) for steps in (1, 3)] == [1, 3]


def test_a_schedule_whose_times_are_stretched_needs_two_steps() -> None:
    config, _, sampler = checkpoints.parts("ltx")
    assert config.min_steps == 2
    with pytest.raises(InvalidRequest, match=r"num_steps: must be from 2 to 100; got 1"):
        check(config, sampler, checkpoints.context("ltx", "a dog", 7, steps=1))
    with pytest.raises(WeightsError, match=r"steps must be at least 2 with this checkpoint's FlowMatchEulerDiscreteScheduler; got 1"):
        checkpoints.config("ltx", steps=1)


def test_a_request_for_fewer_steps_than_the_schedule_takes_is_refused() -> None:
    config = checkpoints.config("ltx")
    validator = Validator(Catalogue({config.name: config}, config.name), Limits())
    request, doorway = VideoRequest(prompt="a dog", seconds=0.2, steps=1), Doorway(Mode.FILE, "spec.")
    with pytest.raises(InvalidRequest, match=r"spec.steps: must be from 2 to 100, or 0 for the default; got 1"):
        validator.order(request, doorway, "session", 7)
    assert validator.order(replace(request, steps=2), doorway, "session", 7).request.num_steps == 2
