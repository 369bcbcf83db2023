"""A model of small graphs for the checks: two of the denoise stage pass; that of the decode stage is found out only by lowering it."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from model_core.config import EngineConfig, ModelConfig
from model_core.graphs import DECODER, DENOISER, Bucket, GraphSpec


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.norm = nn.GroupNorm(2, 4)  # as convolutional decoders have them

    def denoise(self, x: Tensor) -> Tensor:
        return torch.tanh(self.norm(self.layer(x)))

    def commit(self, x: Tensor) -> Tensor:
        heads = self.layer(x)[:, None]
        return nn.functional.scaled_dot_product_attention(heads, heads, heads)

    def decode(self, x: Tensor) -> Tensor:
        y = x.clone()
        y[:, 1:3] = 0  # a write into a slice
        return y


def _input(rows: int, _: torch.dtype) -> tuple[Tensor]:
    return (torch.linspace(-1, 1, rows * 4 * 8).reshape(rows, 4, 8),)


def build_graphs(config: ModelConfig, engine: EngineConfig) -> list[GraphSpec]:
    """As `model_core.local.build_graphs`."""
    network = Network().requires_grad_(requires_grad=False)
    rows = [(DENOISER, name, n) for n in engine.batch_buckets for name in ("denoise", "commit")]
    return [GraphSpec(stage, name, Bucket(n), network, name, partial(_input, n)) for stage, name, n in (*rows, (DECODER, "decode", 1))]
