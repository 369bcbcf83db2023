"""Causal video autoencoder: 4 pixel frames become one latent frame, 8x8 pixels one latent position.

Shapes: frames `[B, N, 3, H, W]` in [0, 1]; latents `[B, C, F, h, w]` with N = 4F, h = H/8, normalised to zero mean, unit variance.
Causality comes from memory blocks that see the frame before (as in TAEHV, https://github.com/madebyollin/taehv). Their memory is an
explicit input and output, so a chunk is one graph of static shapes, and decoding chunk by chunk equals decoding the clip at once.
Memory reaches back fewer latent frames than two chunks hold, so a decoder rebuilt from the last two chunks is exact.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_core.config import VAEConfig

Memory = list[Tensor]  # one `[B, C, h, w]` a memory block: its input at the frame before


def _conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


class MemoryBlock(nn.Module):
    """Residual block on [x_t, x_{t-1}]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = _conv(2 * width, width)
        self.out = _conv(width, width)
        nn.init.normal_(self.out.weight, std=0.1 * (9 * width) ** -0.5)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """`x` `[B, F, C, h, w]`, `memory` `[B, C, h, w]` → the same shapes."""
        previous = torch.cat((memory[:, None], x[:, :-1]), 1)
        flat = torch.cat((x, previous), 2).flatten(0, 1)
        return x + self.out(F.silu(self.mix(flat))).reshape(x.shape), x[:, -1]


class _Causal(nn.Module):
    """What encoder and decoder share: a chain of per-frame layers, memory blocks and time reshapes."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        blocks = iter(memory)
        after: Memory = []
        for layer in self.layers:
            if isinstance(layer, MemoryBlock):
                x, last = layer(x, next(blocks))
                after.append(last)
            elif isinstance(layer, TimeGrow | TimeShrink):
                x = layer(x)
            else:
                x = layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return x, after


class TimeGrow(nn.Module):
    """`[B, F, C, h, w]` → `[B, 2F, C', h, w]`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.project = _conv(inputs, 2 * outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(x.flatten(0, 1))
        return y.reshape(x.shape[0], 2 * x.shape[1], self.outputs, *x.shape[3:])


class TimeShrink(nn.Module):
    """`[B, 2F, C, h, w]` → `[B, F, C', h, w]`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.project = _conv(2 * inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        pairs = x.reshape(x.shape[0] * x.shape[1] // 2, 2 * x.shape[2], *x.shape[3:])
        y: Tensor = self.project(pairs)
        return y.reshape(x.shape[0], x.shape[1] // 2, *y.shape[1:])


class VAE(nn.Module):
    """Encoder, decoder and latent statistics."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        c, e, d = config.latent_channels, config.encoder_width, config.decoder_width
        half = d * 2 // 3
        self.encoder = _Causal([
            nn.PixelUnshuffle(4), _conv(48, half), MemoryBlock(half), TimeShrink(half, half),
            nn.Conv2d(half, e, 4, stride=2, padding=1), MemoryBlock(e), TimeShrink(e, e), MemoryBlock(e), _conv(e, c),
        ])  # fmt: skip
        self.decoder = _Causal([
            _conv(c, d), *(MemoryBlock(d) for _ in range(config.decoder_blocks)), TimeGrow(d, d), MemoryBlock(d), TimeGrow(d, d),
            _conv(d, 4 * half), nn.PixelShuffle(2), MemoryBlock(half), MemoryBlock(half), _conv(half, 48), nn.PixelShuffle(4),
        ])  # fmt: skip
        self.register_buffer("latent_mean", torch.zeros(c))
        self.register_buffer("latent_std", torch.ones(c))

    def new_memory(self, part: _Causal, batch: int, height: int, width: int) -> Memory:
        """Zero memory for `part` at pixel size `height` x `width`."""
        quarter, eighth = (height // 4, width // 4), (height // 8, width // 8)
        wide = self.config.encoder_width if part is self.encoder else self.config.decoder_width
        blocks = [m for m in part.layers if isinstance(m, MemoryBlock)]
        weight = next(self.parameters())
        return [weight.new_zeros(batch, m.out.out_channels, *(eighth if m.out.out_channels == wide else quarter)) for m in blocks]

    def encode_raw(self, frames: Tensor) -> Tensor:
        """Frames `[B, N, 3, H, W]` → latents `[B, C, F, h, w]` before normalisation."""
        memory = self.new_memory(self.encoder, frames.shape[0], *frames.shape[3:])
        latents, _ = self.encoder(frames.to(memory[0].dtype) * 2 - 1, memory)
        return latents.transpose(1, 2)  # type: ignore[no-any-return]

    def normalise(self, latents: Tensor) -> Tensor:
        mean, std = (v[:, None, None, None].to(latents) for v in (self.latent_mean, self.latent_std))
        return (latents - mean) / std

    def encode(self, frames: Tensor) -> Tensor:
        """Frames `[B, N, 3, H, W]` in [0, 1] → normalised latents `[B, C, F, h, w]`."""
        return self.normalise(self.encode_raw(frames))

    def decode(self, latents: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """One chunk: normalised latents `[B, C, F, h, w]` and memory → frames `[B, 4F, 3, H, W]`, not clamped, and the memory after."""
        frames, after = self.decoder(latents.transpose(1, 2).to(self.latent_std.dtype), memory)
        return (frames + 1) / 2, after

    def render(self, latents: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """As `decode`, to what a screen shows: uint8 `[B, 4F, H, W, 3]`."""
        frames, after = self.decode(latents, memory)
        return (frames.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).contiguous(), after
