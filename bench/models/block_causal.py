"""Diffusers' whole Wan network over a whole sequence, each chunk seeing what a block-causal mask lets it see: causal Wan's yardstick.

Diffusers has no causal Wan. But its bidirectional network takes a time for each token, and its attention a mask; so clean chunks at t = 0
and a noisy one behind them, under a mask, give in one forward what our graphs make chunk by chunk with a cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch import Tensor

from model_core.families.causal_wan.keys import load_transformer
from model_core.families.checkpoints.checkpoint import Checkpoint
from model_core.families.common.config import Attention


class Masked(WanAttnProcessor):
    """Self-attention under an additive mask `[1, 1, N, N]`."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.mask = mask

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Any = None, *rest: Any) -> Tensor:
        _, rotary_emb = rest
        out: Tensor = super().__call__(attn, hidden_states, encoder_hidden_states, self.mask, rotary_emb)
        return out


def whole_network(checkpoint: Checkpoint) -> Any:
    """With the weights of a causal checkpoint, which is read by our table of names."""
    network = WanTransformer3DModel.from_config(WanTransformer3DModel.load_config(checkpoint.verified("transformer")))
    network.load_state_dict(load_transformer(checkpoint).state_dict())
    return network.eval()


def velocity(network: Any, clean: Sequence[Tensor], noisy: Tensor, t: float, text: Tensor, attention: Attention) -> Tensor:
    """What `network` says of `noisy` `[1, C, F, H, W]` at `t` of 1000, after all clean chunks `[C, F, H, W]` of a session before it.

    `text` `[1, T, D]` is seen by all of them, as after a change of prompt.
    """
    x = torch.cat([*(chunk[None] for chunk in clean), noisy], 2)
    frames = noisy.shape[2]
    tokens = frames * (x.shape[3] // 2) * (x.shape[4] // 2)
    chunk = torch.arange(len(clean) + 1).repeat_interleave(tokens)
    seen = (chunk[:, None] >= chunk) & ((chunk[:, None] - chunk <= attention.window) | (chunk < attention.sink))
    for block in network.blocks:
        block.attn1.processor = Masked(torch.where(seen, 0.0, -1e4)[None, None])
    times = torch.zeros(1, len(chunk))
    times[:, -tokens:] = t
    with torch.inference_mode():
        out: Tensor = network(x, times, text, return_dict=False)[0][:, :, -frames:]
    return out
