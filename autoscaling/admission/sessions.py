"""What admission keeps of one session."""

from __future__ import annotations

from dataclasses import dataclass, field

from autoscaling.admission.decide import Ask


@dataclass(slots=True)
class KnownSession:
    """One session, which several calls may hold for a moment: the one that serves it, and one that takes it over.

    Attributes:
        steps: 0 while it does not run.
        keys: of the calls.
        name: what else it is known by.
        still: of the calls, those whose viewer stands still. The session pauses while that are all of them.
        paused_at: since when it pauses, while it holds its slot.
        held_s, played_from: how much of `hold_s` earlier pauses have taken, as of the end of the last one.
        ended: it paused for too long, and could not be kept.
    """

    ask: Ask
    steps: int
    keys: list[int]
    name: str
    still: set[int] = field(default_factory=set)
    paused_at: float | None = None
    held_s: float = 0.0
    played_from: float = 0.0
    ended: bool = False
