"""How long a graph takes on a chip if the data sheet holds: an estimate, never a measurement. Plain arithmetic, no torch.

Time is the larger of operations over rate and bytes over bandwidth, each at an assumed efficiency. The efficiencies come in three
bands, because one number would claim too much: what generic kernels reach, what is usual, and what hand-tuned ones reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Chip:
    """One device that a replica can own.

    Attributes:
        flops: dense bfloat16 operations a second.
        bytes_per_s: of its memory.
        source: of these figures.
    """

    name: str
    flops: float
    bytes_per_s: float
    source: str


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Shares of the data sheet."""

    linear: float
    attention: float
    bandwidth: float


@dataclass(frozen=True, slots=True)
class Work:
    """One run of a graph: multiplications and additions in matrix products and convolutions, those in attention, values moved at least."""

    linear_flops: float
    attention_flops: float
    values: float

    @property
    def flops(self) -> float:
        return self.linear_flops + self.attention_flops

    def bytes(self, bytes_per_value: int = 2) -> float:
        return self.values * bytes_per_value


# Whole chips. A Trainium 2 chip shows 4 logical cores, a Trainium 3 chip as well; the rates are a chip's.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("trn1", 190e12, 820 * 2**30, "AWS Neuron documentation, per chip"),
        Chip("trn2", 667e12, 2.9e12, "AWS Neuron documentation, per chip"),
        Chip("trn3", 671e12, 4.9e12, "AWS Neuron documentation, per chip, bfloat16"),
        Chip("h100", 989e12, 3.35e12, "NVIDIA H100 SXM data sheet"),
    )
}
BANDS = {
    "low": Efficiency(0.40, 0.15, 0.60),
    "typical": Efficiency(0.65, 0.25, 0.75),
    "tuned": Efficiency(0.80, 0.60, 0.90),
}


def seconds(work: Work, chip: Chip, efficiency: Efficiency, launch_s: float = 0.0) -> float:
    """Of one run in bfloat16 on one chip, with `launch_s` for the host to start it."""
    compute = (work.linear_flops / efficiency.linear + work.attention_flops / efficiency.attention) / chip.flops
    memory = work.bytes() / (chip.bytes_per_s * efficiency.bandwidth)
    return max(compute, memory) + launch_s


def estimates(work: Work) -> Mapping[str, Mapping[str, float]]:
    """Seconds by chip and band."""
    return {name: {band: seconds(work, chip, efficiency) for band, efficiency in BANDS.items()} for name, chip in CHIPS.items()}
