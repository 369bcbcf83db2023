"""Which noise schedule of diffusers denoises a family's clips, read from `scheduler_config.json`. Without torch.

A schedule is accepted where its steps are those of the family's own pipeline in diffusers; tests show it for each. Each session has a
schedule object and a generator of its own. All other schedules are refused by name when the checkpoint is described: a schedule for
another kind of network makes noise, and reports no error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from model_core.errors import WeightsError
from model_core.families.checkpoints.settings import check_value
from model_core.families.common.solver_settings import KINDS, WORDS

FLOW, DIFFUSION = "flow", "diffusion"
_DIFFUSIONS = ("v_prediction", "epsilon")


@dataclass(frozen=True, slots=True, kw_only=True)
class Solver:
    """One class of diffusers.

    Attributes:
        second_order: each step but the last looks at the network twice.
        told: it solves a flow only if its configuration says so.
        served: values of its settings that make a clip, of those that diffusers takes; with others it raises in each clip, or its clips are
            no numbers.
        served_flow: the same, where it solves a flow.
    """

    second_order: bool = False
    told: bool = False
    served: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    served_flow: Mapping[str, tuple[object, ...]] = field(default_factory=dict)


def _either(served: Mapping[str, tuple[object, ...]], *off: str) -> Solver:
    """Of both kinds of networks; `off` are settings that must be false where it solves a flow."""
    return Solver(
        told=True,
        served={"use_beta_sigmas": (False,), **served},
        served_flow={"use_exponential_sigmas": (False,)} | dict.fromkeys(off, (False,)),
    )


_NO_COSINE = {"beta_schedule": ("linear", "scaled_linear")}
# diffusers puts its own value in place of another solver's word, which is what a schedule that is made from another one's settings has.
_OTHERS = ("midpoint", "heun", "logrho")
SOLVERS = {
    "UniPCMultistepScheduler": _either({"predict_x0": (True,), "lower_order_final": (True,), "solver_type": ("bh2", *_OTHERS)}),
    "DPMSolverMultistepScheduler": _either(
        {"algorithm_type": ("dpmsolver++", "sde-dpmsolver++"), "solver_type": ("bh1", "bh2", *_OTHERS)},
        "use_karras_sigmas",
        "use_lu_lambdas",
    ),
    "DEISMultistepScheduler": _either(
        {"algorithm_type": ("deis", "dpmsolver", "dpmsolver++"), "solver_type": ("bh1", "bh2", *_OTHERS)}, "use_karras_sigmas"
    ),
    "FlowMatchEulerDiscreteScheduler": Solver(),
    "FlowMatchLCMScheduler": Solver(),
    "FlowMatchHeunDiscreteScheduler": Solver(second_order=True),
    "CogVideoXDDIMScheduler": Solver(),
    "CogVideoXDPMScheduler": Solver(),
    "DDIMScheduler": Solver(),
    "EulerDiscreteScheduler": Solver(),
    "EulerAncestralDiscreteScheduler": Solver(served=_NO_COSINE),
    "HeunDiscreteScheduler": Solver(second_order=True, served=_NO_COSINE),
    "LCMScheduler": Solver(),
}
# Those that all families take whose networks predict a flow; noise or a velocity; and those that some of both take.
FLOW_SOLVERS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler")
DIFFUSION_SOLVERS = (
    "CogVideoXDDIMScheduler", "CogVideoXDPMScheduler", "DDIMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler", "LCMScheduler",
)  # fmt: skip
EITHER_SOLVERS = ("UniPCMultistepScheduler", "DPMSolverMultistepScheduler", "DEISMultistepScheduler")


@dataclass(frozen=True, slots=True, kw_only=True)
class SolvedBy:
    """How a family's clips may be solved.

    Attributes:
        predicts: what its networks predict: `flow`, or `diffusion` for noise or a velocity; empty: it has its own loop.
        names: of the classes in `SOLVERS` that it takes; of the one class of a family with its own loop.
        shifted: its pipeline says how far to shift times. The others do not, so diffusers would raise in each clip.
    """

    names: tuple[str, ...]
    predicts: str = ""
    shifted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Solving:
    """How a model's clips are solved.

    Attributes:
        name: of the class; empty where the family has its own.
        second_order: see `Solver`.
        min_steps: fewer give NaN.
        max_steps: of more the class raises.
    """

    name: str = ""
    second_order: bool = False
    min_steps: int = 1
    max_steps: int = 1000

    def forwards(self, steps: int) -> int:
        """Looks at the network in `steps` steps."""
        return 2 * steps - 1 if self.second_order else steps


def solving(family: str, by: SolvedBy, settings: Mapping[str, Any]) -> Solving:
    """What `scheduler_config.json` says for a family, whose clips are solved `by`.

    Raises:
        WeightsError: the class, or one of its settings, does not fit the family.
    """
    where, name = "scheduler/scheduler_config.json", str(settings.get("_class_name"))
    _check_values(settings, where)
    _check_shift(settings, name, where)
    predicts, shifted = by.predicts, by.shifted
    if name not in by.names:
        raise WeightsError(f"{where} names {name}; {family} is solved by {'one of ' if predicts else ''}{', '.join(sorted(by.names))}")
    if not predicts:
        return Solving(name=name)
    solver = SOLVERS[name]
    flow = settings.get("prediction_type") == "flow_prediction"
    start, end = settings.get("beta_start", 0.0001), settings.get("beta_end", 0.02)
    times = settings.get("num_train_timesteps", 1000)
    few, many = settings.get("base_image_seq_len", 256), settings.get("max_image_seq_len", 4096)
    rules = (
        ("prediction_type", "'flow_prediction'", not (solver.told and predicts == FLOW) or flow),
        ("prediction_type", "'v_prediction' or 'epsilon'", predicts == FLOW or settings.get("prediction_type", "epsilon") in _DIFFUSIONS),
        ("use_flow_sigmas", "true", not (solver.told and predicts == FLOW) or settings.get("use_flow_sigmas") is True),
        ("use_flow_sigmas", "false", predicts == FLOW or not settings.get("use_flow_sigmas")),
        ("use_dynamic_shifting", "false", shifted or not settings.get("use_dynamic_shifting")),
        ("invert_sigmas", "false", not settings.get("invert_sigmas")),
        ("scale_factors", "null: the clip would grow as it is made", not settings.get("scale_factors")),
        ("trained_betas", "null", settings.get("trained_betas") is None),
        ("beta_end", f"at least beta_start, {start:g}, and below 1", predicts == FLOW or start <= end < 1),
        ("shift_terminal", "null", predicts == FLOW or settings.get("shift_terminal") is None),
        ("base_shift", "a number", not shifted or settings.get("base_shift", 0.5) is not None),
        ("max_shift", "a number", not shifted or settings.get("max_shift", 1.15) is not None),
        ("num_train_timesteps", "at least 100", times >= 100),
        ("original_inference_steps", f"at most num_train_timesteps, {times}", settings.get("original_inference_steps", 50) <= times),
        ("max_image_seq_len", f"above base_image_seq_len, {few}", not shifted or many > few),
    )
    for key, limit, kept in rules:
        if not kept:
            raise WeightsError(f"{where}: {key} must be {limit} with {name} for {family}; got {settings.get(key)!r}")
    for key, values in {**solver.served, **(solver.served_flow if predicts == FLOW else {})}.items():
        if settings.get(key, values[0]) not in values:
            must = " or ".join(_shown(value) for value in values)
            raise WeightsError(f"{where}: {key} must be {must} with {name} for {family}; got {_shown(settings[key])}")
    # `shift_terminal` stretches the times to a last one that is not 0. With one step that divides 0 by 0.
    most = settings.get("original_inference_steps", 50) if name == "LCMScheduler" else 1000
    return Solving(
        name=name, second_order=solver.second_order, min_steps=2 if settings.get("shift_terminal") else 1,
        max_steps=min(most, times),
    )  # fmt: skip


def _check_values(settings: Mapping[str, Any], where: str) -> None:
    """Raises WeightsError: a setting has a value that no class takes."""
    for key, value in settings.items():
        if key in KINDS:
            check_value(where, key, value, KINDS[key])
        if key in WORDS and value not in WORDS[key]:
            raise WeightsError(f"{where}: {key} must be one of {', '.join(WORDS[key])}; got {value!r}")


def _check_shift(settings: Mapping[str, Any], name: str, where: str) -> None:
    """Raises WeightsError: it has another solver's shift of times, which this one passes over, and another one of its own."""
    own, other = ("shift", "flow_shift") if name.startswith(("FlowMatch", "FlowMap")) else ("flow_shift", "shift")
    mine, others = settings.get(own, 1.0), settings.get(other)
    if others not in (None, mine) and (own == "shift" or settings.get("use_flow_sigmas")):
        raise WeightsError(f"{where}: {other} must be left out or equal to {own}, {mine:g}, which is what {name} reads; got {others:g}")


def _shown(value: object) -> str:
    return repr(value).lower() if isinstance(value, bool) else repr(value)
