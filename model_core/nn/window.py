"""Keys and values of a session's last chunks, and how a batch of such windows is laid side by side.

A window is a list of chunks, oldest first; a commit appends one and drops the oldest, which replaces references and copies nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from model_core.buckets import bucket_for
from model_core.nn.causal_dit import MASKED, KeyValue

T = TypeVar("T")
ChunkKeyValues = list[KeyValue]  # a layer each, `[1, N, D]`


class WindowShape(Protocol):
    """What a window holds: `window` chunks of `tokens_per_chunk` tokens in each of `depth` layers."""

    @property
    def window(self) -> int: ...

    @property
    def tokens_per_chunk(self) -> int: ...

    @property
    def depth(self) -> int: ...


def gather(config: WindowShape, windows: Sequence[Sequence[ChunkKeyValues]], empty: Tensor) -> tuple[list[KeyValue], Tensor]:
    """B windows as the fixed shape that the denoise graph reads.

    A layer each `[B, M, D]`, and on the host the additive mask `[B, M]`. Missing chunks lead, masked; `empty` `[1, N, D]` stands for them.
    """
    span, tokens = config.window, config.tokens_per_chunk
    mask = torch.zeros(len(windows), span * tokens)
    for row, window in enumerate(windows):
        mask[row, : (span - len(window)) * tokens] = MASKED

    def part(layer: int, index: int) -> Tensor:
        rows = [torch.cat([*[empty] * (span - len(window)), *(chunk[layer][index] for chunk in window)], 1) for window in windows]
        return torch.cat(rows, 0)

    return [KeyValue(part(layer, 0), part(layer, 1)) for layer in range(config.depth)], mask


def side_by_side(rows: Sequence[Sequence[KeyValue]]) -> list[KeyValue]:
    """Keys and values a layer `[1, N, D]` of B rows → a layer each `[B, N, D]`."""
    return [KeyValue(torch.cat([k for k, _ in layers]), torch.cat([v for _, v in layers])) for layers in zip(*rows, strict=True)]


def filled(rows: Sequence[T], buckets: Sequence[int]) -> list[T]:
    """As many as the smallest bucket that holds `rows` has, the first one repeated."""
    return [*rows, *[rows[0]] * (bucket_for(len(rows), buckets) - len(rows))]
