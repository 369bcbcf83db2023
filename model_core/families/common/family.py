"""The families of models that come as checkpoints: what is true of each, and its defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from model_core.config import Media
from model_core.families.causal_wan.settings import KNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is true of every checkpoint of a family.

    Attributes:
        description: a line for ListModels.
        pipelines: classes that `model_index.json` may name.
        streaming: chunk after chunk without end; otherwise a clip of fixed length, made at once.
        fps, frames, steps, guidance: defaults. `frames` is the length of a clip, or of a streaming model's longest session; 0 for no end.
            If a checkpoint's autoencoder makes other lengths, the default is the next shorter one.
        height, width: defaults, rounded down to what the checkpoint can make.
        max_tokens: of text.
        joined: how many latent frames after a clip's first one come only together.
        text, vae, transformer: classes of its networks.
        first, rest: latent frames of a streaming model's chunks; 0 where its settings say it.
        media, needs_media: what a session may be given besides its prompt, and whether it must be given one of them.
        media_frames: of the longest video that it may be given.
        taehv: its latents are Wan's, which a TAEHV may decode.
        schedule: its noise schedule is that of the checkpoint.
        optional: components that a checkpoint may have besides.
        settings: keys of `model_index.json` that it reads besides components.
    """

    description: str
    pipelines: tuple[str, ...]
    fps: int
    frames: int
    steps: int
    guidance: float
    max_tokens: int
    text: str
    vae: str
    transformer: str
    height: int = 480
    width: int = 832
    joined: int = 1
    streaming: bool = False
    first: int = 0
    rest: int = 0
    media: tuple[Media, ...] = ()
    needs_media: bool = False
    media_frames: int = 1
    taehv: bool = False
    schedule: bool = True
    optional: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


KINDS = {
    "wan": Kind(
        description="Wan text-to-video: a clip made at once.", pipelines=("WanPipeline",),
        fps=16, frames=81, steps=50, guidance=5.0, max_tokens=512, taehv=True,
        text="UMT5EncoderModel", vae="AutoencoderKLWan", transformer="WanTransformer3DModel",
        optional=("transformer_2",), settings=("boundary_ratio", "expand_timesteps"),
    ),
    "ltx": Kind(
        description="LTX-Video text-to-video: a clip made at once.", pipelines=("LTXPipeline",),
        fps=25, frames=161, steps=50, guidance=3.0, max_tokens=128, height=512, width=704,
        text="T5EncoderModel", vae="AutoencoderKLLTXVideo", transformer="LTXVideoTransformer3DModel",
    ),
    "cogvideox": Kind(
        description="CogVideoX text-to-video: a clip made at once.", pipelines=("CogVideoXPipeline",),
        fps=8, frames=49, steps=50, guidance=6.0, max_tokens=226, height=480, width=720, joined=2,
        text="T5EncoderModel", vae="AutoencoderKLCogVideoX", transformer="CogVideoXTransformer3DModel",
    ),
    "wan-image": Kind(
        description="Wan image-to-video: a clip made at once, which begins with a given image.", pipelines=("WanImageToVideoPipeline",),
        fps=16, frames=81, steps=50, guidance=5.0, max_tokens=512, media=("image",), needs_media=True, taehv=True,
        text="UMT5EncoderModel", vae="AutoencoderKLWan", transformer="WanTransformer3DModel",
        optional=("transformer_2", "image_encoder", "image_processor"), settings=("boundary_ratio", "expand_timesteps"),
    ),
    # Its transformer replaces that of a Wan folder, so `family` must name it unless model_index.json does.
    "causal-wan": Kind(
        description="Causal Wan 2.1 (Self-Forcing, CausVid, LongLive): video without end, steered while it plays.",
        pipelines=("CausalWanPipeline", "WanPipeline"),
        fps=16, frames=0, steps=4, guidance=1.0, max_tokens=512, streaming=True, taehv=True,
        text="UMT5EncoderModel", vae="AutoencoderKLWan", transformer="WanTransformer3DModel",
        schedule=False, optional=("scheduler",), settings=KNOWN,
    ),
    "anyflow-far": Kind(
        description="AnyFlow-FAR: video up to a length, made chunk by chunk and steered while it plays.", pipelines=("AnyFlowFARPipeline",),
        fps=16, frames=81, steps=4, guidance=1.0, max_tokens=512, streaming=True, first=1, rest=3, taehv=True,
        text="UMT5EncoderModel", vae="AutoencoderKLWan", transformer="AnyFlowFARTransformer3DModel",
        media=("image", "video"), media_frames=49,
    ),
}  # fmt: skip


def kind_of(family: str, index: Mapping[str, Any], transformer: Mapping[str, Any]) -> Kind:
    """The family's defaults, or those of a version of it that has its own."""
    kind = KINDS[family]
    if family == "cogvideox" and transformer.get("patch_size_t"):  # CogVideoX 1.5
        return replace(kind, fps=16, frames=81, height=768, width=1360)
    if family == "wan" and index.get("expand_timesteps"):  # Wan 2.2 TI2V 5B
        return replace(kind, fps=24, frames=121, height=704, width=1280)
    return kind
