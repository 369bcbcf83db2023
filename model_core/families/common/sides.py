"""Rows for networks that see both texts of guidance in one forward: one row for a clip's prompt, and one for its negative prompt.

Clips without guidance have one row, and share the forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from model_core.buckets import bucket_for
from model_core.families.common.clip import ClipLeg, guided
from model_core.families.common.config import CheckpointConfig
from model_core.graphs import DENOISER, Bucket, GraphSpec


def row_buckets(config: CheckpointConfig, batches: Sequence[int]) -> tuple[int, ...]:
    """Rows that a forward is padded to, of as many clips as `batches`, with guidance and without."""
    texts = (1, 2) if config.max_guidance > 1 else (1,)
    return tuple(sorted({clips * of for clips in batches for of in texts}))


def sided_graphs(network: Any, config: CheckpointConfig, batches: Sequence[int], size: tuple[int, int, int]) -> list[GraphSpec]:
    """`denoise` of `network`, which has `inputs` for a number of rows; `size` is that of latents."""
    buckets = [Bucket(rows, *size, config.max_tokens) for rows in row_buckets(config, batches)]
    return [
        GraphSpec(DENOISER, "denoise", bucket, network, "denoise", partial(network.inputs, bucket.rows), shared=True) for bucket in buckets
    ]


@dataclass(frozen=True, slots=True)
class Sides:
    """The rows of some clips, side by side: one row for each text of a clip, and rows that fill the bucket.

    Attributes:
        x_t: `[R, ...]`.
        t: `[R]`.
        tokens, mask: `[R, T, D]` and `[R, T]`.
    """

    x_t: Tensor
    t: Tensor
    tokens: Tensor
    mask: Tensor

    @classmethod
    def of(cls, legs: Sequence[ClipLeg], x_t: Tensor, t: Tensor, buckets: Sequence[int]) -> Sides:
        """`x_t` `[B, ...]` and `t` `[B]` are of `legs`."""
        rows = [clip for clip, leg in enumerate(legs) for _ in range(leg.texts)]
        more = bucket_for(len(rows), buckets) - len(rows)
        at = torch.tensor([*rows, *[0] * more])
        tokens, mask = (torch.cat([*(leg.text[part] for leg in legs), *[legs[0].text[part][:1]] * more]) for part in (0, 1))
        return cls(x_t[at], t[at], tokens, mask)

    @staticmethod
    def joined(predicted: Tensor, legs: Sequence[ClipLeg]) -> Tensor:
        """One row a clip of the `[R, ...]` that the network predicted, in float32."""
        texts = [leg.texts for leg in legs]
        first = torch.tensor([0, *accumulate(texts)][: len(legs)])
        prompted = predicted[first].float()
        away = predicted[first + torch.tensor(texts) - 1].float()
        return guided(prompted, away, legs)
