"""Shapes of tensors that follow from a network's settings: a `config.json` of another size of the model is found by them. Without torch.

A tensor or two for each setting that makes shapes; that all others fit too is found when the weights are loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Shape = tuple[int, ...]


def shapes_of(kind: str, settings: Mapping[str, Any]) -> dict[str, Shape]:
    """By the names of tensors, which need not all be there. `settings` are those of `model_core.families.checkpoints.settings.settled`."""
    return _OF[kind](settings) if kind in _OF else {}


def counts_of(kind: str, settings: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    """By what the names of numbered parts begin with: how many there are, and the setting that says it."""
    if kind == "AutoencoderKLWan":
        blocks = settings["num_res_blocks"]
        return {
            "encoder.down_blocks.0.resnets.": (blocks if settings["is_residual"] else 0, "is_residual"),
            "decoder.up_blocks.": (len(settings["dim_mult"]), "dim_mult"),
            "decoder.up_blocks.0.resnets.": (blocks + 1, "num_res_blocks"),
        }
    if kind == "AutoencoderKLCogVideoX":
        return {
            "encoder.down_blocks.": (len(settings["block_out_channels"]), "block_out_channels"),
            "encoder.down_blocks.0.resnets.": (settings["layers_per_block"], "layers_per_block"),
            "decoder.up_blocks.0.resnets.": (settings["layers_per_block"] + 1, "layers_per_block"),
        }
    if kind == "AutoencoderKLLTXVideo":
        down, up = settings["layers_per_block"], settings["decoder_layers_per_block"][::-1]
        wide = len(settings["decoder_block_out_channels"])
        deep = len(settings["block_out_channels"]) - (settings["down_block_types"][-1] == "LTXVideo095DownBlock3D")
        found = {f"encoder.down_blocks.{block}.resnets.": (count, "layers_per_block") for block, count in enumerate(down[:-1][:deep])}
        found |= {
            f"decoder.up_blocks.{block}.resnets.": (count, "decoder_layers_per_block") for block, count in enumerate(up[1 : wide + 1])
        }
        return found | {
            "encoder.mid_block.resnets.": (down[-1], "layers_per_block"),
            "decoder.mid_block.resnets.": (up[0], "decoder_layers_per_block"),
            "decoder.up_blocks.": (wide, "decoder_block_out_channels"),
        }
    if kind == "CLIPVisionModel":
        return {"encoder.layers.": (settings["num_hidden_layers"], "num_hidden_layers")}
    return {}


def _width(settings: Mapping[str, Any]) -> int:
    return int(settings["num_attention_heads"] * settings["attention_head_dim"])


def _wan(settings: Mapping[str, Any]) -> dict[str, Shape]:
    width, patch = _width(settings), settings["patch_size"]
    found = {
        "patch_embedding.weight": (width, settings["in_channels"], *patch),
        "condition_embedder.text_embedder.linear_1.weight": (width, settings["text_dim"]),
        "condition_embedder.time_embedder.linear_1.weight": (width, settings["freq_dim"]),
        "blocks.0.ffn.net.0.proj.weight": (settings["ffn_dim"], width),
        "proj_out.weight": (settings["out_channels"] * math.prod(patch), width),
    }
    if "compressed_patch_size" in settings:
        found["far_patch_embedding.weight"] = (width, settings["in_channels"], *settings["compressed_patch_size"])
    if settings["image_dim"] is not None:
        found["condition_embedder.image_embedder.norm1.weight"] = (settings["image_dim"],)
    if settings.get("added_kv_proj_dim") is not None:
        found["blocks.0.attn2.add_k_proj.weight"] = (width, settings["added_kv_proj_dim"])
    return found


def _ltx(settings: Mapping[str, Any]) -> dict[str, Shape]:
    width = _width(settings)
    return {
        "proj_in.weight": (width, settings["in_channels"]),
        "caption_projection.linear_1.weight": (width, settings["caption_channels"]),
        "transformer_blocks.0.attn2.to_k.weight": (width, settings["cross_attention_dim"]),
        "proj_out.weight": (settings["out_channels"], width),
    }


def _cogvideox(settings: Mapping[str, Any]) -> dict[str, Shape]:
    width, patch, joined = _width(settings), settings["patch_size"], settings["patch_size_t"]
    seen = settings["in_channels"]
    return {
        "patch_embed.proj.weight": (width, seen, patch, patch) if joined is None else (width, seen * patch**2 * joined),
        "patch_embed.text_proj.weight": (width, settings["text_embed_dim"]),
        "time_embedding.linear_1.weight": (settings["time_embed_dim"], width),
        "proj_out.weight": ((settings["out_channels"] or seen) * patch**2 * (joined or 1), width),
    }


def _t5(settings: Mapping[str, Any]) -> dict[str, Shape]:
    width, block = settings["d_model"], "encoder.block.0.layer"
    first = "wi_0" if settings["feed_forward_proj"].startswith("gated-") else "wi"
    return {
        "shared.weight": (settings["vocab_size"], width),
        "encoder.embed_tokens.weight": (settings["vocab_size"], width),
        f"{block}.0.SelfAttention.q.weight": (settings["num_heads"] * settings["d_kv"], width),
        f"{block}.0.SelfAttention.relative_attention_bias.weight": (settings["relative_attention_num_buckets"], settings["num_heads"]),
        f"{block}.1.DenseReluDense.{first}.weight": (settings["d_ff"], width),
    }


def _wan_vae(settings: Mapping[str, Any]) -> dict[str, Shape]:
    width = settings["base_dim"]
    return {
        "encoder.conv_in.weight": (width, settings["in_channels"], 3, 3, 3),
        "decoder.conv_in.weight": ((settings["decoder_base_dim"] or width) * settings["dim_mult"][-1], settings["z_dim"], 3, 3, 3),
        "decoder.conv_out.bias": (settings["out_channels"],),
    }


def _ltx_vae(settings: Mapping[str, Any]) -> dict[str, Shape]:
    return {"decoder.conv_out.conv.bias": (settings["out_channels"] * settings["patch_size"] ** 2,)}


def _cogvideox_vae(settings: Mapping[str, Any]) -> dict[str, Shape]:
    widths = settings["block_out_channels"]
    return {
        "decoder.conv_in.conv.weight": (widths[-1], settings["latent_channels"], 3, 3, 3),
        "decoder.conv_out.conv.weight": (settings["out_channels"], widths[0], 3, 3, 3),
    }


def _clip(settings: Mapping[str, Any]) -> dict[str, Shape]:
    width, patch = settings["hidden_size"], settings["patch_size"]
    return {
        "embeddings.patch_embedding.weight": (width, settings["num_channels"], patch, patch),
        "embeddings.position_embedding.weight": ((settings["image_size"] // patch) ** 2 + 1, width),
        "encoder.layers.0.mlp.fc1.weight": (settings["intermediate_size"], width),
    }


_OF: dict[str, Callable[[Mapping[str, Any]], dict[str, Shape]]] = {
    "WanTransformer3DModel": _wan,
    "AnyFlowFARTransformer3DModel": _wan,
    "LTXVideoTransformer3DModel": _ltx,
    "CogVideoXTransformer3DModel": _cogvideox,
    "T5EncoderModel": _t5,
    "UMT5EncoderModel": _t5,
    "CLIPVisionModel": _clip,
    "AutoencoderKLWan": _wan_vae,
    "AutoencoderKLLTXVideo": _ltx_vae,
    "AutoencoderKLCogVideoX": _cogvideox_vae,
}
