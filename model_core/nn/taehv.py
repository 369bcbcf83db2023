"""TAEHV's decoder (https://github.com/madebyollin/taehv), chunk by chunk: a small network that draws nearly what a large autoencoder draws.

Convolutions see one frame; memory blocks see the frame before as well. Their memory is an explicit input and output, so a chunk is one
graph of static shapes, and decoding chunk by chunk is decoding the clip at once. Names of weights are those of TAEHV's own checkpoints.

Shapes: normalised latents `[B, C, F, h, w]`; frames `[B, N, 3, H, W]` in [0, 1], N frames for each of F. Of a session's first latent
frame only the last is to be shown.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Memory = list[Tensor]  # one `[B, C, h, w]` a memory block: its input at the frame before


class Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class MemoryBlock(nn.Module):
    """Residual block on [x_t, x_{t-1}]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.conv = nn.Sequential(_conv(2 * width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width))

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """Both `[B * F, C, h, w]`."""
        y: Tensor = F.relu(self.conv(torch.cat((x, before), 1)) + x)
        return y


class TimeGrow(nn.Module):
    """`[B * F, C, h, w]` → `[B * F * stride, C, h, w]`."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(width, width * stride, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x).unflatten(1, (self.stride, -1)).flatten(0, 1)
        return y


class TaehvDecoder(nn.Module):
    """See the module's docstring.

    Args:
        channels: C.
        widths: of the four levels.
        strides: by which three of them multiply frames.
        patch: pixels along a side that the last layer makes of one position.
    """

    def __init__(self, channels: int, widths: Sequence[int], strides: Sequence[int] = (1, 2, 2), patch: int = 1) -> None:
        super().__init__()
        self.channels, self.strides, self.patch = channels, tuple(strides), patch
        layers: list[nn.Module] = [Clamp(), _conv(channels, widths[0]), nn.ReLU()]
        for width, narrower, stride in zip(widths[:3], widths[1:], strides, strict=True):
            layers += [*(MemoryBlock(width) for _ in range(3)), nn.Upsample(scale_factor=2), TimeGrow(width, stride)]
            layers += [_conv(width, narrower, bias=False)]
        layers += [nn.ReLU(), _conv(widths[3], 3 * patch**2)]
        self.decoder = nn.Sequential(*layers)

    @property
    def growth(self) -> int:
        """Frames of a latent frame."""
        first, second, third = self.strides
        return first * second * third

    def new_memory(self, height: int, width: int) -> Memory:
        """Zero memory of one session whose latents are `height` x `width`."""
        made, scale = [], 1
        weight = next(self.parameters())
        for layer in self.decoder:
            if isinstance(layer, MemoryBlock):
                made.append(weight.new_zeros(1, layer.width, height * scale, width * scale))
            elif isinstance(layer, nn.Upsample):
                scale *= 2
        return made

    def decode(self, latents: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """One chunk and the memory before it → frames, and the memory after."""
        blocks, after = iter(memory), []
        batch = latents.shape[0]
        x = latents.transpose(1, 2).flatten(0, 1).to(memory[0].dtype)
        for layer in self.decoder:
            if isinstance(layer, MemoryBlock):
                frames = x.unflatten(0, (batch, -1))
                before = torch.cat((next(blocks)[:, None], frames[:, :-1]), 1).flatten(0, 1)
                after.append(frames[:, -1])
                x = layer(x, before)
            else:
                x = layer(x)
        if self.patch > 1:
            x = F.pixel_shuffle(x, self.patch)
        return x.clamp(0, 1).unflatten(0, (batch, -1)), after

    def render(self, latents: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """As `decode`, to what a screen shows: uint8 `[B, N, H, W, 3]`."""
        frames, after = self.decode(latents, memory)
        return (frames.float() * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).contiguous(), after


def _conv(inputs: int, outputs: int, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)


def of_weights(tensors: dict[str, Tensor]) -> TaehvDecoder:
    """The decoder that `tensors` fit, without those of an encoder; its sizes are read off them.

    Raises:
        KeyError: a tensor that every TAEHV has is missing.
        RuntimeError: others are missing, unknown, or of other shapes.
    """
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith("encoder.")}
    grown = [own[f"decoder.{layer}.conv.weight"] for layer in (7, 13, 19)]
    widths = [weight.shape[1] for weight in grown] + [own["decoder.22.weight"].shape[1]]
    strides = [len(weight) // weight.shape[1] for weight in grown]
    patch = round((len(own["decoder.22.weight"]) // 3) ** 0.5)
    decoder = TaehvDecoder(own["decoder.1.weight"].shape[1], widths, strides, patch)
    decoder.load_state_dict(own)
    return decoder
