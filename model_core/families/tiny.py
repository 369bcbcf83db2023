"""Small checkpoints with random weights, laid out as the real ones: what tests and `headrace models make-tiny` use in their place.

The same family gives the same bytes on the same libraries. Nothing is fetched: the tokenizer is made here, of bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AnyFlowFARPipeline,
    AnyFlowFARTransformer3DModel,
    AutoencoderKLCogVideoX,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    FlowMapEulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

from model_core.families.causal_wan.keys import to_wan
from model_core.families.checkpoints.checkpoint import read_json, write_checksums
from model_core.nn.taehv import TaehvDecoder

_TEXT_WIDTH = 32
_PAD, _END, _UNKNOWN = "<pad>", "</s>", "<unk>"
_SEED = 20261124


def byte_tokenizer(max_length: int) -> PreTrainedTokenizerFast:
    """A token a byte, closed by `</s>`, padded with `<pad>`: any text has one."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([_PAD, _END, _UNKNOWN, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {_END}", special_tokens=[(_END, vocabulary[_END])])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=_PAD, eos_token=_END, unk_token=_UNKNOWN, model_max_length=max_length
    )


def _text_encoder() -> Any:
    config = UMT5Config(
        vocab_size=512, d_model=_TEXT_WIDTH, d_kv=8, d_ff=64, num_layers=2, num_heads=4, relative_attention_num_buckets=8,
    )  # fmt: skip
    return UMT5EncoderModel(config)


def _wan_vae() -> Any:
    return AutoencoderKLWan(
        base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[-0.5, 0.1, 0.4, -0.2], latents_std=[1.5, 1.2, 1.9, 1.1],
    )  # fmt: skip


def _wan_transformer(**more: Any) -> Any:
    settings = {
        "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 24, "in_channels": 4, "out_channels": 4,
        "text_dim": _TEXT_WIDTH, "freq_dim": 32, "ffn_dim": 64, "num_layers": 2, "rope_max_seq_len": 64,
    } | more  # fmt: skip
    return WanTransformer3DModel(**settings)


def _wan_schedule() -> Any:
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, num_train_timesteps=1000)


def _wan(boundary_ratio: float | None = None) -> Any:
    parts = [_wan_transformer(), None if boundary_ratio is None else _wan_transformer()]
    return WanPipeline(byte_tokenizer(512), _text_encoder(), _wan_vae(), _wan_schedule(), *parts, boundary_ratio=boundary_ratio)


def _wan_5b() -> Any:
    """As Wan 2.2 TI2V has it: an autoencoder of factor 16, and a time for each token."""
    vae = AutoencoderKLWan(
        base_dim=8, decoder_base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        is_residual=True, patch_size=2, in_channels=12, out_channels=12, scale_factor_spatial=16, scale_factor_temporal=4,
        latents_mean=[-0.5, 0.1, 0.4, -0.2], latents_std=[1.5, 1.2, 1.9, 1.1],
    )  # fmt: skip
    return WanPipeline(byte_tokenizer(512), _text_encoder(), vae, _wan_schedule(), _wan_transformer(), expand_timesteps=True)


def _t5() -> Any:
    config = T5Config(
        vocab_size=512, d_model=_TEXT_WIDTH, d_kv=8, d_ff=64, num_layers=2, num_heads=4, relative_attention_num_buckets=8,
    )  # fmt: skip
    return T5EncoderModel(config)


def _ltx() -> Any:
    schedule = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, shift_terminal=0.1)
    vae: Any = AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1, 1),
        decoder_inject_noise=(True, False, False, False, False), timestep_conditioning=True,
    )  # fmt: skip
    vae.latents_mean, vae.latents_std = torch.linspace(-0.5, 0.5, 8), torch.linspace(0.8, 1.4, 8)
    for name, scale in vae.decoder.named_parameters():
        if "per_channel_scale" in name:  # of the noise that it adds, which is 0 before training
            torch.nn.init.constant_(scale, 0.2)
    transformer = LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=24, cross_attention_dim=48, num_layers=2,
        caption_channels=_TEXT_WIDTH,
    )  # fmt: skip
    return LTXPipeline(schedule, vae, _t5(), byte_tokenizer(128), transformer)


def _cogvideox(schedule: Any = CogVideoXDPMScheduler, **transformer: Any) -> Any:
    vae = AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2, scaling_factor=0.7,
        sample_height=64, sample_width=96,
    )  # fmt: skip
    settings = {
        "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "out_channels": 4, "time_embed_dim": 16,
        "text_embed_dim": _TEXT_WIDTH, "num_layers": 2, "sample_width": 12, "sample_height": 8, "sample_frames": 9,
        "use_rotary_positional_embeddings": True,
    } | transformer  # fmt: skip
    times = schedule(
        num_train_timesteps=1000, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, set_alpha_to_one=True,
        prediction_type="v_prediction", rescale_betas_zero_snr=True, snr_shift_scale=1.0, timestep_spacing="trailing",
    )  # fmt: skip
    return CogVideoXPipeline(byte_tokenizer(226), _t5(), vae, CogVideoXTransformer3DModel(**settings), times)


def _wan_image() -> Any:
    """As Wan 2.1 has it: an image encoder beside the latents that are given."""
    size = {"height": 28, "width": 28}
    eye = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14, projection_dim=16
    )
    return WanImageToVideoPipeline(
        byte_tokenizer(512), _text_encoder(), _wan_vae(), _wan_schedule(),
        CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=size), CLIPVisionModel(eye),
        _wan_transformer(in_channels=12, image_dim=32, added_kv_proj_dim=48),
    )  # fmt: skip


def _wan_image_pair() -> Any:
    """As Wan 2.2 has it: no image encoder, and a transformer of its own for the steps with little noise."""
    first, second = (_wan_transformer(in_channels=12) for _ in range(2))
    return WanImageToVideoPipeline(
        byte_tokenizer(512), _text_encoder(), _wan_vae(), _wan_schedule(),
        transformer=first, transformer_2=second, boundary_ratio=0.9,
    )  # fmt: skip


def _anyflow() -> Any:
    transformer = AnyFlowFARTransformer3DModel(
        num_attention_heads=2, attention_head_dim=24, in_channels=4, out_channels=4, text_dim=_TEXT_WIDTH, freq_dim=32, ffn_dim=64,
        num_layers=2, rope_max_seq_len=64, full_chunk_limit=2, chunk_partition=(1, 3, 3, 2),
    )  # fmt: skip
    schedule = FlowMapEulerDiscreteScheduler(shift=5.0)
    return AnyFlowFARPipeline(byte_tokenizer(512), _text_encoder(), transformer, _wan_vae(), schedule)


def _as_published(folder: Path) -> None:
    """A causal Wan folder: the transformer by its authors' names, their settings in the index, and a TAEHV beside the autoencoder."""
    weights = folder / "transformer/diffusion_pytorch_model.safetensors"
    save_file({f"generator_ema.model.{to_wan(name)}": tensor for name, tensor in load_file(weights).items()}, weights)
    settings = {"_class_name": "CausalWanPipeline", "num_frame_per_block": 3, "local_attn_size": 12, "sink_size": 3, "timestep_shift": 5.0}
    (folder / "model_index.json").write_text(json.dumps(read_json(folder / "model_index.json") | settings, indent=2) + "\n")
    _add_taehv(folder)


def _add_taehv(folder: Path) -> None:
    (folder / "taehv").mkdir()
    decoder: Any = TaehvDecoder(channels=4, widths=(16, 12, 8, 8))
    save_file(decoder.state_dict(), folder / "taehv/taehv.safetensors")


MAKERS: dict[str, Callable[[], Any]] = {
    "wan": _wan,
    "causal-wan": _wan,
    "anyflow-far": _anyflow,
    "wan-2.2": partial(_wan, boundary_ratio=0.875),
    "wan-2.2-5b": _wan_5b,
    "wan-image": _wan_image,
    "wan-image-2.2": _wan_image_pair,
    "ltx": _ltx,
    "cogvideox": _cogvideox,  # as the 5B model
    "cogvideox-2b": partial(_cogvideox, CogVideoXDDIMScheduler, use_rotary_positional_embeddings=False),
    "cogvideox-1.5": partial(_cogvideox, patch_size_t=2, patch_bias=False),
}
_FINISH: dict[str, Callable[[Path], None]] = {"causal-wan": _as_published}


def make_tiny(family: str, folder: Path) -> str:
    """Write the small checkpoint of a family, or of a version of it, into `folder`, which must not exist or be empty.

    Returns:
        The digest to pin.

    Raises:
        KeyError: there is no such family.
        FileExistsError: the folder holds something.
    """
    maker = MAKERS[family]
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        pipeline = maker()
        pipeline.save_pretrained(folder, safe_serialization=True)
        if family in _FINISH:
            _FINISH[family](folder)
    return write_checksums(folder)
