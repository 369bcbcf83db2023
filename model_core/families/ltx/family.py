"""LTX-Video, text to video."""

from __future__ import annotations

from model_core.families.common.family import Family, Kind, Tiny
from model_core.families.common.solvers import FLOW, FLOW_SOLVERS, SolvedBy
from model_core.families.common.text_encoders import T5
from model_core.families.ltx.networks import LTX_TRANSFORMER, LTX_VAE

FAMILY = Family(
    name="ltx",
    package=__package__,
    kind=Kind(
        description="LTX-Video text-to-video: a clip made at once.", pipelines=("LTXPipeline",),
        fps=25, frames=161, steps=50, guidance=3.0, max_tokens=128, height=512, width=704, told_rate=True,
        text=T5, vae=LTX_VAE, transformer=LTX_TRANSFORMER, solved=SolvedBy(predicts=FLOW, names=FLOW_SOLVERS, shifted=True),
    ),
    tiny=(Tiny(name="ltx", height=64, width=96),),
)  # fmt: skip
