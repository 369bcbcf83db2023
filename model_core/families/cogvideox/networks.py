"""CogVideoX's networks, as far as they are known without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from model_core.families.checkpoints.autoencoders import check_colours, check_length, check_words, wrong
from model_core.families.checkpoints.networks import Network, Shape, width_of, words
from model_core.families.checkpoints.settings import ACTIVATIONS, COUNT, FLAG, GATES, NUMBER, POSITIVE, TEXT, WHOLE, each, or_null


def _shapes(settings: Mapping[str, Any]) -> dict[str, Shape]:
    width, patch, joined = width_of(settings), settings["patch_size"], settings["patch_size_t"]
    seen = settings["in_channels"]
    return {
        "patch_embed.proj.weight": (width, seen, patch, patch) if joined is None else (width, seen * patch**2 * joined),
        "patch_embed.text_proj.weight": (width, settings["text_embed_dim"]),
        "time_embedding.linear_1.weight": (settings["time_embed_dim"], width),
        "proj_out.weight": ((settings["out_channels"] or seen) * patch**2 * (joined or 1), width),
    }


def _vae_shapes(settings: Mapping[str, Any]) -> dict[str, Shape]:
    widths = settings["block_out_channels"]
    return {
        "decoder.conv_in.conv.weight": (widths[-1], settings["latent_channels"], 3, 3, 3),
        "decoder.conv_out.conv.weight": (settings["out_channels"], widths[0], 3, 3, 3),
    }


def _vae_counts(settings: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    return {
        "encoder.down_blocks.": (len(settings["block_out_channels"]), "block_out_channels"),
        "encoder.down_blocks.0.resnets.": (settings["layers_per_block"], "layers_per_block"),
        "decoder.up_blocks.0.resnets.": (settings["layers_per_block"] + 1, "layers_per_block"),
    }


def _compression(vae: Mapping[str, Any]) -> tuple[int, int]:
    check_colours(vae)
    ratio = vae["temporal_compression_ratio"]
    if math.log2(ratio) % 1 or ratio < 1:
        raise wrong("temporal_compression_ratio", "a power of 2", vae)
    widths, groups = vae["block_out_channels"], vae["norm_num_groups"]
    if not widths:
        raise wrong("block_out_channels", "a list of at least one number", vae)
    for name, word in (("down_block_types", "CogVideoXDownBlock3D"), ("up_block_types", "CogVideoXUpBlock3D")):
        check_words(name, (word,), vae)
        check_length(name, len(widths), "block_out_channels", vae)
    if any(width % groups for width in widths):
        raise wrong("norm_num_groups", f"a divisor of all block_out_channels, {widths}", vae)
    return 2 ** (len(vae["block_out_channels"]) - 1), int(ratio)


COGVIDEOX_TRANSFORMER = Network(
    name="CogVideoXTransformer3DModel", text_width="text_embed_dim", blocks="transformer_blocks.", shapes=_shapes,
    parts=words("patch_embed time_embedding transformer_blocks norm_final norm_out proj_out"), optional=words("ofs_embedding"),
    settings={
        "num_attention_heads": (COUNT, 30), "attention_head_dim": (COUNT, 64), "in_channels": (COUNT, 16),
        "out_channels": (or_null(COUNT), 16), "flip_sin_to_cos": (FLAG, True), "freq_shift": (WHOLE, 0), "time_embed_dim": (COUNT, 512),
        "ofs_embed_dim": (or_null(COUNT), None), "text_embed_dim": (COUNT, 4096), "num_layers": (COUNT, 30), "dropout": (NUMBER, 0.0),
        "attention_bias": (FLAG, True), "sample_width": (COUNT, 90), "sample_height": (COUNT, 60), "sample_frames": (COUNT, 49),
        "patch_size": (COUNT, 2), "patch_size_t": (or_null(COUNT), None), "temporal_compression_ratio": (COUNT, 4),
        "max_text_seq_length": (COUNT, 226), "activation_fn": (TEXT, "gelu-approximate"), "timestep_activation_fn": (TEXT, "silu"),
        "norm_elementwise_affine": (FLAG, True), "norm_eps": (POSITIVE, 1e-5), "spatial_interpolation_scale": (POSITIVE, 1.875),
        "temporal_interpolation_scale": (POSITIVE, 1.0), "use_rotary_positional_embeddings": (FLAG, False),
        "use_learned_positional_embeddings": (FLAG, False), "patch_bias": (FLAG, True),
    },
    words={"activation_fn": GATES, "timestep_activation_fn": ACTIVATIONS},
    unserved={
        "ofs_embed_dim": "it is made for a given image, which is not served",
        "use_learned_positional_embeddings": "it knows one size alone, and is made for a given image, which is not served",
    },
    served={"patch_size_t": (None, 1, 2)},
)  # fmt: skip
COGVIDEOX_VAE = Network(
    name="AutoencoderKLCogVideoX", channels="latent_channels", compression=_compression, shapes=_vae_shapes, counts=_vae_counts,
    parts=words("encoder decoder"), optional=words("quant_conv post_quant_conv"),
    settings={
        "in_channels": (COUNT, 3), "out_channels": (COUNT, 3), "down_block_types": (each(TEXT), ["CogVideoXDownBlock3D"] * 4),
        "up_block_types": (each(TEXT), ["CogVideoXUpBlock3D"] * 4), "block_out_channels": (each(COUNT), [128, 256, 256, 512]),
        "latent_channels": (COUNT, 16), "layers_per_block": (COUNT, 3), "act_fn": (TEXT, "silu"), "norm_eps": (POSITIVE, 1e-6),
        "norm_num_groups": (COUNT, 32), "temporal_compression_ratio": (POSITIVE, 4), "sample_height": (COUNT, 480),
        "sample_width": (COUNT, 720), "scaling_factor": (POSITIVE, 1.15258426), "shift_factor": (or_null(NUMBER), None),
        "latents_mean": (or_null(each(NUMBER)), None), "latents_std": (or_null(each(NUMBER)), None),
        "force_upcast": (FLAG, True), "use_quant_conv": (FLAG, False), "use_post_quant_conv": (FLAG, False),
        "invert_scale_latents": (FLAG, False),
    },
    words={"act_fn": ACTIVATIONS},
    passed_over={"mid_block_add_attention": True, "sample_size": 256},
)  # fmt: skip
