"""What an evaluation says: shares with intervals, the thresholds they are held against, and the report as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

Z = 1.96  # both-sided 95 %

ATTRIBUTES = ("background", "colour", "shape", "motion")
ALL = "all"  # the four attributes together
EXTRAS = ("size", "speed")  # said by the prompts and reported, but no part of `all`; speed is counted for moving scenes only


@dataclass(frozen=True, slots=True)
class Share:
    """`hits` of `count`."""

    hits: int
    count: int

    @property
    def value(self) -> float:
        return self.hits / self.count

    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval, which stays inside [0, 1] and is honest near its ends."""
        z, n, p = Z, self.count, self.value
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return max(0.0, centre - half), min(1.0, centre + half)

    def as_json(self) -> dict[str, float]:
        low, high = self.interval()
        return {"share": round(self.value, 4), "low": round(low, 4), "high": round(high, 4), "count": self.count}


@dataclass(frozen=True, slots=True)
class Loss:
    """How much a share has shrunk between two looks at the same `count` prompts: `lost` were right only before, `gained` only after."""

    lost: int
    gained: int
    count: int

    @property
    def value(self) -> float:
        return (self.lost - self.gained) / self.count

    def interval(self) -> tuple[float, float]:
        """95 % interval of a paired difference (Agresti and Min, 2005): each of the four cells half a count larger."""
        lost, gained, n = self.lost + 0.5, self.gained + 0.5, self.count + 2
        half = Z * math.sqrt(lost + gained - (lost - gained) ** 2 / n) / n
        middle = (lost - gained) / n
        return middle - half, middle + half

    def as_json(self) -> dict[str, float]:
        low, high = self.interval()
        return {"loss": round(self.value, 4), "low": round(low, 4), "high": round(high, 4), "count": self.count}


@dataclass(frozen=True, slots=True)
class Row:
    """Shares right of one kind of frames, by attribute."""

    name: str
    shares: Mapping[str, Share]


@dataclass(frozen=True, slots=True)
class Quantiles:
    low: float
    middle: float
    high: float

    def as_json(self) -> dict[str, float]:
        return {"p05": round(self.low, 3), "p50": round(self.middle, 3), "p95": round(self.high, 3)}


@dataclass(frozen=True, slots=True)
class Gate:
    """A measured value and the range it has to lie in, both ends included."""

    name: str
    value: float
    at_least: float = -math.inf
    at_most: float = math.inf

    @property
    def passed(self) -> bool:
        return self.at_least <= self.value <= self.at_most

    def as_json(self) -> dict[str, object]:
        limits = {k: v for k, v in (("at_least", self.at_least), ("at_most", self.at_most)) if math.isfinite(v)}
        return {"gate": self.name, "value": round(self.value, 4), **limits, "passed": self.passed}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One evaluation.

    Attributes:
        steps: denoise steps a chunk.
        long_frames: length of the long roll-out.
        psnr_db: autoencoder on ground truth: mean and minimum over clips.
        long_loss: of `all`, from the first to the last window of the long roll-out.
        area_ratio: object area in the last window over that in the first: 5 %, 50 % and 95 % of the prompts.
        background_shift: mean absolute change of the background between the two windows, of 255.
    """

    model: str
    prompts: int
    steps: int
    long_frames: int
    truth_short: Row
    truth: Row
    autoencoder: Row
    first_chunk: Row
    window: Row
    last_window: Row
    switch_first: Row
    switch_second: Row
    psnr_db: tuple[float, float]
    long_loss: Loss
    area_ratio: Quantiles
    background_shift: float

    @property
    def rows(self) -> tuple[Row, ...]:
        return (
            self.truth_short, self.truth, self.autoencoder,
            self.first_chunk, self.window, self.last_window, self.switch_first, self.switch_second,
        )  # fmt: skip

    def gates(self) -> list[Gate]:
        """What the model is held against."""
        detector = min(row.shares[a].value for row in (self.truth_short, self.truth) for a in ATTRIBUTES)
        drawn = {a: self.window.shares[a].value for a in ATTRIBUTES}
        return [
            Gate("detector on ground truth, least attribute", detector, at_least=0.98),
            Gate("autoencoder: shape", self.autoencoder.shares["shape"].value, at_least=0.97),
            Gate(f"{self.window.name}: background", drawn["background"], at_least=0.98),
            Gate(f"{self.window.name}: colour", drawn["colour"], at_least=0.95),
            Gate(f"{self.window.name}: motion", drawn["motion"], at_least=0.90),
            Gate(f"{self.window.name}: shape", drawn["shape"], at_least=0.80),
            Gate(f"{self.switch_second.name}: all", self.switch_second.shares[ALL].value, at_least=0.80),
            Gate(f"{self.long_frames} frames: loss of all", self.long_loss.value, at_most=0.05),
            Gate(f"{self.long_frames} frames: median area ratio", self.area_ratio.middle, at_least=0.8, at_most=1.25),
        ]

    def as_json(self) -> dict[str, object]:
        return {
            "model": self.model,
            "prompts": self.prompts,
            "steps": self.steps,
            "long_frames": self.long_frames,
            "shares": {row.name: {k: s.as_json() for k, s in row.shares.items()} for row in self.rows},
            "autoencoder_psnr_db": {"mean": round(self.psnr_db[0], 2), "min": round(self.psnr_db[1], 2)},
            "long_loss_of_all": self.long_loss.as_json(),
            "long_area_ratio": self.area_ratio.as_json(),
            "long_background_shift_of_255": round(self.background_shift, 2),
            "gates": [gate.as_json() for gate in self.gates()],
        }
