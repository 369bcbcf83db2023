"""Sessions into the fixed shapes of the graphs. Padding rows repeat the first row; their results are dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model_core.engine.kv_cache import KVCache
from model_core.engine.session import EngineSession
from model_core.engine.step_scheduler import bucket_for
from model_core.nn.causal_dit import KeyValue, Modulation, TextCondition


@dataclass(frozen=True, slots=True)
class StepBatch:
    """Inputs of one denoise forward for B rows, and each row's time now and after, `[B]`."""

    x_t: Tensor
    step: Modulation
    text: TextCondition
    cache: list[KeyValue]
    cache_mask: Tensor
    t: Tensor
    t_next: Tensor


def step_batch(sessions: Sequence[EngineSession], cache: KVCache, buckets: Sequence[int]) -> StepBatch:
    """Rows of `sessions`, each at its own step, padded to a bucket."""
    rows = [*sessions, *[sessions[0]] * (bucket_for(len(sessions), buckets) - len(sessions))]
    steps = [(s.conditioning, s.step_index) for s in rows]
    layers, mask = cache.gather([s.slot for s in rows])
    return StepBatch(
        x_t=torch.cat([s.x_t for s in rows]),
        step=Modulation(
            torch.stack([c.steps.blocks[i] for c, i in steps]),
            torch.stack([c.steps.final[i] for c, i in steps]),
        ),
        text=_text([c.text for c, _ in steps]),
        cache=layers,
        cache_mask=mask,
        t=torch.stack([c.times[i] for c, i in steps]),
        t_next=torch.stack([c.times[i + 1] for c, i in steps]),
    )


def _text(rows: Sequence[TextCondition]) -> TextCondition:
    layers = [
        KeyValue(torch.cat([r.layers[i].key for r in rows]), torch.cat([r.layers[i].value for r in rows]))
        for i in range(len(rows[0].layers))
    ]  # fmt: skip
    return TextCondition(layers, torch.cat([r.mask for r in rows]), torch.cat([r.pooled for r in rows]))
