"""What the settings of a checkpoint's components are called and what values they take, as diffusers and transformers declare them.

A setting that is not known is refused: both libraries pass over it, and then the model is not the one that was meant. A test compares the
tables with the libraries' own classes. Without torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from model_core.errors import WeightsError

_MOST = 2**31 - 1


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST and math.isfinite(value)


# By what a sentence calls them.
_RULES: dict[str, Callable[[Any], bool]] = {
    "true or false": lambda value: isinstance(value, bool),
    "a whole number from 1 on": lambda value: _whole(value) and value > 0,
    "a whole number from 0 on": _whole,
    "a number": _number,
    "a number above 0": lambda value: _number(value) and value > 0,
    "text": lambda value: isinstance(value, str),
}
FLAG, COUNT, WHOLE, NUMBER, POSITIVE, TEXT = _RULES
_EACH, _OR_NULL = "a list, each ", ", or null"


def each(kind: str) -> str:
    """A list of them."""
    return _EACH + kind


def or_null(kind: str) -> str:
    """One of them, or nothing."""
    return kind + _OR_NULL


# Of each class: names of settings, what they must be, and what is taken where a file leaves them out.
Settings = dict[str, tuple[str, Any]]
_WAN: Settings = {
    "patch_size": (each(COUNT), [1, 2, 2]), "num_attention_heads": (COUNT, 40), "attention_head_dim": (COUNT, 128),
    "in_channels": (COUNT, 16), "out_channels": (COUNT, 16), "text_dim": (COUNT, 4096), "freq_dim": (COUNT, 256),
    "ffn_dim": (COUNT, 13824), "num_layers": (COUNT, 40), "cross_attn_norm": (FLAG, True), "eps": (POSITIVE, 1e-6),
    "image_dim": (or_null(COUNT), None), "rope_max_seq_len": (COUNT, 1024),
}  # fmt: skip
_T5: Settings = {
    "vocab_size": (COUNT, 32128), "d_model": (COUNT, 512), "d_kv": (COUNT, 64), "d_ff": (COUNT, 2048), "num_layers": (COUNT, 6),
    "num_heads": (COUNT, 8), "relative_attention_num_buckets": (COUNT, 32), "relative_attention_max_distance": (COUNT, 128),
    "layer_norm_epsilon": (POSITIVE, 1e-6), "feed_forward_proj": (TEXT, "relu"),
}  # fmt: skip
KNOWN: dict[str, Settings] = {
    "WanTransformer3DModel": _WAN | {
        "qk_norm": (or_null(TEXT), "rms_norm_across_heads"), "added_kv_proj_dim": (or_null(COUNT), None),
        "pos_embed_seq_len": (or_null(COUNT), None),
    },
    "AnyFlowFARTransformer3DModel": _WAN | {
        "compressed_patch_size": (each(COUNT), [1, 4, 4]), "full_chunk_limit": (COUNT, 3), "gate_value": (NUMBER, 0.25),
        "deltatime_type": (TEXT, "r"), "chunk_partition": (each(COUNT), [1, 3, 3, 3, 3, 3, 3, 2]),
    },
    "LTXVideoTransformer3DModel": {
        "in_channels": (COUNT, 128), "out_channels": (COUNT, 128), "patch_size": (COUNT, 1), "patch_size_t": (COUNT, 1),
        "num_attention_heads": (COUNT, 32), "attention_head_dim": (COUNT, 64), "cross_attention_dim": (COUNT, 2048),
        "num_layers": (COUNT, 28), "activation_fn": (TEXT, "gelu-approximate"), "qk_norm": (TEXT, "rms_norm_across_heads"),
        "norm_elementwise_affine": (FLAG, False), "norm_eps": (POSITIVE, 1e-6), "caption_channels": (COUNT, 4096),
        "attention_bias": (FLAG, True), "attention_out_bias": (FLAG, True),
    },
    "CogVideoXTransformer3DModel": {
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
    "AutoencoderKLWan": {
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
    "AutoencoderKLLTXVideo": {
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
    "AutoencoderKLCogVideoX": {
        "in_channels": (COUNT, 3), "out_channels": (COUNT, 3), "down_block_types": (each(TEXT), ["CogVideoXDownBlock3D"] * 4),
        "up_block_types": (each(TEXT), ["CogVideoXUpBlock3D"] * 4), "block_out_channels": (each(COUNT), [128, 256, 256, 512]),
        "latent_channels": (COUNT, 16), "layers_per_block": (COUNT, 3), "act_fn": (TEXT, "silu"), "norm_eps": (POSITIVE, 1e-6),
        "norm_num_groups": (COUNT, 32), "temporal_compression_ratio": (POSITIVE, 4), "sample_height": (COUNT, 480),
        "sample_width": (COUNT, 720), "scaling_factor": (POSITIVE, 1.15258426), "shift_factor": (or_null(NUMBER), None),
        "latents_mean": (or_null(each(NUMBER)), None), "latents_std": (or_null(each(NUMBER)), None),
        "force_upcast": (FLAG, True), "use_quant_conv": (FLAG, False), "use_post_quant_conv": (FLAG, False),
        "invert_scale_latents": (FLAG, False),
    },
    "T5EncoderModel": _T5,
    "UMT5EncoderModel": _T5 | {"vocab_size": (COUNT, 250112), "d_ff": (COUNT, 1024), "num_layers": (COUNT, 8), "num_heads": (COUNT, 6),
                               "feed_forward_proj": (TEXT, "gated-gelu")},
    "CLIPVisionModel": {
        "hidden_size": (COUNT, 768), "intermediate_size": (COUNT, 3072), "num_hidden_layers": (COUNT, 12),
        "num_attention_heads": (COUNT, 12), "num_channels": (COUNT, 3), "image_size": (COUNT, 224), "patch_size": (COUNT, 32),
        "layer_norm_eps": (POSITIVE, 1e-5), "hidden_act": (TEXT, "quick_gelu"),
    },
}  # fmt: skip
_GATES = ("gelu", "gelu-approximate", "geglu", "geglu-approximate", "swiglu", "linear-silu")
# Those of which diffusers has no other, or passes over others.
WORDS = {
    "qk_norm": ("rms_norm_across_heads",),
    "deltatime_type": ("r", "t-r"),
    "activation_fn": _GATES,
    "act_fn": ("silu", "swish", "mish", "gelu", "relu"),
    "timestep_activation_fn": ("silu", "swish", "mish", "gelu", "relu"),
}
# What files have that earlier releases of diffusers wrote, or that were made of another class's: it changes nothing with these values.
_PASSED_OVER: dict[str, dict[str, object]] = {
    "AutoencoderKLWan": {"clip_output": False},
    "AutoencoderKLCogVideoX": {"mid_block_add_attention": True, "sample_size": 256},
    "AnyFlowFARTransformer3DModel": {"qk_norm": "rms_norm_across_heads"},
}
# Settings of transformers' classes are many, and most of them change nothing that an encoder does.
_OPEN = ("T5EncoderModel", "UMT5EncoderModel", "CLIPVisionModel")


def settled(kind: str, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`given`, with what it leaves out.

    Args:
        kind: a class in `KNOWN`; of another, everything is taken as it is.
        given: what the component's file holds.
        where: the file, for messages.

    Raises:
        WeightsError: a value is not what the class takes, or a setting is none of its.
    """
    known = KNOWN.get(kind)
    if known is None:
        return dict(given)
    for name, value in given.items():
        if name in known:
            check_value(where, name, value, known[name][0])
            if name in WORDS and value not in WORDS[name]:
                raise WeightsError(f"{where}: {name} must be {' or '.join(WORDS[name])}; got {_shown(value)}")
        elif kind not in _OPEN and name[:1] != "_" and value not in (None, _PASSED_OVER.get(kind, {}).get(name)):
            raise WeightsError(f"{where} has {name}, a setting that {kind} does not know: remove it if it changes nothing")
    return {name: default for name, (_, default) in known.items()} | dict(given)


def check_value(where: str, name: str, value: object, kind: str) -> None:
    """Raises WeightsError: a setting's value is not `kind`, which is one of the sentences of this module."""
    if not _fits(kind, value):
        raise WeightsError(f"{where}: {name} must be {kind}; got {_shown(value)}")


def _fits(kind: str, value: object) -> bool:
    if kind.endswith(_OR_NULL):
        return value is None or _fits(kind.removesuffix(_OR_NULL), value)
    if kind.startswith(_EACH):
        return isinstance(value, list) and all(_fits(kind.removeprefix(_EACH), entry) for entry in value)
    return _RULES[kind](value)


def _shown(value: object) -> str:
    """As the file has it."""
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else repr(value)[:64]
