"""Checkpoints as people have them, for `bench.models.parity`: small ones, each changed in one way that leaves the model the same.

A variant is compared with diffusers' pipeline of the same folder, told the same things.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from model_core.families.checkpoints.checkpoint import CHECKSUMS, read_json
from model_core.families.checkpoints.forms import in_shards

_FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
_V = {
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Variant:
    """Of the small checkpoint `family`.

    Attributes:
        change: to its folder.
        choice: of the deployment.
        told: to diffusers' pipeline.
    """

    family: str
    change: Callable[[Path], object] = lambda _: None
    choice: dict[str, Any] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)


def _unpinned(folder: Path) -> None:
    (folder / CHECKSUMS).unlink()


def _scheduler(settings: dict[str, Any], folder: Path) -> None:
    """Solved by another noise schedule."""
    _unpinned(folder)
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(settings))
    index = read_json(folder / "model_index.json")
    index["scheduler"] = ["diffusers", settings["_class_name"]]
    (folder / "model_index.json").write_text(json.dumps(index))


def _solved(family: str, schedule: str, **settings: Any) -> Variant:
    return Variant(family, partial(_scheduler, {"_class_name": schedule, **settings}))


VARIANTS = {
    "wan, sharded": Variant("wan", partial(in_shards, component="transformer")),
    "wan, unpinned": Variant("wan", _unpinned),
    "wan, no guidance": Variant("wan", choice={"guidance": 1.0}),
    "wan, led away": Variant("wan", choice={"guidance": 3.0, "negative_prompt": "grey"}, told={"negative_prompt": "grey"}),
    "wan, Heun": _solved("wan", "FlowMatchHeunDiscreteScheduler", shift=3.0),
    "wan, Euler": _solved("wan", "FlowMatchEulerDiscreteScheduler", shift=3.0),
    "wan, DPM++": _solved("wan", "DPMSolverMultistepScheduler", **_FLOW),
    "ltx, 12 fps": Variant("ltx", choice={"fps": 12}, told={"frame_rate": 12}),
    "ltx, no guidance": Variant("ltx", choice={"guidance": 1.0}),
    "cogvideox, Heun": _solved("cogvideox", "HeunDiscreteScheduler", **_V),
    "cogvideox, ancestral": _solved("cogvideox", "EulerAncestralDiscreteScheduler", **_V),
}
