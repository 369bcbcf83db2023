"""Configurations as they are published: none is refused for a key that is there and changes nothing.

They are the files of the repositories that are named, as their authors' conversions write them, less weights.
"""

from __future__ import annotations

from typing import Any

import pytest

from model_core.errors import WeightsError
from model_core.families.checkpoints.networks import check_patches, settled
from model_core.families.common.solvers import solving
from model_core.families.registry import kinds, networks

NETWORKS = networks()
NOTES: dict[str, Any] = {"_class_name": "X", "_diffusers_version": "0.33.0.dev0", "_name_or_path": "/data/x", "_commit_hash": None}
T5_NOTES: dict[str, Any] = {
    "_name_or_path": "google/t5-v1_1-xxl", "architectures": ["T5EncoderModel"], "classifier_dropout": 0.0, "decoder_start_token_id": 0,
    "dense_act_fn": "gelu_new", "dropout_rate": 0.1, "eos_token_id": 1, "initializer_factor": 1.0, "is_encoder_decoder": True,
    "is_gated_act": True, "num_decoder_layers": 24, "output_past": True, "pad_token_id": 0, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "dtype": "bfloat16", "transformers_version": "4.48.0.dev0", "use_cache": True,
}  # fmt: skip
WAN: dict[str, Any] = NOTES | {
    "added_kv_proj_dim": None, "attention_head_dim": 128, "cross_attn_norm": True, "eps": 1e-06, "freq_dim": 256, "image_dim": None,
    "in_channels": 16, "out_channels": 16, "patch_size": [1, 2, 2], "pos_embed_seq_len": None, "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 1024, "text_dim": 4096, "num_attention_heads": 40, "num_layers": 40, "ffn_dim": 13824,
}  # fmt: skip
SMALL_WAN = WAN | {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960}
LTX: dict[str, Any] = NOTES | {
    "activation_fn": "gelu-approximate", "attention_bias": True, "attention_head_dim": 64, "attention_out_bias": True,
    "caption_channels": 4096, "cross_attention_dim": 2048, "in_channels": 128, "norm_elementwise_affine": False, "norm_eps": 1e-06,
    "num_attention_heads": 32, "num_layers": 28, "out_channels": 128, "patch_size": 1, "patch_size_t": 1,
    "qk_norm": "rms_norm_across_heads",
}  # fmt: skip
COGVIDEOX: dict[str, Any] = NOTES | {
    "activation_fn": "gelu-approximate", "attention_bias": True, "attention_head_dim": 64, "dropout": 0.0, "flip_sin_to_cos": True,
    "freq_shift": 0, "in_channels": 16, "max_text_seq_length": 226, "norm_elementwise_affine": True, "norm_eps": 1e-05,
    "num_attention_heads": 30, "num_layers": 30, "out_channels": 16, "patch_size": 2, "sample_frames": 49, "sample_height": 60,
    "sample_width": 90, "spatial_interpolation_scale": 1.875, "temporal_compression_ratio": 4, "temporal_interpolation_scale": 1.0,
    "text_embed_dim": 4096, "time_embed_dim": 512, "timestep_activation_fn": "silu", "use_rotary_positional_embeddings": False,
    "use_learned_positional_embeddings": False,
}  # fmt: skip
COGVIDEOX_5B = COGVIDEOX | {"num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True}
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Wan2.1-T2V-1.3B-Diffusers": ("WanTransformer3DModel", SMALL_WAN),
    "Wan2.1-I2V-14B-480P-Diffusers": ("WanTransformer3DModel", WAN | {"image_dim": 1280, "added_kv_proj_dim": 5120, "in_channels": 36}),
    "Wan2.2-T2V-A14B-Diffusers": ("WanTransformer3DModel", WAN),
    "Wan2.2-TI2V-5B-Diffusers": (
        "WanTransformer3DModel",
        WAN | {"in_channels": 48, "out_channels": 48, "num_attention_heads": 24, "num_layers": 30, "ffn_dim": 14336},
    ),
    "AnyFlow-FAR-Wan2.1-1.3B-Diffusers": (
        "AnyFlowFARTransformer3DModel",
        {key: value for key, value in SMALL_WAN.items() if key not in ("qk_norm", "added_kv_proj_dim", "pos_embed_seq_len")}
        | {"compressed_patch_size": [1, 4, 4], "full_chunk_limit": 3, "gate_value": 0.25, "deltatime_type": "r"}
        | {"chunk_partition": [1, 3, 3, 3, 3, 3, 3, 2]},
    ),
    # as `from_pretrained` of a Wan folder writes it, which takes over what it does not know
    "AnyFlow-FAR, made of a Wan": ("AnyFlowFARTransformer3DModel", SMALL_WAN | {"gate_value": 0.25, "deltatime_type": "r"}),
    "LTX-Video": ("LTXVideoTransformer3DModel", LTX),
    "LTX-Video-0.9.7-dev": (
        "LTXVideoTransformer3DModel", LTX | {"attention_head_dim": 128, "cross_attention_dim": 4096, "num_layers": 48},
    ),
    "CogVideoX-2b": ("CogVideoXTransformer3DModel", COGVIDEOX),
    "CogVideoX-5b": ("CogVideoXTransformer3DModel", COGVIDEOX_5B),
    "CogVideoX1.5-5B": (
        "CogVideoXTransformer3DModel",
        COGVIDEOX_5B | {"ofs_embed_dim": None, "patch_bias": False, "patch_size_t": 2, "sample_frames": 81, "sample_height": 300}
        | {"sample_width": 300},
    ),
}  # fmt: skip
WAN_VAE: dict[str, Any] = NOTES | {
    "attn_scales": [], "base_dim": 96, "dim_mult": [1, 2, 4, 4], "dropout": 0.0, "latents_mean": [0.5] * 16, "latents_std": [1.5] * 16,
    "num_res_blocks": 2, "temperal_downsample": [False, True, True], "z_dim": 16,
}  # fmt: skip
LTX_VAE: dict[str, Any] = NOTES | {
    "block_out_channels": [128, 256, 512, 512], "decoder_causal": False, "encoder_causal": True, "in_channels": 3, "latent_channels": 128,
    "layers_per_block": [4, 3, 3, 3, 4], "out_channels": 3, "patch_size": 4, "patch_size_t": 1, "resnet_norm_eps": 1e-06,
    "scaling_factor": 1.0, "spatio_temporal_scaling": [True, True, True, False],
}  # fmt: skip
LTX_091_VAE: dict[str, Any] = LTX_VAE | {
    "decoder_block_out_channels": [256, 512, 1024], "decoder_inject_noise": [True, True, True, False],
    "decoder_layers_per_block": [5, 6, 7, 8], "decoder_spatio_temporal_scaling": [True, True, True], "timestep_conditioning": True,
    "upsample_factor": [2, 2, 2], "upsample_residual": [True, True, True],
}  # fmt: skip
COGVIDEOX_VAE: dict[str, Any] = NOTES | {
    "act_fn": "silu", "block_out_channels": [128, 256, 256, 512], "down_block_types": ["CogVideoXDownBlock3D"] * 4, "force_upcast": True,
    "in_channels": 3, "latent_channels": 16, "latents_mean": None, "latents_std": None, "layers_per_block": 3, "norm_eps": 1e-06,
    "norm_num_groups": 32, "out_channels": 3, "scaling_factor": 1.15258426, "shift_factor": None, "temporal_compression_ratio": 4,
    "up_block_types": ["CogVideoXUpBlock3D"] * 4, "use_post_quant_conv": False, "use_quant_conv": False,
}  # fmt: skip
AUTOENCODERS: dict[str, tuple[str, dict[str, Any], tuple[int, int]]] = {
    "Wan2.1": ("AutoencoderKLWan", WAN_VAE, (8, 4)),
    "Wan2.2-TI2V-5B": (
        "AutoencoderKLWan",
        WAN_VAE | {"base_dim": 160, "clip_output": False, "decoder_base_dim": 256, "in_channels": 12, "is_residual": True}
        | {"latents_mean": [0.5] * 48, "latents_std": [1.5] * 48, "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16}
        | {"scale_factor_temporal": 4, "z_dim": 48},
        (16, 4),
    ),
    "LTX-Video": ("AutoencoderKLLTXVideo", LTX_VAE, (32, 8)),
    "LTX-Video-0.9.1": ("AutoencoderKLLTXVideo", LTX_091_VAE, (32, 8)),
    "LTX-Video-0.9.5": (
        "AutoencoderKLLTXVideo",
        LTX_091_VAE | {"block_out_channels": [128, 256, 512, 1024, 2048], "decoder_inject_noise": [False] * 4}
        | {"decoder_layers_per_block": [5] * 4, "down_block_types": ["LTXVideo095DownBlock3D"] * 4}
        | {"downsample_type": ["spatial", "temporal", "spatiotemporal", "spatiotemporal"], "layers_per_block": [4, 6, 6, 2, 2]}
        | {"spatial_compression_ratio": 32, "spatio_temporal_scaling": [True] * 4, "temporal_compression_ratio": 8},
        (32, 8),
    ),
    "CogVideoX-2b": ("AutoencoderKLCogVideoX", COGVIDEOX_VAE | {"mid_block_add_attention": True, "sample_size": 256}, (8, 4)),
    "CogVideoX-5b": ("AutoencoderKLCogVideoX", COGVIDEOX_VAE | {"sample_height": 480, "sample_width": 720}, (8, 4)),
    "CogVideoX1.5-5B": ("AutoencoderKLCogVideoX", COGVIDEOX_VAE | {"invert_scale_latents": False, "scaling_factor": 0.7}, (8, 4)),
}  # fmt: skip
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "t5-v1_1-xxl": (
        "T5EncoderModel",
        T5_NOTES | {"d_ff": 10240, "d_kv": 64, "d_model": 4096, "feed_forward_proj": "gated-gelu", "layer_norm_epsilon": 1e-06}
        | {"model_type": "t5", "num_heads": 64, "num_layers": 24, "relative_attention_max_distance": 128, "vocab_size": 32128}
        | {"relative_attention_num_buckets": 32, "task_specific_params": None},
    ),
    "umt5-xxl": (
        "UMT5EncoderModel",
        T5_NOTES | {"d_ff": 10240, "d_kv": 64, "d_model": 4096, "feed_forward_proj": "gated-gelu", "layer_norm_epsilon": 1e-06}
        | {"model_type": "umt5", "num_heads": 64, "num_layers": 24, "relative_attention_max_distance": 128, "vocab_size": 256384}
        | {"relative_attention_num_buckets": 32, "scalable_attention": True, "tokenizer_class": "T5Tokenizer"},
    ),
    "CLIP-ViT-H-14": (
        "CLIPVisionModel",
        {"architectures": ["CLIPVisionModel"], "attention_dropout": 0.0, "dropout": 0.0, "hidden_act": "gelu", "hidden_size": 1280}
        | {"image_size": 224, "initializer_factor": 1.0, "initializer_range": 0.02, "intermediate_size": 5120, "layer_norm_eps": 1e-05}
        | {"model_type": "clip_vision_model", "num_attention_heads": 16, "num_channels": 3, "num_hidden_layers": 32, "patch_size": 14}
        | {"projection_dim": 1024, "torch_dtype": "float32", "transformers_version": "4.48.0"},
    ),
}  # fmt: skip
UNIPC: dict[str, Any] = NOTES | {
    "_class_name": "UniPCMultistepScheduler", "beta_end": 0.02, "beta_schedule": "linear", "beta_start": 0.0001, "disable_corrector": [],
    "dynamic_thresholding_ratio": 0.995, "final_sigmas_type": "zero", "flow_shift": 3.0, "lower_order_final": True,
    "num_train_timesteps": 1000, "predict_x0": True, "prediction_type": "flow_prediction", "rescale_betas_zero_snr": False,
    "sample_max_value": 1.0, "sigma_max": None, "sigma_min": None, "solver_order": 2, "solver_p": None, "solver_type": "bh2",
    "steps_offset": 0, "thresholding": False, "time_shift_type": "exponential", "timestep_spacing": "linspace", "trained_betas": None,
    "use_beta_sigmas": False, "use_dynamic_shifting": False, "use_exponential_sigmas": False, "use_flow_sigmas": True,
    "use_karras_sigmas": False, "shift_terminal": None,
}  # fmt: skip
FLOW_MATCH: dict[str, Any] = NOTES | {
    "_class_name": "FlowMatchEulerDiscreteScheduler", "base_image_seq_len": 1024, "base_shift": 0.95, "invert_sigmas": False,
    "max_image_seq_len": 4096, "max_shift": 2.05, "num_train_timesteps": 1000, "shift": 1.0, "shift_terminal": 0.1,
    "stochastic_sampling": False, "time_shift_type": "exponential", "use_beta_sigmas": False, "use_dynamic_shifting": True,
    "use_exponential_sigmas": False, "use_karras_sigmas": False,
}  # fmt: skip
DDIM: dict[str, Any] = NOTES | {
    "_class_name": "CogVideoXDDIMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
    "clip_sample": False, "clip_sample_range": 1.0, "num_train_timesteps": 1000, "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True, "sample_max_value": 1.0, "set_alpha_to_one": True, "snr_shift_scale": 3.0, "steps_offset": 0,
    "timestep_spacing": "linspace", "trained_betas": None,
}  # fmt: skip
SCHEDULES: dict[str, tuple[str, dict[str, Any]]] = {
    "Wan2.1-T2V-1.3B": ("wan", UNIPC),
    "Wan2.1-I2V-14B-720P": ("wan-image", UNIPC | {"flow_shift": 5.0}),
    "LTX-Video": ("ltx", FLOW_MATCH),
    "CogVideoX-2b": ("cogvideox", DDIM),
    "CogVideoX-5b": ("cogvideox", DDIM | {"snr_shift_scale": 1.0, "timestep_spacing": "trailing"}),
    "CogVideoX, DPM": ("cogvideox", DDIM | {"_class_name": "CogVideoXDPMScheduler", "timestep_spacing": "trailing"}),
    "AnyFlow-FAR": (
        "anyflow-far",
        NOTES | {"_class_name": "FlowMapEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 5.0},
    ),
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_as_published_are_taken(name: str) -> None:
    kind, published = TRANSFORMERS[name]
    settings = settled(NETWORKS[kind], published, "transformer/config.json")
    check_patches(NETWORKS[kind], settings, "transformer/config.json")
    assert published.items() <= settings.items()


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_autoencoders_as_published_are_taken(name: str) -> None:
    kind, published, smaller = AUTOENCODERS[name]
    assert NETWORKS[kind].compression(settled(NETWORKS[kind], published, "vae/config.json")) == smaller


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_as_published_are_taken(name: str) -> None:
    kind, published = ENCODERS[name]
    assert published.items() <= settled(NETWORKS[kind], published, "config.json").items()


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_as_published_are_taken(name: str) -> None:
    family, published = SCHEDULES[name]
    solved = kinds()[family].solved
    assert solved is not None
    assert solving(family, solved, published).name == published["_class_name"]


@pytest.mark.parametrize(
    ("kind", "key", "value"), [("AutoencoderKLWan", "clip_output", True), ("AutoencoderKLCogVideoX", "mid_block_add_attention", "yes")]
)
def test_a_key_of_earlier_releases_is_taken_with_the_value_that_was_published_alone(kind: str, key: str, value: object) -> None:
    with pytest.raises(WeightsError, match=f"has {key}, a setting that {kind} does not know"):
        settled(NETWORKS[kind], {key: value}, "vae/config.json")
