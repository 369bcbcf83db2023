"""What stages tell of their work while they do it, for whoever counts. Plain numbers: who listens, and what for, they do not know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Forward:
    """One forward of a denoise engine.

    Attributes:
        work: a denoise step, or the commit of finished chunks.
        bucket: batch size it ran in.
        rows: of those, rows that belonged to a session.
        seconds: how long it took.
        slack_s: for each live session whose chunk began with it, the time to spare: until the chunk is due, less all its steps.
    """

    work: Literal["step", "commit"]
    bucket: int
    rows: int
    seconds: float
    slack_s: tuple[float, ...] = ()


Observer = Callable[[Forward], None]


@runtime_checkable
class ReportsForwards(Protocol):
    """A denoiser that tells of its forwards."""

    def observe(self, observer: Observer) -> None:
        """Call `observer` after every forward from now on, in the thread that ran it; it must be quick and must not raise."""
        ...
