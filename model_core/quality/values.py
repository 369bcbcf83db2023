"""What is measured of videos, as plain values. docs/quality.md says what each number means, and what it does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

_DECIMALS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """Numbers of the frames alone. None where there are too few frames.

    Attributes:
        frames: that were looked at.
        width, height: of these frames, in pixels.
        flicker: mean absolute change of a pixel from frame to frame, from 0 to 1.
        worst_flicker: the same of the one step that changes most.
        brightness_flicker: how far a frame's mean brightness lies from the middle of its neighbours', on average, from 0 to 1.
        smoothness: 1 less the mean error of a frame that is predicted from its two neighbours, block by block.
        frozen_share: of the steps from frame to frame, those that change next to nothing.
        longest_frozen_frames: one after the other that repeat the one before.
        black_share: of the frames, those that are black.
    """

    frames: int
    width: int
    height: int
    flicker: float | None
    worst_flicker: float | None
    brightness_flicker: float | None
    smoothness: float | None
    frozen_share: float | None
    longest_frozen_frames: int
    black_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Adherence:
    """How far frames show what the prompt names.

    Attributes:
        detector: the model whose world it knows.
        windows: of up to 40 frames, that were looked at.
        score: of the windows, those that show everything that was named.
        shares: the same of each attribute that was named, by its name.
    """

    detector: str
    windows: int
    score: float
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What is measured of one video without a reference. `adherence` is None where no detector can judge it."""

    measures: Measures
    adherence: Adherence | None = None

    def as_json(self) -> dict[str, Any]:
        """One flat object, but for `adherence`. Shares are rounded to six decimals."""
        adherence = None if self.adherence is None else _rounded(asdict(self.adherence))
        return {**_rounded(asdict(self.measures)), "adherence": adherence}


def quality_of(told: Mapping[str, Any]) -> Quality:
    """What `as_json` wrote, maybe in a newer version: names that are not known are passed over.

    Raises:
        KeyError, TypeError: something is missing.
    """
    seen = told.get("adherence")
    adherence = None if seen is None else Adherence(**{field.name: seen[field.name] for field in fields(Adherence)})
    return Quality(measures=Measures(**{field.name: told[field.name] for field in fields(Measures)}), adherence=adherence)


def _rounded(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _rounded(value) if isinstance(value, Mapping) else _number(value) for name, value in told.items()}


def _number(value: object) -> object:
    return round(value, _DECIMALS) if isinstance(value, float) else value
