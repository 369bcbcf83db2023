"""What admission says of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ControlStatistics:
    """Sessions now, and ever.

    Attributes:
        live, degraded, waiting: that run, how many of those below what they asked for, and in line.
        level: of brown-out.
        capacity: sessions that fit at level 0.
        live_jobs, waiting_jobs: how many of those have no playback to keep up with.
        arrivals, departures: of paced sessions: those that asked, the refused ones too; and those that ran and ended.
        paused: how many of those that run stand still.
        aside: paused, without a slot; in none of the above.
    """

    live: int
    degraded: int
    waiting: int
    level: int
    capacity: int
    live_jobs: int
    waiting_jobs: int
    arrivals: int
    departures: int
    paused: int = 0
    aside: int = 0
