"""What builds the toy's stages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from diffusers import SchedulerMixin
from safetensors.torch import load_file
from torch import Tensor, nn

from model_core.config import EngineConfig, ModelConfig
from model_core.families.checkpoints.checkpoint import shards
from model_core.families.checkpoints.loading import load_noise_schedule
from model_core.families.common.clip import ClipLeg, ClipSampler
from model_core.families.common.config import CheckpointConfig
from model_core.families.interface import Sampler
from model_core.families.wan.parts import embedder, graphs_beside, painter
from model_core.graphs import DENOISER, Bucket, GraphSpec, Inputs

__all__ = ["ToyNetwork", "embedder", "graphs", "painter", "sampler"]


def sampler(config: ModelConfig, engine: EngineConfig) -> Sampler:
    own = cast("CheckpointConfig", config)
    return ToySampler(own, engine.batch_buckets, load_noise_schedule(own.checkpoint, SchedulerMixin), _network(own))


def graphs(config: ModelConfig, engine: EngineConfig) -> list[GraphSpec]:
    own = cast("CheckpointConfig", config)
    return [*_denoiser_graphs(_network(own), own, engine.batch_buckets), *graphs_beside(own)]


class ToyNetwork(nn.Module):
    """Each latent position by itself, and the mean of the text."""

    def __init__(self, channels: int, text_width: int) -> None:
        super().__init__()
        self.mix, self.text = nn.Linear(channels, channels, bias=False), nn.Linear(text_width, channels, bias=False)

    def denoise(self, x_t: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """`x_t` `[B, C, F, H, W]`, `t` `[B]`, `text` `[B, T, D]` → the flow `[B, C, F, H, W]`."""
        mixed = self.mix(x_t.movedim(1, -1)).movedim(-1, 1)
        told = self.text(text).mean(1) + t[:, None] / 1000
        return torch.tanh(mixed + told[:, :, None, None, None])


def _network(config: CheckpointConfig) -> ToyNetwork:
    settings = config.checkpoint.settings("transformer")
    network = ToyNetwork(settings["in_channels"], settings["text_dim"])
    for path in shards(config.checkpoint.verified("transformer")):
        network.load_state_dict(load_file(path))
    return network.eval().requires_grad_(requires_grad=False)


def _denoiser_graphs(network: ToyNetwork, config: CheckpointConfig, batches: Sequence[int]) -> list[GraphSpec]:
    _, frames, height, width = config.latent_shape(0)
    buckets = [Bucket(rows, frames, height, width, config.max_tokens) for rows in batches]
    return [
        GraphSpec(DENOISER, "denoise", bucket, network, "denoise", partial(_inputs, network, config, bucket.rows), shared=True)
        for bucket in buckets
    ]


def _inputs(network: ToyNetwork, config: CheckpointConfig, rows: int, _: torch.dtype) -> Inputs:
    draw = torch.Generator().manual_seed(0)
    x_t = torch.randn(rows, *config.latent_shape(0), generator=draw)
    return x_t, torch.linspace(999, 1, rows), torch.randn(rows, config.max_tokens, network.text.in_features, generator=draw)


class ToySampler(ClipSampler):
    """`ToyNetwork` as a `Sampler`."""

    def __init__(self, config: CheckpointConfig, buckets: Sequence[int], schedule: Any, network: ToyNetwork) -> None:
        super().__init__(config, buckets, schedule, network.text.in_features, _denoiser_graphs(network, config, buckets))

    def noise(self, draw: torch.Generator) -> Tensor:
        return torch.randn((1, *self.config.latent_shape(0)), generator=draw)

    def predict(self, legs: Sequence[ClipLeg], x_t: Tensor, t: Tensor) -> Tensor:
        return self.run("denoise", x_t, t.float(), torch.stack([leg.text[0][0] for leg in legs]))
