"""Wan 2.1 and 2.2, text to video, on diffusers' networks (https://github.com/Wan-Video).

Wan 2.2 has two transformers: one for the noisy steps, one for the rest, split at `boundary_ratio`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any, cast

import torch
from diffusers import AutoencoderKLWan, SchedulerMixin, WanPipeline, WanTransformer3DModel
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn
from transformers import UMT5EncoderModel

from model_core.buckets import bucket_for
from model_core.config import EngineConfig, ModelConfig
from model_core.families.checkpoints.loading import load_module, load_noise_schedule, require
from model_core.families.common.clip import AlongRows, Angles, ClipLeg, ClipSampler, guided
from model_core.families.common.config import CheckpointConfig
from model_core.families.common.prompts import PromptEmbedder, prompt_graphs
from model_core.families.common.text_ids import load_tokenizer
from model_core.families.interface import Embedder, Painter, Sampler
from model_core.families.wan.image_encoder import encoder_settings
from model_core.families.wan.taehv import TaehvPainter, load_taehv, taehv_graphs
from model_core.families.wan.vae import WanDecoder, WanPainter, wan_decoder_graphs
from model_core.graphs import DENOISER, Bucket, GraphSpec, Inputs


def embedder(config: ModelConfig) -> Embedder:
    own, pipeline = _own(config), _prompts(_own(config))
    return PromptEmbedder(pipeline, own, pipeline.text_encoder.config.d_model)


def sampler(config: ModelConfig, engine: EngineConfig) -> Sampler:
    return WanSampler(_own(config), engine.batch_buckets, *networks(_own(config)))


def networks(config: CheckpointConfig) -> tuple[Any, list[WanGraph], float | None]:
    """The noise schedule, the transformers, and `boundary_ratio`: what a `WanSampler` is made of."""
    schedule = load_noise_schedule(config.checkpoint, SchedulerMixin)
    return schedule, _transformers(config), config.checkpoint.index().get("boundary_ratio")


def painter(config: ModelConfig) -> Painter:
    own = _own(config)
    if own.decoder != "vae":
        return TaehvPainter(load_taehv(own), own)
    return WanPainter(load_module(own.checkpoint, "vae", AutoencoderKLWan), own)


def graphs(config: ModelConfig, engine: EngineConfig) -> list[GraphSpec]:
    own = _own(config)
    return [*denoiser_graphs(_transformers(own), own, engine.batch_buckets), *graphs_beside(own)]


def graphs_beside(config: CheckpointConfig) -> list[GraphSpec]:
    """Of the text encoder and the decoder, which are the same for all families on Wan's latents."""
    if config.decoder != "vae":
        decoder = taehv_graphs(load_taehv(config), config)
    else:
        decoder = wan_decoder_graphs(WanDecoder(load_module(config.checkpoint, "vae", AutoencoderKLWan)), config)
    return [*prompt_graphs(_prompts(config), config), *decoder]


def denoiser_graphs(parts: Sequence[WanGraph], config: CheckpointConfig, batches: Sequence[int]) -> list[GraphSpec]:
    """Of each transformer, for each batch size."""
    _, frames, height, width = config.latent_shape(0)
    return [
        GraphSpec(DENOISER, f"denoise{number or ''}", bucket, part, "denoise", partial(_inputs, part, config, rows), shared=True)
        for number, part in enumerate(parts)
        for rows in batches
        for bucket in [Bucket(rows, frames, height, width, config.max_tokens)]
    ]


class WanGraph(nn.Module):
    """The transformer for clips of one size, in operations that any device has."""

    def __init__(self, transformer: Any, config: CheckpointConfig) -> None:
        super().__init__()
        self.transformer = transformer
        transformer.patch_embedding = AlongRows(transformer.patch_embedding)
        transformer.condition_embedder = AlongRows(transformer.condition_embedder)
        _rotate_without_writes(transformer, config)

    def denoise(self, x_t: Tensor, t: Tensor, text: Tensor, image: Tensor | None = None) -> Tensor:
        """`x_t` `[B, C, F, H, W]`, `t` `[B]`, `text` `[B, T, D]`, `image` `[B, T, D]` → what the network predicts `[B, C, F, H, W]`."""
        dtype = self.transformer.patch_embedding.module.weight.dtype
        seen = None if image is None else image.to(dtype)
        return cast("Tensor", self.transformer(x_t.to(dtype), t, text.to(dtype), seen, return_dict=False)[0])


class _Rotated(nn.Module):
    """The norm of queries or keys, and their rotary position, which diffusers writes into every other place of a new tensor."""

    def __init__(self, norm: nn.Module, angles: Angles, heads: int) -> None:
        super().__init__()
        self.norm, self.angles, self._heads = norm, angles, heads

    def forward(self, x: Tensor) -> Tensor:
        """`[B, S, D]` → the same."""
        even, odd = self.norm(x).unflatten(-1, (self._heads, -1, 2)).unbind(-1)
        cosines, sines = self.angles.cosines, self.angles.sines
        pairs = torch.stack((even * cosines - odd * sines, even * sines + odd * cosines), -1)
        return pairs.flatten(-3).to(x.dtype)


class _Nowhere(nn.Module):
    """In place of the network's own rotary positions."""

    def forward(self, _: Tensor) -> None:
        return None


def _rotate_without_writes(transformer: Any, config: CheckpointConfig) -> None:
    """In place. A write into a slice is a scatter, for which accelerators have no kernel, or a slow one."""
    cosines, sines = transformer.rope(torch.empty(1, 1, *config.latent_shape(0)[1:]))
    angles = Angles(cosines[0, :, :, 0::2].contiguous(), sines[0, :, :, 1::2].contiguous())
    for block in transformer.blocks:
        for name in ("norm_q", "norm_k"):
            setattr(block.attn1, name, _Rotated(getattr(block.attn1, name), angles, block.attn1.heads))
    transformer.rope = _Nowhere()


def _inputs(part: WanGraph, config: CheckpointConfig, rows: int, _: torch.dtype) -> Inputs:
    draw, network = torch.Generator().manual_seed(0), part.transformer.config
    x_t = torch.randn(rows, network.in_channels, *config.latent_shape(0)[1:], generator=draw)
    text = torch.randn(rows, config.max_tokens, network.text_dim, generator=draw)
    image = () if network.image_dim is None else (torch.randn(rows, *image_shape(config), generator=draw),)
    return x_t, torch.linspace(999, 1, rows), text, *image


def image_shape(config: CheckpointConfig) -> tuple[int, int]:
    """Tokens and width of what the checkpoint's image encoder says of an image."""
    settings = encoder_settings(config.checkpoint)
    return (settings["image_size"] // settings["patch_size"]) ** 2 + 1, settings["hidden_size"]


def _transformers(config: CheckpointConfig) -> list[WanGraph]:
    names = [name for name in ("transformer", "transformer_2") if config.checkpoint.names(name)]
    return [WanGraph(load_module(config.checkpoint, name, WanTransformer3DModel), config) for name in names]


def _prompts(config: CheckpointConfig) -> Any:
    """The part of diffusers' pipeline that cleans and embeds prompts."""
    require("ftfy", "Wan was trained on prompts that it cleaned, and diffusers leaves that out without a word where it is missing")
    return WanPipeline(load_tokenizer(config.checkpoint), load_module(config.checkpoint, "text_encoder", UMT5EncoderModel), None, None)


def _own(config: ModelConfig) -> CheckpointConfig:
    return cast("CheckpointConfig", config)


class WanSampler(ClipSampler):
    """`parts` are the transformer, and in Wan 2.2 the one for times below `boundary_ratio`."""

    def __init__(
        self, config: CheckpointConfig, buckets: Sequence[int], schedule: Any, parts: Sequence[WanGraph], boundary_ratio: float | None
    ) -> None:
        super().__init__(config, buckets, schedule, parts[0].transformer.config.text_dim, denoiser_graphs(parts, config, buckets))
        self._boundary = None if boundary_ratio is None else boundary_ratio * schedule.config.num_train_timesteps

    def noise(self, draw: torch.Generator) -> Tensor:
        noise: Tensor = randn_tensor((1, *self.config.latent_shape(0)), generator=draw, dtype=torch.float32)
        return noise

    def group(self, leg: ClipLeg) -> Hashable:
        return self._part(leg)

    def predict(self, legs: Sequence[ClipLeg], x_t: Tensor, t: Tensor) -> Tensor:
        """A forward with the prompts of all clips; and one with what the prompts lead away from, of the clips that have guidance."""
        predicted = self._side(legs, x_t, t, 0)
        unique = list(dict.fromkeys(legs))  # further ones fill the bucket
        led = [leg for leg in unique if leg.texts > 1]
        if not led:
            return predicted
        some = list(legs) if len(led) == len(unique) else [*led, *[led[0]] * (bucket_for(len(led), self._buckets) - len(led))]
        rows = range(len(legs)) if len(led) == len(unique) else [legs.index(leg) for leg in some]
        at = torch.tensor(list(rows))
        joined = guided(predicted[at], self._side(some, x_t[at], t[at], 1), some)
        together = dict(zip(some, joined.split(1), strict=True))
        return torch.cat([together.get(leg, plain) for leg, plain in zip(legs, predicted.split(1), strict=True)])

    def _side(self, legs: Sequence[ClipLeg], x_t: Tensor, t: Tensor, side: int) -> Tensor:
        graph, text = f"denoise{self._part(legs[0]) or ''}", torch.stack([leg.text[0][side] for leg in legs])
        return self.run(graph, self.inputs(legs, x_t), t.float(), text, *self.more(legs))

    def inputs(self, legs: Sequence[ClipLeg], x_t: Tensor) -> Tensor:
        """What the network sees of the noisy latents."""
        return x_t

    def more(self, legs: Sequence[ClipLeg]) -> tuple[Tensor, ...]:
        """Further inputs of the network."""
        return ()

    def _part(self, leg: ClipLeg) -> int:
        return int(self._boundary is not None and bool(leg.t < self._boundary))
