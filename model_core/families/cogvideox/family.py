"""CogVideoX 1.0 and 1.5, text to video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from model_core.families.cogvideox.networks import COGVIDEOX_TRANSFORMER, COGVIDEOX_VAE
from model_core.families.common.family import Family, Index, Kind, Tiny
from model_core.families.common.solvers import DIFFUSION, DIFFUSION_SOLVERS, EITHER_SOLVERS, SolvedBy
from model_core.families.common.text_encoders import T5


def _version(kind: Kind, _: Index, transformer: Mapping[str, Any]) -> Kind:
    if transformer.get("patch_size_t"):  # CogVideoX 1.5
        return replace(kind, fps=16, frames=81, height=768, width=1360)
    return kind


FAMILY = Family(
    name="cogvideox",
    package=__package__,
    kind=Kind(
        description="CogVideoX text-to-video: a clip made at once.", pipelines=("CogVideoXPipeline",),
        fps=8, frames=49, steps=50, guidance=6.0, max_tokens=226, height=480, width=720, joined=2, version=_version,
        text=T5, vae=COGVIDEOX_VAE, transformer=COGVIDEOX_TRANSFORMER,
        solved=SolvedBy(predicts=DIFFUSION, names=(*DIFFUSION_SOLVERS, *EITHER_SOLVERS)),
    ),
    tiny=(Tiny(name="cogvideox"), Tiny(name="cogvideox-2b"), Tiny(name="cogvideox-1.5")),
)  # fmt: skip
