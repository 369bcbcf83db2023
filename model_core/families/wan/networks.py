"""Wan's networks, as far as they are known without torch: the transformer, the video autoencoder, and its stand-in TAEHV."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from model_core.errors import WeightsError
from model_core.families.checkpoints.autoencoders import COLOURS, wrong
from model_core.families.checkpoints.networks import Network, Shape, width_of, words
from model_core.families.checkpoints.settings import COUNT, FLAG, NUMBER, POSITIVE, TEXT, Settings, each, or_null

TAEHV_REACH = 8  # latent frames: three memory blocks at twice the rate of latents, six at their own
# Of all transformers that were made of Wan's.
WAN_SETTINGS: Settings = {
    "patch_size": (each(COUNT), [1, 2, 2]), "num_attention_heads": (COUNT, 40), "attention_head_dim": (COUNT, 128),
    "in_channels": (COUNT, 16), "out_channels": (COUNT, 16), "text_dim": (COUNT, 4096), "freq_dim": (COUNT, 256),
    "ffn_dim": (COUNT, 13824), "num_layers": (COUNT, 40), "cross_attn_norm": (FLAG, True), "eps": (POSITIVE, 1e-6),
    "image_dim": (or_null(COUNT), None), "rope_max_seq_len": (COUNT, 1024),
}  # fmt: skip
WAN_PARTS = words("patch_embedding condition_embedder blocks proj_out scale_shift_table")


def wan_shapes(settings: Mapping[str, Any]) -> dict[str, Shape]:
    """Of a transformer's tensors."""
    width, patch = width_of(settings), settings["patch_size"]
    found = {
        "patch_embedding.weight": (width, settings["in_channels"], *patch),
        "condition_embedder.text_embedder.linear_1.weight": (width, settings["text_dim"]),
        "condition_embedder.time_embedder.linear_1.weight": (width, settings["freq_dim"]),
        "blocks.0.ffn.net.0.proj.weight": (settings["ffn_dim"], width),
        "proj_out.weight": (settings["out_channels"] * math.prod(patch), width),
    }
    if settings["image_dim"] is not None:
        found["condition_embedder.image_embedder.norm1.weight"] = (settings["image_dim"],)
    if settings.get("added_kv_proj_dim") is not None:
        found["blocks.0.attn2.add_k_proj.weight"] = (width, settings["added_kv_proj_dim"])
    return found


def _vae_shapes(settings: Mapping[str, Any]) -> dict[str, Shape]:
    width = settings["base_dim"]
    return {
        "encoder.conv_in.weight": (width, settings["in_channels"], 3, 3, 3),
        "decoder.conv_in.weight": ((settings["decoder_base_dim"] or width) * settings["dim_mult"][-1], settings["z_dim"], 3, 3, 3),
        "decoder.conv_out.bias": (settings["out_channels"],),
    }


def _vae_counts(settings: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    blocks = settings["num_res_blocks"]
    return {
        "encoder.down_blocks.0.resnets.": (blocks if settings["is_residual"] else 0, "is_residual"),
        "decoder.up_blocks.": (len(settings["dim_mult"]), "dim_mult"),
        "decoder.up_blocks.0.resnets.": (blocks + 1, "num_res_blocks"),
    }


def _compression(vae: Mapping[str, Any]) -> tuple[int, int]:
    halvings, patch = vae["temperal_downsample"], vae["patch_size"] or 1
    made = {"scale_factor_spatial": 2 ** len(halvings) * patch, "scale_factor_temporal": 2 ** sum(halvings)}
    for name, value in made.items():
        if vae[name] not in (value, None):
            raise WeightsError(f"vae/config.json has {name} {vae[name]}; its temperal_downsample and patch_size make {value}")
    if len(vae["dim_mult"]) != len(halvings) + 1:
        raise wrong("dim_mult", f"a list of {len(halvings) + 1} numbers, one more than temperal_downsample", vae)
    if vae["out_channels"] != (must := COLOURS * patch**2):
        raise wrong("out_channels", f"{must}, for red, green and blue", vae)
    for name in ("latents_mean", "latents_std"):
        if len(vae[name]) != vae["z_dim"]:
            raise WeightsError(f"vae/config.json: {name} must have {vae['z_dim']} numbers, as z_dim says; got {len(vae[name])}")
    return made["scale_factor_spatial"], made["scale_factor_temporal"]


def decoder_reach(vae: Mapping[str, Any], decoder: str) -> int:
    """Latent frames before the newest that its frames depend on. `decoder` is the component that decodes."""
    return wan_vae_reach(vae) if decoder == "vae" else TAEHV_REACH


def wan_vae_reach(vae: Mapping[str, Any]) -> int:
    """Latent frames before the newest that its frames depend on: each causal convolution of three frames sees two more at its own rate."""
    rate, frames, blocks = 1.0, 2.0 + 4 * 2, vae["num_res_blocks"] + 1  # the first convolution and the middle's four
    upsampled = [*reversed(vae["temperal_downsample"]), False]
    for grows in upsampled:
        frames += (2 * blocks * 2 + (2 if grows else 0)) / rate
        rate *= 2 if grows else 1
    return math.ceil(frames + 2 / rate)


WAN_TRANSFORMER = Network(
    name="WanTransformer3DModel", text_width="text_dim", parts=WAN_PARTS, blocks="blocks.", shapes=wan_shapes,
    settings=WAN_SETTINGS | {
        "qk_norm": (or_null(TEXT), "rms_norm_across_heads"), "added_kv_proj_dim": (or_null(COUNT), None),
        "pos_embed_seq_len": (or_null(COUNT), None),
    },
    words={"qk_norm": ("rms_norm_across_heads",)},
    unserved={"pos_embed_seq_len": "it is made for a first and a last frame, which are not served"},
)  # fmt: skip
WAN_VAE = Network(
    name="AutoencoderKLWan", channels="z_dim", compression=_compression, shapes=_vae_shapes, counts=_vae_counts,
    parts=words("encoder decoder quant_conv post_quant_conv"), passed_over={"clip_output": False},
    settings={
        "base_dim": (COUNT, 96), "decoder_base_dim": (or_null(COUNT), None), "z_dim": (COUNT, 16),
        "dim_mult": (each(COUNT), [1, 2, 4, 4]), "num_res_blocks": (COUNT, 2), "attn_scales": (each(NUMBER), []),
        "temperal_downsample": (each(FLAG), [False, True, True]), "dropout": (NUMBER, 0.0),
        "latents_mean": (each(NUMBER), [
            -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
            0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
        ]),
        "latents_std": (each(POSITIVE), [
            2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
            3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.916,
        ]),
        "is_residual": (FLAG, False), "in_channels": (COUNT, 3), "out_channels": (COUNT, 3), "patch_size": (or_null(COUNT), None),
        "scale_factor_temporal": (or_null(COUNT), 4), "scale_factor_spatial": (or_null(COUNT), 8),
    },
)  # fmt: skip
