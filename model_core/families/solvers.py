"""Which noise schedule of diffusers denoises a family's clips, read from `scheduler_config.json`. Without torch.

A schedule is accepted where its steps are those of the family's own pipeline in diffusers; tests show it for each. Each session has a
schedule object and a generator of its own. All other schedules are refused by name when the checkpoint is described: a schedule for
another kind of network makes noise, and reports no error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model_core.errors import WeightsError

_FLOW, _DIFFUSION = "flow", "diffusion"


@dataclass(frozen=True, slots=True, kw_only=True)
class Solver:
    """One class of diffusers.

    Attributes:
        kinds: of networks that it can solve for: `flow` if they predict a flow, `diffusion` if they predict noise or a velocity.
        families: that it is accepted for; empty for all that fit.
        second_order: each step but the last looks at the network twice.
        told: it solves a flow only if its configuration says so.
    """

    kinds: tuple[str, ...]
    families: tuple[str, ...] = ()
    second_order: bool = False
    told: bool = False


_EITHER = Solver(kinds=(_FLOW, _DIFFUSION), families=("wan", "wan-image", "cogvideox"), told=True)
SOLVERS = {
    "UniPCMultistepScheduler": _EITHER,
    "DPMSolverMultistepScheduler": _EITHER,
    "DEISMultistepScheduler": _EITHER,
    "FlowMatchEulerDiscreteScheduler": Solver(kinds=(_FLOW,)),
    "FlowMatchLCMScheduler": Solver(kinds=(_FLOW,)),
    "FlowMatchHeunDiscreteScheduler": Solver(kinds=(_FLOW,), families=("wan", "wan-image"), second_order=True),
    "CogVideoXDDIMScheduler": Solver(kinds=(_DIFFUSION,)),
    "CogVideoXDPMScheduler": Solver(kinds=(_DIFFUSION,)),
    "DDIMScheduler": Solver(kinds=(_DIFFUSION,)),
    "EulerDiscreteScheduler": Solver(kinds=(_DIFFUSION,)),
    "EulerAncestralDiscreteScheduler": Solver(kinds=(_DIFFUSION,)),
    "HeunDiscreteScheduler": Solver(kinds=(_DIFFUSION,), second_order=True),
    "LCMScheduler": Solver(kinds=(_DIFFUSION,)),
}
_PREDICTS = {"wan": _FLOW, "wan-image": _FLOW, "ltx": _FLOW, "cogvideox": _DIFFUSION}
# Solvers of families that have their own loop. Causal Wan takes its times from its authors' settings and has no solver.
_ONLY = {"anyflow-far": "FlowMapEulerDiscreteScheduler"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Solving:
    """How a model's clips are solved.

    Attributes:
        name: of the class; empty where the family has its own.
        second_order: see `Solver`.
        min_steps: fewer give NaN.
    """

    name: str = ""
    second_order: bool = False
    min_steps: int = 1

    def forwards(self, steps: int) -> int:
        """Looks at the network in `steps` steps."""
        return 2 * steps - 1 if self.second_order else steps


def solving(family: str, settings: Mapping[str, Any]) -> Solving:
    """What `scheduler_config.json` says for a family.

    Raises:
        WeightsError: the class, or one of its settings, does not fit the family.
    """
    name = str(settings.get("_class_name"))
    if family in _ONLY:
        if name != _ONLY[family]:
            raise WeightsError(f"scheduler/scheduler_config.json names {name}; {family} is solved by {_ONLY[family]}")
        return Solving(name=name)
    predicts = _PREDICTS[family]
    fitting = {known: solver for known, solver in SOLVERS.items() if predicts in solver.kinds and family in (solver.families or (family,))}
    if name not in fitting:
        raise WeightsError(f"scheduler/scheduler_config.json names {name}; {family} is solved by one of {', '.join(sorted(fitting))}")
    solver = fitting[name]
    flow = settings.get("prediction_type") == "flow_prediction"
    # LTX's pipeline says how far to shift times. The others do not, so diffusers would raise in each clip.
    shifted = family == "ltx"
    rules = (
        ("prediction_type", "'flow_prediction'", not (solver.told and predicts == _FLOW) or flow),
        ("prediction_type", "'v_prediction' or 'epsilon'", predicts == _FLOW or not flow),
        ("use_flow_sigmas", "true", not (solver.told and predicts == _FLOW) or settings.get("use_flow_sigmas") is True),
        ("use_flow_sigmas", "false", predicts == _FLOW or not settings.get("use_flow_sigmas")),
        ("use_dynamic_shifting", "false", shifted or not settings.get("use_dynamic_shifting")),
        ("invert_sigmas", "false", not settings.get("invert_sigmas")),
        ("scale_factors", "null: the clip would grow as it is made", not settings.get("scale_factors")),
    )
    for key, limit, kept in rules:
        if not kept:
            raise WeightsError(
                f"scheduler/scheduler_config.json: {key} must be {limit} with {name} for {family}; got {settings.get(key)!r}"
            )
    # `shift_terminal` stretches the times to a last one that is not 0. With one step that divides 0 by 0.
    return Solving(name=name, second_order=solver.second_order, min_steps=2 if settings.get("shift_terminal") else 1)
