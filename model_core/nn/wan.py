"""Wan's transformer chunk by chunk, as graphs of static shapes over diffusers' own modules, which hold the weights.

    condition   prompt features                        → text keys and values a layer          (once a prompt)
    modulate    the times of all steps                 → a modulation a step, and that of t=0  (once a leg)
    advance     noisy chunk, past, text, modulation    → the chunk a step further              (once a step)
    commit      clean chunk, past, text, modulation    → keys and values a layer               (once a chunk)

`CausalWan` is that of Self-Forcing, CausVid and LongLive (arXiv 2506.08009, 2412.07772, 2509.22622): a clean chunk passes through once
more at t = 0, sees what came before it, and leaves its keys and values. Other families on Wan's transformer go on from it.

Two things are done otherwise than in diffusers' `forward`, to the same result but for rounding: patches are embedded by a matrix product,
because a convolution rounds a row by its batch; and rotary positions are real numbers, for devices that have no complex ones.
Time passes through `modulate` in one fixed shape, because a matrix product of few rows rounds them by their number.

Shapes: B rows · C latent channels · F latent frames · H, W latent size · N tokens of a chunk · M cached tokens · T text tokens ·
D width · L layers · P = head_dim / 2 rotary pairs · R times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_core.diffusion.flow_match import add_noise
from model_core.nn.causal_dit import KeyValue, Modulation

_THETA = 10_000.0


class Rotary(NamedTuple):
    """cos, sin `[B, N, P]` of the positions of tokens."""

    cos: Tensor
    sin: Tensor


def rotary(head_dim: int, frames: Sequence[int], rows: int, columns: int, pool: int = 1) -> Rotary:
    """Of the tokens of latent frames at positions `frames`, on a grid of `rows` x `columns` patches: `[1, N, P]`, in float32 on the host.

    Pairs are split over time, rows and columns as in Wan. With `pool`, a token stands for that many rows and columns of patches: its
    position is the direction of their mean.
    """
    space = head_dim // 6
    tables = []
    for pairs, positions, width in (
        (head_dim // 2 - 2 * space, torch.tensor(frames), 1),
        (space, torch.arange(rows * pool), pool),
        (space, torch.arange(columns * pool), pool),
    ):
        frequency = 1.0 / _THETA ** (torch.arange(0, 2 * pairs, 2, dtype=torch.float64) / (2 * pairs))
        angle = positions.double()[:, None] * frequency
        cos, sin = (part.unflatten(0, (-1, width)).mean(1) for part in (angle.cos(), angle.sin()))
        length = (cos**2 + sin**2).sqrt() if width > 1 else torch.ones(())
        tables.append((cos / length, sin / length))

    def grid(part: int) -> Tensor:
        time, down, across = (table[part] for table in tables)
        shape = (len(frames), rows, columns, -1)
        joined = (time[:, None, None].expand(shape), down[None, :, None].expand(shape), across[None, None].expand(shape))
        return torch.cat(joined, -1).flatten(0, 2)[None].float()

    return Rotary(grid(0), grid(1))


def rotate(x: Tensor, heads: int, position: Rotary) -> Tensor:
    """Rotary position on `[B, N, D]`; the two numbers of a pair are neighbours."""
    even, odd = x.unflatten(-1, (heads, -1, 2)).unbind(-1)
    cos, sin = position.cos[:, :, None].to(x.dtype), position.sin[:, :, None].to(x.dtype)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(2)


def attend(heads: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Queries `[B, N, D]` over keys and values `[B, M, D]` with an additive mask `[B, 1, N or 1, M]` → `[B, N, D]`."""
    q, k, v = (y.unflatten(-1, (heads, -1)).transpose(1, 2) for y in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def patches(x: Tensor, rows: int, columns: int) -> Tensor:
    """`[B, C, F, H, W]` → `[B, F * H/rows * W/columns, C * rows * columns]`, in the order of a convolution's weights."""
    x = x.unflatten(4, (-1, columns)).unflatten(3, (-1, rows))
    return x.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(1, 3)


class CausalWan(nn.Module):
    """See the module's docstring. No `forward`: a graph is always named.

    Args:
        transformer: a `WanTransformer3DModel`, or one whose modules have the same names.
    """

    def __init__(self, transformer: Any) -> None:
        super().__init__()
        self.transformer = transformer
        self.heads: int = transformer.config.num_attention_heads

    # -- graphs ---------------------------------------------------------------------------------------------------------------

    def condition(self, tokens: Tensor) -> list[KeyValue]:
        """Features `[B, T, text_dim]` → text keys and values, a layer each `[B, T, D]`. Wan attends to padding too."""
        x = self.transformer.condition_embedder.text_embedder(tokens.to(self._dtype))
        return [KeyValue(b.attn2.norm_k(b.attn2.to_k(x)), b.attn2.to_v(x)) for b in self.transformer.blocks]

    def modulate(self, t: Tensor) -> Modulation:
        """Times `[R]` in thousandths, 1000 for noise, to modulations of R rows: `blocks` `[R, 6, D]`, `final` `[R, 2, D]`."""
        return self._modulation(self._time(self.transformer.condition_embedder.time_embedder, t))

    def advance(
        self,
        x_t: Tensor,
        noise: Tensor,
        t: Tensor,
        t_next: Tensor,
        step: Modulation,
        position: Rotary,
        text: list[KeyValue],
        past: list[KeyValue],
        mask: Tensor,
    ) -> Tensor:
        """One step from times `t` `[B]` to `t_next` `[B]`, 1 for noise: to the clean chunk that is predicted, and back with fresh noise.

        At `t_next` = 0 it is the clean chunk. Args as in `predict`; `noise` is of the shape of `x_t`.
        """
        velocity = self.predict(x_t, step, position, text, past, mask)
        return add_noise(x_t - t[:, None, None, None, None] * velocity, noise, t_next)

    def commit(
        self, x_0: Tensor, step: Modulation, position: Rotary, text: list[KeyValue], past: list[KeyValue], mask: Tensor
    ) -> list[KeyValue]:
        """Keys and values `[B, N, D]` a layer of clean chunks `[B, C, F, H, W]`; `step` is that of t = 0. Args as in `predict`."""
        x = self._embed(x_0, self.transformer.patch_embedding)
        return self._slots(x, step, position, text, past, self._masked(mask, x))

    # -- parts ----------------------------------------------------------------------------------------------------------------

    def predict(
        self, x_t: Tensor, step: Modulation, position: Rotary, text: list[KeyValue], past: list[KeyValue], mask: Tensor | None
    ) -> Tensor:
        """What the network says of a noisy chunk: the velocity `[B, C, F, H, W]`, noise minus clean.

        Args:
            x_t: `[B, C, F, H, W]`; rows may be at different times and chunks.
            step: from `modulate`, B rows.
            position: of the chunk's tokens `[B, N, P]`.
            text: from `condition`, B rows.
            past: keys, rotated, and values before the chunk, a layer each `[B, M, D]`.
            mask: `[B, M]` additive over `past`; None for none.
        """
        x = self._embed(x_t, self.transformer.patch_embedding)
        additive = None if mask is None else self._masked(mask, x)
        for block, words, before in zip(self.transformer.blocks, text, past, strict=True):
            x, _ = self._block(block, x, step.blocks, position, words, before, additive)
        shift, scale = step.final.chunk(2, dim=1)
        x = (self.transformer.norm_out(x.float()) * (1 + scale) + shift).type_as(x)
        return self._unpatchify(self.transformer.proj_out(x), x_t).float()

    def _slots(
        self, x: Tensor, step: Modulation, position: Rotary, text: list[KeyValue], past: Sequence[KeyValue | None], mask: Tensor | None
    ) -> list[KeyValue]:
        """Keys and values a layer. The last layer's output is wanted by nobody."""
        slots: list[KeyValue] = []
        blocks = list(self.transformer.blocks)
        for block, words, before in zip(blocks[:-1], text[:-1], past[:-1], strict=True):
            x, now = self._block(block, x, step.blocks, position, words, before, mask)
            slots.append(now)
        return [*slots, self._project(blocks[-1], x, step.blocks, position)[1]]

    def _project(self, block: Any, x: Tensor, step: Tensor, position: Rotary) -> tuple[Tensor, KeyValue]:
        """Queries, keys, both rotated, and values `[B, N, D]` of a block's self-attention."""
        shift, scale = (block.scale_shift_table + step.float())[:, :2].unbind(1)
        h = (block.norm1(x.float()) * (1 + scale[:, None]) + shift[:, None]).type_as(x)
        attention = block.attn1
        q, k = attention.norm_q(attention.to_q(h)).to(h.dtype), attention.norm_k(attention.to_k(h)).to(h.dtype)
        return rotate(q, self.heads, position), KeyValue(rotate(k, self.heads, position), attention.to_v(h))

    def _block(
        self, block: Any, x: Tensor, step: Tensor, position: Rotary, words: KeyValue, past: KeyValue | None, mask: Tensor | None
    ) -> tuple[Tensor, KeyValue]:
        """One block, in the order of operations that diffusers uses, and the keys and values of its self-attention."""
        _, _, gate, shift, scale, last_gate = (block.scale_shift_table + step.float()).chunk(6, dim=1)
        q, now = self._project(block, x, step, position)
        k, v = now if past is None else (torch.cat((past.key, now.key), 1), torch.cat((past.value, now.value), 1))
        x = (x.float() + block.attn1.to_out[0](attend(self.heads, q, k, v, mask)) * gate).type_as(x)
        h = block.norm2(x.float()).type_as(x)
        q = block.attn2.norm_q(block.attn2.to_q(h)).to(h.dtype)
        x = x + block.attn2.to_out[0](attend(self.heads, q, words.key, words.value, None))
        h = (block.norm3(x.float()) * (1 + scale) + shift).type_as(x)
        return (x.float() + block.ffn(h).float() * last_gate).type_as(x), now

    @property
    def _dtype(self) -> torch.dtype:
        return cast("torch.dtype", self.transformer.proj_out.weight.dtype)

    def _time(self, embedder: Any, t: Tensor) -> Tensor:
        features = self.transformer.condition_embedder.timesteps_proj(t)
        return cast("Tensor", embedder(features.to(embedder.linear_1.weight.dtype)).to(self._dtype))

    def _modulation(self, time: Tensor) -> Modulation:
        embed = self.transformer.condition_embedder
        blocks = embed.time_proj(embed.act_fn(time)).unflatten(-1, (6, -1))
        return Modulation(blocks, self.transformer.scale_shift_table + time[:, None])

    def _embed(self, x: Tensor, convolution: Any) -> Tensor:
        """Row by row: a chunk may have only a few large patches."""
        weight = convolution.weight
        rows = patches(x.to(weight.dtype), *weight.shape[3:]).split(1)
        return torch.cat([F.linear(row, weight.flatten(1), convolution.bias) for row in rows]).to(self._dtype)

    def _masked(self, mask: Tensor, x: Tensor) -> Tensor:
        """Over `past` and the chunk, which is all visible."""
        return F.pad(mask, (0, x.shape[1]))[:, None, None].to(x.dtype)

    def _unpatchify(self, x: Tensor, like: Tensor) -> Tensor:
        _, _, frames, height, width = like.shape
        _, rows, columns = self.transformer.config.patch_size
        x = x.unflatten(1, (frames, height // rows, width // columns)).unflatten(-1, (rows, columns, -1))
        return x.permute(0, 6, 1, 2, 4, 3, 5).flatten(5).flatten(3, 4)
