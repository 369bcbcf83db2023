"""Causal diffusion transformer, one chunk at a time, in a few graphs of static shapes.

    condition   prompt features, schedule              → text keys and values a layer, a modulation a step   (once a prompt)
    hold        keys that are held, in a world         → words beside those of the prompt                    (once an act)
    advance     noisy chunk, cache, text, modulation   → predicted clean chunk, and the way to it            (once a step)
    commit      clean chunk                            → keys and values a layer: one chunk of the cache     (once a chunk)

`commit` lets a chunk see only itself and no text. So a slot is a function of that chunk's clean latents alone: a cache can be rebuilt
from the last `window` chunks, bit for bit, and a prompt change leaves it valid. Keys are stored without rotary position; their
place in the window is applied when they are read, so a slot does not change as it ages.

Only `condition` has layers whose matrix has one row a session; it runs for one session at a time. Matrices in `denoise` and
`commit` have N rows a session, which most CPU kernels round the same way in any batch; for those that do not, see
`model_core.runtimes.rows`.

Shapes: B rows · C latent channels · F latent frames · H, W latent size · N tokens of a chunk · M = window * N cached tokens ·
T text tokens · D width · P = head_dim / 2 rotary pairs.
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_core.config import DiTConfig
from model_core.diffusion.flow_match import euler_step

MASKED = -1e4  # additive; -inf breaks on rows that are all masked and on bf16 hardware


class KeyValue(NamedTuple):
    """Keys and values of one layer, `[B, tokens, D]`; keys are normalised and not rotated."""

    key: Tensor
    value: Tensor


class TextCondition(NamedTuple):
    """What one prompt contributes: per-layer text keys and values `[B, T, D]`, additive mask `[B, T]`, pooled vector `[B, D]`."""

    layers: list[KeyValue]
    mask: Tensor
    pooled: Tensor


class Modulation(NamedTuple):
    """adaLN inputs for rows at given times: `blocks` `[R, 6, D]`, `final` `[R, 2, D]`."""

    blocks: Tensor
    final: Tensor


class KeyWords(NamedTuple):
    """What keys contribute beside a prompt: per-layer keys and values `[B, K, D]`, and an additive mask `[B, K]`."""

    layers: list[KeyValue]
    mask: Tensor


def with_keys(text: TextCondition, keys: KeyWords) -> TextCondition:
    """A prompt and the keys that are held beside it: the denoiser looks at K words more."""
    layers = [
        KeyValue(torch.cat((a.key, b.key), 1), torch.cat((a.value, b.value), 1)) for a, b in zip(text.layers, keys.layers, strict=True)
    ]
    return TextCondition(layers, torch.cat((text.mask, keys.mask), 1), text.pooled)


def rotary_table(config: DiTConfig) -> tuple[Tensor, Tensor]:
    """cos, sin `[M + N, P]` for the window's tokens, oldest first, then the chunk's. Pairs are split over time, rows and columns."""
    pairs = config.head_dim // 2
    space = pairs * 3 // 8
    sizes = (pairs - 2 * space, space, space)
    rows, columns = config.latent_height // config.patch, config.latent_width // config.patch
    grid = torch.meshgrid(
        torch.arange((config.window + 1) * config.latent_frames), torch.arange(rows), torch.arange(columns), indexing="ij"
    )
    parts = [
        axis.flatten()[:, None].float() * torch.logspace(0, -math.log10(30.0), size)[None] for axis, size in zip(grid, sizes, strict=True)
    ]
    angle = torch.cat(parts, 1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position on `[B, heads, tokens, head_dim]` with tables `[tokens, P]`."""
    even, odd = x.chunk(2, -1)
    return torch.cat((even * cos - odd * sin, even * sin + odd * cos), -1)


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift


class Block(nn.Module):
    """Self-attention over cache and chunk, cross-attention to text, MLP; modulated by time (adaLN as in DiT and PixArt)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        d = config.width
        self.heads = config.heads
        self.qkv = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)
        self.text_q = nn.Linear(d, d)
        self.text_kv = nn.Linear(d, 2 * d)
        self.text_out = nn.Linear(d, d)
        self.up = nn.Linear(d, config.mlp_ratio * d)
        self.down = nn.Linear(config.mlp_ratio * d, d)
        self.table = nn.Parameter(torch.randn(6, d) * 0.02)
        self.gain = nn.Parameter(torch.zeros(config.heads))
        self.text_gain = nn.Parameter(torch.zeros(config.heads))
        for layer in (self.out, self.text_out, self.down):
            nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * config.depth))
            nn.init.zeros_(layer.bias)

    def split(self, x: Tensor) -> Tensor:
        """`[B, tokens, D]` → `[B, heads, tokens, head_dim]`."""
        heads: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return heads

    def norm(self, x: Tensor) -> Tensor:
        """RMS norm of each head of `[B, tokens, D]`."""
        heads = x.unflatten(-1, (self.heads, -1))
        out: Tensor = F.rms_norm(heads, heads.shape[-1:], eps=1e-6).flatten(-2)
        return out

    def project(self, x: Tensor) -> tuple[Tensor, KeyValue]:
        """Normalised queries, and keys and values, `[B, N, D]`."""
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.norm(q), KeyValue(self.norm(k), v)

    def text(self, features: Tensor) -> KeyValue:
        """Keys and values of text features `[B, T, D]`."""
        k, v = self.text_kv(features).chunk(2, -1)
        return KeyValue(self.norm(k), v)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, gain: Tensor, mask: Tensor | None) -> Tensor:
        """Attention of heads `[B, heads, tokens, head_dim]` with a learned inverse temperature a head → `[B, N, D]`."""
        q = q * (1.4 + 3 * gain)[:, None, None].to(q)
        out: Tensor = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(-2)
        return out


class CausalDiT(nn.Module):
    """See the module's docstring. No `forward`: a graph is always named."""

    rotary_cos: Tensor
    rotary_sin: Tensor

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        d, p = config.width, config.patch
        patch_values = config.latent_channels * p * p
        self.embed = nn.Linear(patch_values, d)
        self.position = nn.Parameter(torch.randn(config.tokens_per_chunk, d) * 0.02)
        self.time_in = nn.Linear(256, d)
        self.time_out = nn.Linear(d, d)
        self.modulation = nn.Linear(d, 6 * d)
        self.commit_embedding = nn.Parameter(torch.randn(d) * 0.02)
        self.text_in = nn.Linear(config.text_width, d)
        self.text_position = nn.Parameter(torch.randn(64, d) * 0.02)
        self.text_layer = nn.TransformerEncoderLayer(
            d, config.heads, 4 * d, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.text_norm = nn.LayerNorm(d)
        if config.keys:
            self.keys = nn.Parameter(torch.randn(config.keys, d) * 0.02)
        self.pool = nn.Linear(d, d)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.final_table = nn.Parameter(torch.randn(2, d) * 0.02)
        self.final_time = nn.Linear(d, 2 * d)
        self.unembed = nn.Linear(d, patch_values)
        for layer in (self.modulation, self.final_time, self.unembed):
            nn.init.normal_(layer.weight, std=0.002)
            nn.init.zeros_(layer.bias)
        cos, sin = rotary_table(config)
        self.register_buffer("rotary_cos", cos, persistent=False)
        self.register_buffer("rotary_sin", sin, persistent=False)

    @property
    def cache_width(self) -> int:
        """D of keys and values: the width, or this rank's share of it."""
        return self._block(0).heads * self.config.head_dim

    # -- graphs ---------------------------------------------------------------------------------------------------------------

    def condition(self, tokens: Tensor, mask: Tensor) -> TextCondition:
        """Prompt features `[B, T, text_width]` and mask `[B, T]` (True: a token) → what `denoise` needs of the prompt."""
        x = self.words(tokens, mask)
        weight = mask.to(x.dtype)[..., None]
        pooled = self.pool(x.sum(1) / weight.sum(1).clamp(min=1))
        additive = torch.where(mask, 0.0, MASKED).to(x.dtype)
        return TextCondition([self._block(i).text(x) for i in range(self.config.depth)], additive, pooled)

    def hold(self, held: Tensor) -> KeyWords:
        """Keys `[B, K]`, 1 where one is held → words beside those of a prompt, for `with_keys`; one that is not held is masked."""
        words, rows = self.keys[None], len(held)
        spoken = (self._block(i).text(words) for i in range(self.config.depth))
        additive = torch.where(held > 0, 0.0, MASKED).to(words.dtype)
        layers = [KeyValue(key.expand(rows, -1, -1), value.expand(rows, -1, -1)) for key, value in spoken]
        return KeyWords(layers, additive)

    def modulate(self, t: Tensor, pooled: Tensor) -> Modulation:
        """Second half of `condition`: times `[R]` in (0, 1] and pooled text `[R, D]` → modulation of R rows."""
        time = F.silu(self._time(t).to(pooled.dtype) + pooled)
        return Modulation(self.modulation(time).unflatten(-1, (6, -1)), self.final_time(time).unflatten(-1, (2, -1)))

    def denoise(self, x_t: Tensor, step: Modulation, text: TextCondition, cache: list[KeyValue], cache_mask: Tensor | None) -> Tensor:
        """Predict the clean chunk.

        Args:
            x_t: `[B, C, F, H, W]` noisy latents; rows may be at different times.
            step: from `modulate`, B rows.
            text: from `condition`, B rows.
            cache: a layer each, `[B, M, D]`, the window's slots oldest first; unused slots lead and are masked.
            cache_mask: `[B, M]` additive, 0 or `MASKED`. None: every slot is in use, which lets a device take its fastest attention kernel.

        Returns:
            `[B, C, F, H, W]` predicted clean latents, of the type of `x_t`.
        """
        cos, sin = self.rotary_cos, self.rotary_sin
        n = self.config.tokens_per_chunk
        mask = None if cache_mask is None else F.pad(cache_mask, (0, n))[:, None, None].to(self.position.dtype)
        text_mask = text.mask[:, None, None]
        x = self._patchify(x_t)
        for i, past in enumerate(cache):
            block = self._block(i)
            s1, g1, a1, s2, g2, a2 = (step.blocks + block.table)[:, :, None].unbind(1)
            q, now = block.project(_modulate(x, s1, g1))
            k = rotate(block.split(torch.cat((past.key, now.key), 1)), cos, sin)
            v = block.split(torch.cat((past.value, now.value), 1))
            attended = block.attend(rotate(block.split(q), cos[-n:], sin[-n:]), k, v, block.gain, mask)
            x = x + (1 + a1) * block.out(attended)
            words = text.layers[i]
            q = block.split(block.norm(block.text_q(F.layer_norm(x, x.shape[-1:]))))
            attended = block.attend(q, block.split(words.key), block.split(words.value), block.text_gain, text_mask)
            x = x + block.text_out(attended)
            x = x + (1 + a2) * block.down(F.gelu(block.up(_modulate(x, s2, g2)), approximate="tanh"))
        shift, scale = (step.final + self.final_table)[:, :, None].unbind(1)
        return self._unpatchify(self.unembed(_modulate(x, shift, scale))).to(x_t.dtype)

    def advance(
        self,
        x_t: Tensor,
        t: Tensor,
        t_next: Tensor,
        step: Modulation,
        text: TextCondition,
        cache: list[KeyValue],
        cache_mask: Tensor | None,
    ) -> Tensor:
        """One denoise step, from times `t` `[B]` to `t_next` `[B]`: `denoise`, and the way to its answer. Nothing in it needs the host."""
        return euler_step(x_t, self.denoise(x_t, step, text, cache, cache_mask), t, t_next)

    def commit(self, x_0: Tensor) -> list[KeyValue]:
        """Keys and values `[B, N, D]` a layer of clean chunks `[B, C, F, H, W]`; every row is one chunk that sees only itself."""
        n = self.config.tokens_per_chunk
        cos, sin = self.rotary_cos[-n:], self.rotary_sin[-n:]
        x = self._patchify(x_0)
        modulation = self.modulation(F.silu(self.commit_embedding)).unflatten(-1, (6, -1))
        slots: list[KeyValue] = []
        for i in range(self.config.depth):
            block = self._block(i)
            s1, g1, a1, s2, g2, a2 = (modulation + block.table).unbind(0)
            q, now = block.project(_modulate(x, s1, g1))
            slots.append(now)
            q, k = (rotate(block.split(y), cos, sin) for y in (q, now.key))
            x = x + (1 + a1) * block.out(block.attend(q, k, block.split(now.value), block.gain, None))
            x = x + (1 + a2) * block.down(F.gelu(block.up(_modulate(x, s2, g2)), approximate="tanh"))
        return slots

    # -- parts ----------------------------------------------------------------------------------------------------------------

    def words(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Prompt features and mask, as for `condition` → what blocks read of each token, `[B, T, D]`; 0 where there is none."""
        tokens = tokens.to(self.text_in.weight.dtype)
        x = self.text_in(tokens) + self.text_position[: tokens.shape[1]]
        out: Tensor = self.text_norm(self._text_layer(x, mask)) * mask.to(x.dtype)[..., None]
        return out

    def _block(self, index: int) -> Block:
        return cast("Block", self.blocks[index])

    def _time(self, t: Tensor) -> Tensor:
        frequency = torch.exp(-math.log(10_000.0) * torch.arange(128, device=t.device, dtype=torch.float32) / 128)
        angle = t.float()[:, None] * 1000 * frequency
        features = torch.cat((angle.cos(), angle.sin()), -1)
        out: Tensor = self.time_out(F.silu(self.time_in(features.to(self.time_in.weight.dtype))))
        return out

    def _text_layer(self, x: Tensor, mask: Tensor) -> Tensor:
        layer = self.text_layer
        attention = layer.self_attn
        h = layer.norm1(x)
        q, k, v = F.linear(h, attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1)
        heads = [y.unflatten(-1, (self.config.heads, -1)).transpose(1, 2) for y in (q, k, v)]
        additive = torch.where(mask, 0.0, MASKED).to(x.dtype)[:, None, None]
        y = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], attn_mask=additive).transpose(1, 2).flatten(-2)
        x = x + attention.out_proj(y)
        out: Tensor = x + layer.linear2(F.gelu(layer.linear1(layer.norm2(x))))
        return out

    def _patchify(self, x: Tensor) -> Tensor:
        b, c, f, h, w = x.shape
        p = self.config.patch
        x = x.reshape(b, c, f, h // p, p, w // p, p).permute(0, 2, 3, 5, 1, 4, 6).reshape(b, -1, c * p * p)
        out: Tensor = self.embed(x.to(self.position.dtype)) + self.position
        return out

    def _unpatchify(self, x: Tensor) -> Tensor:
        g = self.config
        p, rows, columns = g.patch, g.latent_height // g.patch, g.latent_width // g.patch
        x = x.reshape(-1, g.latent_frames, rows, columns, g.latent_channels, p, p)
        return x.permute(0, 4, 1, 2, 5, 3, 6).reshape(-1, g.latent_channels, g.latent_frames, g.latent_height, g.latent_width)
