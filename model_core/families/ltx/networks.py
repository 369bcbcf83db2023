"""LTX-Video's networks, as far as they are known without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_core.errors import WeightsError
from model_core.families.checkpoints.autoencoders import check_colours, check_length, check_words, wrong
from model_core.families.checkpoints.networks import Network, Shape, width_of, words
from model_core.families.checkpoints.settings import COUNT, FLAG, GATES, POSITIVE, TEXT, each, or_null

_NEWER = "LTXVideo095DownBlock3D"
# Lists of the autoencoder, and how many entries they have beyond one a block.
_ENCODER = {"down_block_types": 0, "spatio_temporal_scaling": 0, "layers_per_block": 1}
_DECODER = {
    "decoder_spatio_temporal_scaling": 0, "decoder_layers_per_block": 1, "decoder_inject_noise": 1, "upsample_residual": 0,
    "upsample_factor": 0,
}  # fmt: skip


def _shapes(settings: Mapping[str, Any]) -> dict[str, Shape]:
    width = width_of(settings)
    return {
        "proj_in.weight": (width, settings["in_channels"]),
        "caption_projection.linear_1.weight": (width, settings["caption_channels"]),
        "transformer_blocks.0.attn2.to_k.weight": (width, settings["cross_attention_dim"]),
        "proj_out.weight": (settings["out_channels"], width),
    }


def _vae_shapes(settings: Mapping[str, Any]) -> dict[str, Shape]:
    return {"decoder.conv_out.conv.bias": (settings["out_channels"] * settings["patch_size"] ** 2,)}


def _vae_counts(settings: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    down, up = settings["layers_per_block"], settings["decoder_layers_per_block"][::-1]
    wide = len(settings["decoder_block_out_channels"])
    deep = len(settings["block_out_channels"]) - (settings["down_block_types"][-1] == _NEWER)
    found = {f"encoder.down_blocks.{block}.resnets.": (count, "layers_per_block") for block, count in enumerate(down[:-1][:deep])}
    found |= {f"decoder.up_blocks.{block}.resnets.": (count, "decoder_layers_per_block") for block, count in enumerate(up[1 : wide + 1])}
    return found | {
        "encoder.mid_block.resnets.": (down[-1], "layers_per_block"),
        "decoder.mid_block.resnets.": (up[0], "decoder_layers_per_block"),
        "decoder.up_blocks.": (wide, "decoder_block_out_channels"),
    }


def _compression(vae: Mapping[str, Any]) -> tuple[int, int]:
    """What the encoder makes smaller the decoder makes as large again. Newer ones halve time or space alone, and say what comes of it."""
    check_colours(vae)
    newer = vae["down_block_types"][-1:] == [_NEWER]  # whose list of widths has one more, of what goes in
    check_words("down_block_types", ("LTXVideoDownBlock3D", _NEWER), vae)
    check_words("downsample_type", ("conv", "spatial", "temporal", "spatiotemporal"), vae)
    for of, blocks, lists in (
        ("block_out_channels", len(vae["block_out_channels"]) - newer, _ENCODER | ({"downsample_type": 0} if newer else {})),
        ("decoder_block_out_channels", len(vae["decoder_block_out_channels"]), _DECODER),
    ):
        if blocks < 1:
            raise wrong(of, "a list of at least one number", vae)
        for name, more in lists.items():
            check_length(name, blocks + more, of, vae)
    encoded, decoded = sum(vae["spatio_temporal_scaling"]), sum(vae["decoder_spatio_temporal_scaling"])
    found = []
    for name, patch in (("spatial_compression_ratio", vae["patch_size"]), ("temporal_compression_ratio", vae["patch_size_t"])):
        value = vae[name] or patch * 2**encoded
        if value != patch * 2**decoded:
            raise WeightsError(
                f"vae/config.json makes latents {value} times smaller ({name}), and frames {patch * 2**decoded} times larger"
            )
        found.append(value)
    return found[0], found[1]


LTX_TRANSFORMER = Network(
    name="LTXVideoTransformer3DModel", text_width="caption_channels", blocks="transformer_blocks.", shapes=_shapes,
    parts=words("proj_in scale_shift_table time_embed caption_projection transformer_blocks proj_out"),
    settings={
        "in_channels": (COUNT, 128), "out_channels": (COUNT, 128), "patch_size": (COUNT, 1), "patch_size_t": (COUNT, 1),
        "num_attention_heads": (COUNT, 32), "attention_head_dim": (COUNT, 64), "cross_attention_dim": (COUNT, 2048),
        "num_layers": (COUNT, 28), "activation_fn": (TEXT, "gelu-approximate"), "qk_norm": (TEXT, "rms_norm_across_heads"),
        "norm_elementwise_affine": (FLAG, False), "norm_eps": (POSITIVE, 1e-6), "caption_channels": (COUNT, 4096),
        "attention_bias": (FLAG, True), "attention_out_bias": (FLAG, True),
    },
    words={"qk_norm": ("rms_norm_across_heads",), "activation_fn": GATES},
    served={"patch_size": (1,), "patch_size_t": (1,)},
)  # fmt: skip
LTX_VAE = Network(
    name="AutoencoderKLLTXVideo", channels="latent_channels", compression=_compression, shapes=_vae_shapes, counts=_vae_counts,
    parts=words("encoder decoder"), optional=words("latents_mean latents_std"),
    settings={
        "in_channels": (COUNT, 3), "out_channels": (COUNT, 3), "latent_channels": (COUNT, 128),
        "block_out_channels": (each(COUNT), [128, 256, 512, 512]), "down_block_types": (each(TEXT), ["LTXVideoDownBlock3D"] * 4),
        "decoder_block_out_channels": (each(COUNT), [128, 256, 512, 512]), "layers_per_block": (each(COUNT), [4, 3, 3, 3, 4]),
        "decoder_layers_per_block": (each(COUNT), [4, 3, 3, 3, 4]), "spatio_temporal_scaling": (each(FLAG), [True, True, True, False]),
        "decoder_spatio_temporal_scaling": (each(FLAG), [True, True, True, False]), "decoder_inject_noise": (each(FLAG), [False] * 5),
        "downsample_type": (each(TEXT), ["conv"] * 4), "upsample_residual": (each(FLAG), [False] * 4),
        "upsample_factor": (each(COUNT), [1] * 4), "timestep_conditioning": (FLAG, False), "patch_size": (COUNT, 4),
        "patch_size_t": (COUNT, 1), "resnet_norm_eps": (POSITIVE, 1e-6), "scaling_factor": (POSITIVE, 1.0),
        "encoder_causal": (FLAG, True), "decoder_causal": (FLAG, False), "spatial_compression_ratio": (or_null(COUNT), None),
        "temporal_compression_ratio": (or_null(COUNT), None),
    },
)  # fmt: skip
