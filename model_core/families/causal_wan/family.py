"""Causal Wan 2.1: Self-Forcing, CausVid, LongLive.

Its transformer replaces that of a Wan folder, whose index may still name Wan's pipeline.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from model_core.families.causal_wan.settings import KNOWN, attention_of, block_of, settings_of
from model_core.families.checkpoints.whole import Renamed
from model_core.families.common.family import Family, Kind, Streaming, Tiny
from model_core.families.common.text_encoders import UMT5
from model_core.families.wan.image_encoder import check_eye
from model_core.families.wan.names import renamed
from model_core.families.wan.networks import WAN_TRANSFORMER, WAN_VAE, decoder_reach


def _sizes(settings: dict[str, Any]) -> tuple[int, int]:
    return block_of(settings), block_of(settings)


def _renamed(averaged: bool | None) -> Renamed:
    return partial(renamed, averaged=averaged)


FAMILY = Family(
    name="causal-wan",
    package=__package__,
    kind=Kind(
        description="Causal Wan 2.1 (Self-Forcing, CausVid, LongLive): video without end, steered while it plays.",
        pipelines=("CausalWanPipeline", "WanPipeline"),  # a folder of Wan's, so that `family` must name it
        fps=16, frames=0, steps=4, guidance=1.0, max_tokens=512, taehv=True,
        streaming=Streaming(read=settings_of, sizes=_sizes, attention=attention_of, reach=decoder_reach),
        text=UMT5, vae=WAN_VAE, transformer=WAN_TRANSFORMER, renamed=_renamed, check_transformer=check_eye,
        unused=("scheduler",),  # it takes its times from its authors' settings
        settings=KNOWN, flags=("expand_timesteps",), advice=" (settings of a causal Wan need `family: causal-wan`)",
    ),
    tiny=(Tiny(name="causal-wan", frames=0),),
)  # fmt: skip
