"""`CausalDiT` over several ranks: each has some of the heads and some of the MLP's width, and with them its share of every cache.

Tensor parallelism as in Megatron-LM (Shoeybi et al., arXiv 1909.08053): the first matrix of a pair is cut by columns, the second by rows,
and what the ranks make is summed, so that all go on with the same values. The sums are in another order than one rank's, so frames
differ by rounding; the number of ranks is part of the model's fingerprint.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module

from model_core.errors import RuntimeUnavailable
from model_core.nn.causal_dit import Block, CausalDiT

_PLAN: dict[str, Callable[[], ParallelStyle]] = {
    "qkv": ColwiseParallel, "text_q": ColwiseParallel, "text_kv": ColwiseParallel, "up": ColwiseParallel,
    "out": RowwiseParallel, "text_out": RowwiseParallel, "down": RowwiseParallel,
}  # fmt: skip


def share(network: CausalDiT) -> CausalDiT:
    """Keep this rank's share of `network`, in place; its weights must stand where it will run.

    Raises:
        RuntimeUnavailable: the heads do not divide by the ranks.
    """
    ranks, rank = dist.get_world_size(), dist.get_rank()
    if network.config.heads % ranks:
        raise RuntimeUnavailable(f"ranks must divide the {network.config.heads} heads of the model; got {ranks}")
    mesh = init_device_mesh(network.position.device.type, (ranks,))
    for block in network.blocks:
        assert isinstance(block, Block)  # noqa: S101  for the type checker
        _deal(block.qkv, 3, ranks)
        _deal(block.text_kv, 2, ranks)
        parallelize_module(block, mesh, {name: style() for name, style in _PLAN.items()})
        block.heads //= ranks
        for name in ("gain", "text_gain"):
            setattr(block, name, nn.Parameter(getattr(block, name).chunk(ranks)[rank].clone(), requires_grad=False))
    return network


def _deal(layer: nn.Linear, parts: int, ranks: int) -> None:
    """Order the rows of a layer that makes `parts` things at once, so that each rank's share is a share of each."""

    def dealt(rows: Tensor) -> Tensor:
        shares: Tensor = rows.unflatten(0, (parts, ranks, -1)).transpose(0, 1).flatten(0, 2)
        return shares.contiguous()

    with torch.no_grad():
        layer.weight.copy_(dealt(layer.weight))
        layer.bias.copy_(dealt(layer.bias))
