"""What the checks of `headrace compile` refuse: `python -m bench.models.gate` puts one bad graph of each kind through them.

Prints, for each, the faults that were found: the operator, the line that it comes from, and why no compiler of fixed shapes can have it.
Exit code 1 if one of them passes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from model_core.compiler.walk import check_graphs
from model_core.graphs import DENOISER, Bucket, GraphSpec


class ReadsAValue(nn.Module):
    """`.item()`: strict export takes it."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.sum().item()


class BranchesOnAValue(nn.Module):
    """The host would have to wait for the device."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x


class GrowsWithItsData(nn.Module):
    """A dynamic shape."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x[x > 0]])


class GrowsABuffer(nn.Module):
    """The usual cache, kept in the network."""

    cache: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        self.cache = torch.cat((self.cache, x))
        return self.cache.sum()


class GrowsItsInput(nn.Module):
    """The usual cache, given and returned."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, x * 2))


class CopiesByIndex(nn.Module):
    """`index_copy_`, which becomes a scatter."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone().index_copy_(0, torch.tensor([0]), x[:1])


class WritesIntoASlice(nn.Module):
    """Another scatter, which shows only once the graph has been lowered to StableHLO."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        y[1:3] = 0 * x[1:3]
        return y


class Double(nn.Module):
    """Float64."""

    def forward(self, x: Tensor) -> Tensor:
        return x.double().sin().float()


class Complex(nn.Module):
    """Rotary positions as complex numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.view_as_real(torch.view_as_complex(x.reshape(-1, 2)) * 1j)


class Sorts(nn.Module):
    """A sort."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sort().values


class Scatters(nn.Module):
    """A scatter by name."""

    def forward(self, x: Tensor) -> Tensor:
        return x.scatter(0, torch.zeros(2, dtype=torch.int64), 1.0)


BAD: tuple[Callable[[], nn.Module], ...] = (
    ReadsAValue, BranchesOnAValue, GrowsWithItsData, GrowsABuffer, GrowsItsInput, CopiesByIndex, WritesIntoASlice, Double, Complex, Sorts,
    Scatters,
)  # fmt: skip


def bad_graph(network: nn.Module) -> GraphSpec:
    """`network` as a graph of four numbers."""
    return GraphSpec(DENOISER, type(network).__name__, Bucket(4), network, "forward", lambda _: (torch.ones(4),))


def main() -> int:
    passed = 0
    for report in check_graphs([bad_graph(make()) for make in BAD]):
        passed += report.passed
        print(f"{'PASS' if report.passed else 'refused'}  {report.name}")
        for fault in report.faults:
            print(f"    {fault}")
            path, _, number = fault.partition(" at ")[2].partition(": ")[0].rpartition(":")
            if Path(path).is_file():
                print(f"        {Path(path).read_text().splitlines()[int(number) - 1].strip()}")
    print(f"{len(BAD) - passed} of {len(BAD)} bad graphs refused")
    return int(passed > 0)


if __name__ == "__main__":
    sys.exit(main())
