"""Two small networks behind the decoder: one makes the frame between two, the other makes frames larger.

Shapes: N frames of a chunk, H, W height and width, S how many times larger. What crosses the graphs is what a screen shows, uint8
`[N, H, W, 3]`: so a session's frames depend on its decoded frames alone. Both compute at half the height and width, with channels for
what that folds away.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZES = (2, 4)  # how many times larger
REACH = 2  # pixels, to each side
_PLACES = (2 * REACH + 1) ** 2
_CENTRE = 9.0  # how much likelier than all others, as a logarithm


def _conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _conv(width, width), _conv(width, width)
        nn.init.normal_(self.second.weight, std=0.1 * (9 * width) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.second(F.relu(self.first(x)))
        return y


def _trunk(channels: int, width: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(nn.PixelUnshuffle(2), _conv(4 * channels, width), *(_Residual(width) for _ in range(blocks)))


def _head(width: int, channels: int) -> nn.Conv2d:
    """Begins at zero, so that an untrained network changes nothing."""
    head = _conv(width, channels, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)  # type: ignore[arg-type] # torch's stubs take a bias for optional
    return head


class Between(nn.Module):
    """The frame half-way between two. Each of its pixels is an average of those around its place in both frames, corrected.

    The weights of the average are the network's, for each pixel anew, as in AdaConv (Niklaus et al., 2017, arXiv 1703.07514): so it finds
    where a pixel came from and goes to without flow or warping, as far as `REACH` pixels.
    """

    def __init__(self, width: int = 32, blocks: int = 2) -> None:
        super().__init__()
        self.trunk = _trunk(6, width, blocks)
        self.weights, self.head = _head(width, 4 * 2 * _PLACES), _head(width, 12)
        with torch.no_grad():  # an untrained network takes the mean of both frames, nearly
            bias = self.weights.bias.view(2, _PLACES, 4)  # type: ignore[union-attr] # as in `_head`
            bias[:, _PLACES // 2] = _CENTRE

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Frames `[N, 3, H, W]` in [0, 1] and those that follow them → the frames between, not clamped."""
        features = self.trunk(torch.cat((before, after), 1))
        weights = F.pixel_shuffle(self.weights(features), 2).softmax(1)[:, :, None]
        around = torch.cat((_around(before), _around(after)), 1)
        return (weights * around).sum(1) + F.pixel_shuffle(self.head(features), 2)


class Larger(nn.Module):
    """Frames 2 or 4 times as large: each pixel repeated, corrected. A head for each size, on one trunk."""

    def __init__(self, width: int = 32, blocks: int = 2) -> None:
        super().__init__()
        self.trunk = _trunk(3, width, blocks)
        self.heads = nn.ModuleDict({str(size): _head(width, 3 * (2 * size) ** 2) for size in SIZES})

    def forward(self, frames: Tensor, size: int) -> Tensor:
        """`[N, 3, H, W]` in [0, 1] → `[N, 3, S·H, S·W]`, not clamped."""
        return self.enlarged(frames, self.trunk(frames), size)

    def enlarged(self, frames: Tensor, features: Tensor, size: int) -> Tensor:
        """As `forward`, where the trunk's features are there already."""
        corrections: Tensor = self.heads[str(size)](features)
        repeated = F.pixel_shuffle(frames.repeat_interleave(size * size, 1), size)
        return repeated + F.pixel_shuffle(corrections, 2 * size)


class Enhancer(nn.Module):
    """Both, and the graphs that a stage runs."""

    def __init__(self, width: int = 32, blocks: int = 2) -> None:
        super().__init__()
        self.between = Between(width, blocks)
        self.larger = Larger(width, blocks)

    def doubled(self, before: Tensor, frames: Tensor) -> Tensor:
        """uint8 `[1, H, W, 3]`, the frame before, and `[N, H, W, 3]` → `[2N, H, W, 3]`: before each frame the one between."""
        given = _unit(torch.cat((before, frames)), self.between)
        between = self.between(given[:-1], given[1:])
        return torch.stack((_screen(between), frames), 1).flatten(0, 1)

    def enlarge_2(self, frames: Tensor) -> Tensor:
        """uint8 `[N, H, W, 3]` → `[N, 2H, 2W, 3]`."""
        return _screen(self.larger(_unit(frames, self.larger), 2))

    def enlarge_4(self, frames: Tensor) -> Tensor:
        """uint8 `[N, H, W, 3]` → `[N, 4H, 4W, 3]`."""
        return _screen(self.larger(_unit(frames, self.larger), 4))


def _around(frames: Tensor) -> Tensor:
    """`[N, 3, H, W]` → `[N, P, 3, H, W]`: every pixel's neighbours, row by row; beyond an edge there is more of the edge."""
    height, width = frames.shape[2:]
    wide = torch.cat((frames[..., :1].expand(-1, -1, -1, REACH), frames, frames[..., -1:].expand(-1, -1, -1, REACH)), 3)
    padded = torch.cat((wide[:, :, :1].expand(-1, -1, REACH, -1), wide, wide[:, :, -1:].expand(-1, -1, REACH, -1)), 2)
    side = range(2 * REACH + 1)
    return torch.stack([padded[:, :, y : y + height, x : x + width] for y in side for x in side], 1)


def _unit(frames: Tensor, network: nn.Module) -> Tensor:
    """uint8 `[N, H, W, 3]` → `[N, 3, H, W]` in [0, 1], of the network's type."""
    weight = next(network.parameters())
    return frames.permute(0, 3, 1, 2).to(weight.dtype) / 255


def _screen(frames: Tensor) -> Tensor:
    """`[N, 3, H, W]` → uint8 `[N, H, W, 3]`."""
    return (frames.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
