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

from model_core.config import EngineConfig, ModelConfig
from model_core.families.clip import AlongRows, ClipLeg, ClipSampler, guided
from model_core.families.described import CheckpointConfig
from model_core.families.interface import Embedder, Painter, Sampler
from model_core.families.loading import load_module, load_noise_schedule, load_tokenizer
from model_core.families.prompts import PromptEmbedder
from model_core.families.taehv import TaehvPainter, load_taehv, taehv_graphs
from model_core.families.wan_vae import WanPainter
from model_core.graphs import DENOISER, Bucket, GraphSpec, Inputs


def embedder(config: ModelConfig) -> Embedder:
    own = _own(config)
    text = load_module(own.checkpoint, "text_encoder", UMT5EncoderModel)
    pipeline = WanPipeline(load_tokenizer(own.checkpoint), text, None, None)  # the part of it that cleans and embeds prompts
    return PromptEmbedder(pipeline, own, text.config.d_model)


def sampler(config: ModelConfig, engine: EngineConfig) -> Sampler:
    return WanSampler(_own(config), engine.batch_buckets, *networks(_own(config)))


def networks(config: CheckpointConfig) -> tuple[Any, list[Any], float | None]:
    """The noise schedule, the transformers, and `boundary_ratio`: what a `WanSampler` is made of."""
    schedule = load_noise_schedule(config.checkpoint, SchedulerMixin)
    return schedule, _transformers(config), config.checkpoint.index().get("boundary_ratio")


def painter(config: ModelConfig) -> Painter:
    own = _own(config)
    if own.decoder != "vae":
        return TaehvPainter(load_taehv(own), own)
    return WanPainter(load_module(own.checkpoint, "vae", AutoencoderKLWan))


def graphs(config: ModelConfig, engine: EngineConfig) -> list[GraphSpec]:
    """The transformers, which is where the time goes, and a TAEHV; text encoder and autoencoder are not listed yet."""
    own, listed = _own(config), decoder_graphs(_own(config))
    _, frames, height, width = own.latent_shape(0)
    for number, part in enumerate(_transformers(own)):
        for rows in engine.batch_buckets:
            bucket = Bucket(rows, frames, height, width, own.max_tokens)
            network = WanGraph(part)
            listed.append(GraphSpec(DENOISER, f"denoise{number or ''}", bucket, network, "denoise", partial(_inputs, part, own, rows)))
    return listed


def decoder_graphs(config: CheckpointConfig) -> list[GraphSpec]:
    return [] if config.decoder == "vae" else taehv_graphs(load_taehv(config), config)


class WanGraph(nn.Module):
    """The transformer with tensors in their places."""

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.transformer = transformer

    def denoise(self, x_t: Tensor, t: Tensor, text: Tensor, image: Tensor | None = None) -> Tensor:
        """`x_t` `[B, C, F, H, W]`, `t` `[B]`, `text` `[B, T, D]`, `image` `[B, T, D]` → what the network predicts `[B, C, F, H, W]`."""
        return cast("Tensor", self.transformer(x_t, t, text, image, return_dict=False)[0])


def _inputs(part: Any, config: CheckpointConfig, rows: int) -> Inputs:
    draw = torch.Generator().manual_seed(0)
    _, *size = config.latent_shape(0)
    x_t = torch.randn(rows, part.config.in_channels, *size, generator=draw)
    text = torch.randn(rows, config.max_tokens, part.config.text_dim, generator=draw)
    image = () if part.config.image_dim is None else (torch.randn(rows, *image_shape(config), generator=draw),)
    return x_t, torch.linspace(999, 1, rows).long(), text, *image


def image_shape(config: CheckpointConfig) -> tuple[int, int]:
    """Tokens and width of what the checkpoint's image encoder says of an image."""
    settings = config.checkpoint.settings("image_encoder")
    return (settings["image_size"] // settings["patch_size"]) ** 2 + 1, settings["hidden_size"]


def _transformers(config: CheckpointConfig) -> list[Any]:
    names = ["transformer", "transformer_2"] if config.checkpoint.index().get("transformer_2", [None])[0] else ["transformer"]
    return [load_module(config.checkpoint, name, WanTransformer3DModel) for name in names]


def _own(config: ModelConfig) -> CheckpointConfig:
    return cast("CheckpointConfig", config)


class WanSampler(ClipSampler):
    """`parts` are the transformer, and in Wan 2.2 the one for times below `boundary_ratio`."""

    def __init__(
        self, config: CheckpointConfig, buckets: Sequence[int], schedule: Any, parts: Sequence[Any], boundary_ratio: float | None
    ) -> None:
        super().__init__(config, buckets, schedule, parts[0].config.text_dim)
        self._parts = list(parts)
        self._boundary = None if boundary_ratio is None else boundary_ratio * schedule.config.num_train_timesteps
        for part in self._parts:
            part.patch_embedding, part.condition_embedder = AlongRows(part.patch_embedding), AlongRows(part.condition_embedder)

    def noise(self, draw: torch.Generator) -> Tensor:
        noise: Tensor = randn_tensor((1, *self.config.latent_shape(0)), generator=draw, dtype=torch.float32)
        return noise

    def group(self, leg: ClipLeg) -> Hashable:
        return self._part(leg)

    def predict(self, legs: Sequence[ClipLeg], x_t: Tensor, t: Tensor) -> Tensor:
        network = self._parts[self._part(legs[0])]
        x = self.inputs(legs, x_t).to(network.dtype)
        given: dict[str, Any] = {"return_dict": False} | self.more(legs)
        texts = [torch.stack([leg.text[0][g] for leg in legs]).to(network.dtype) for g in range(len(legs[0].text[0]))]
        predicted: list[Tensor] = [network(hidden_states=x, timestep=t, encoder_hidden_states=text, **given)[0] for text in texts]
        conditional = predicted[0]
        return conditional if len(predicted) == 1 else guided(conditional, predicted[1], self.config.guidance)

    def inputs(self, legs: Sequence[ClipLeg], x_t: Tensor) -> Tensor:
        """What the network sees of the noisy latents."""
        return x_t

    def more(self, legs: Sequence[ClipLeg]) -> dict[str, Any]:
        """Further arguments of the network."""
        return {}

    def _part(self, leg: ClipLeg) -> int:
        return int(self._boundary is not None and bool(leg.t < self._boundary))
