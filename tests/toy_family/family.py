"""A family that nobody needs: a transformer of its own, one layer, on Wan's latents and text. A test registers it by its folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_core.families.checkpoints.networks import Network, Shape, words
from model_core.families.checkpoints.settings import COUNT
from model_core.families.common.family import Family, Kind, Tiny
from model_core.families.common.solvers import FLOW, FLOW_SOLVERS, SolvedBy
from model_core.families.common.text_encoders import UMT5
from model_core.families.wan.networks import WAN_VAE


def _shapes(settings: Mapping[str, Any]) -> dict[str, Shape]:
    return {
        "mix.weight": (settings["out_channels"], settings["in_channels"]),
        "text.weight": (settings["out_channels"], settings["text_dim"]),
    }


TRANSFORMER = Network(
    name="ToyTransformer", text_width="text_dim", parts=words("mix text"), shapes=_shapes,
    settings={"in_channels": (COUNT, 4), "out_channels": (COUNT, 4), "text_dim": (COUNT, 32)},
)  # fmt: skip
FAMILY = Family(
    name="toy",
    package=__package__,
    kind=Kind(
        description="A toy: a clip made at once.", pipelines=("ToyPipeline",),
        fps=8, frames=9, steps=4, guidance=1.0, max_tokens=16, height=32, width=48,
        text=UMT5, vae=WAN_VAE, transformer=TRANSFORMER, solved=SolvedBy(predicts=FLOW, names=FLOW_SOLVERS),
    ),
    tiny=(Tiny(name="toy"),),
)  # fmt: skip
