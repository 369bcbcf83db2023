"""What denoise replicas can do: a measured profile f(bucket), corrected by what steps really take, turned into sessions in real time.

Plain arithmetic on plain numbers: no clock, no cluster, no torch. A simulator runs the same code as the front door.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

# Device seconds after which a correction has moved 63 % of the way to what was observed.
_EVIDENCE_S = 2.0
_CORRECTION_BOUNDS = (0.25, 16.0)
# A quotient that is a whole number but for rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class CapacityProfile:
    """How many sessions a replica serves in real time, from the seconds that a forward takes in each batch bucket.

    Attributes:
        buckets: batch sizes, ascending; a batch is padded to the next one, and split where it exceeds the largest.
        step_s: a denoise step in each bucket.
        commit_s: a commit in each bucket.

    Raises:
        ValueError: lengths differ, buckets do not ascend from 1 or more, or a time is not a positive number.
    """

    buckets: tuple[int, ...]
    step_s: tuple[float, ...]
    commit_s: tuple[float, ...]
    _chunks: dict[tuple[int, int], list[float]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _hash: int = field(default=0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.buckets or self.buckets[0] < 1 or list(self.buckets) != sorted(set(self.buckets)):
            raise ValueError(f"buckets must ascend from 1 or more; got {self.buckets}")
        for name, table in (("step_s", self.step_s), ("commit_s", self.commit_s)):
            if len(table) != len(self.buckets) or not all(math.isfinite(t) and t > 0 for t in table):
                raise ValueError(f"{name} must be {len(self.buckets)} positive numbers, one a bucket; got {table}")
        # A larger batch cannot take less; where it was measured so, that was noise.
        object.__setattr__(self, "step_s", tuple(accumulate(self.step_s, max)))
        object.__setattr__(self, "commit_s", tuple(accumulate(self.commit_s, max)))
        object.__setattr__(self, "_hash", hash((self.buckets, self.step_s, self.commit_s)))

    def __hash__(self) -> int:
        return self._hash

    def chunk_s(self, sessions: int, steps: int) -> float:
        """Device seconds to make one chunk for each of `sessions`, all at `steps` steps. Grows with both."""
        return steps * self._forward_s(self.step_s, sessions) + self._forward_s(self.commit_s, sessions)

    def capacity(self, steps: int, budget_s: float, correction: float, slots: int) -> int:
        """S*(steps): most sessions, at most `slots`, whose chunks take no more than `budget_s` with every time `correction` as long."""
        chunks = self._chunks.get((steps, slots))
        if chunks is None:
            chunks = self._chunks[steps, slots] = [self.chunk_s(n, steps) for n in range(1, slots + 1)]
        n = bisect_right(chunks, budget_s / correction)  # but for rounding
        while n < slots and correction * chunks[n] <= budget_s:
            n += 1
        while n and correction * chunks[n - 1] > budget_s:
            n -= 1
        return n

    def _forward_s(self, table: tuple[float, ...], rows: int) -> float:
        full, rest = divmod(rows, self.buckets[-1])
        return full * table[-1] + (table[bisect_left(self.buckets, rest)] if rest else 0.0)


def blended(average: float, sample: float, evidence_s: float) -> float:
    """An average in which newer evidence counts more, with `sample`, which rests on `evidence_s` device seconds."""
    return average if evidence_s <= 0 else average - math.expm1(-evidence_s / _EVIDENCE_S) * (sample - average)


def corrected(correction: float, actual_s: float, expected_s: float) -> float:
    """κ after forwards that took `actual_s` where the profile says `expected_s`; unchanged where there were none."""
    if expected_s <= 0 or actual_s < 0:
        return correction
    low, high = _CORRECTION_BOUNDS
    return blended(correction, min(high, max(low, actual_s / expected_s)), expected_s)


class DenoiseReplica(NamedTuple):
    """One replica as last heard of. Without a profile nothing is known of its speed, and its slots are taken for its capacity."""

    slots: int
    profile: CapacityProfile | None = None
    correction: float = 1.0

    def sessions(self, steps: int, budget_s: float) -> int:
        """Sessions of `steps` steps that it holds in real time."""
        return self.slots if self.profile is None else self.profile.capacity(steps, budget_s, self.correction, self.slots)


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the stages can serve together.

    Attributes:
        replicas: denoise replicas.
        budget_s: device seconds that may go into one chunk of every session: its length in seconds times a utilisation below 1.
        ceiling: sessions that may run here whatever the profile says.
        decode_sessions: sessions that the decode stage holds in real time; None where that is not known yet.
        others: sessions on these replicas that others have admitted.
        decode_slots: sessions that the decode replicas hold together; None where they hold as many as there are.
        slots: sessions that may run at once, in real time or not: as many as every stage holds.
    """

    replicas: tuple[DenoiseReplica, ...]
    budget_s: float
    ceiling: int
    decode_sessions: int | None = None
    others: int = 0
    decode_slots: int | None = None
    slots: int = field(init=False)
    _known: dict[int, int] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        slots = min(self.ceiling, sum(replica.slots for replica in self.replicas))
        object.__setattr__(self, "slots", slots if self.decode_slots is None else min(slots, self.decode_slots))

    @property
    def measured(self) -> bool:
        """Whether every replica has a profile."""
        return all(replica.profile is not None for replica in self.replicas)

    def sessions(self, steps: int) -> int:
        """Sessions of `steps` steps in real time; at least 1, so that a slow machine serves somebody, late if it must be."""
        if steps not in self._known:
            denoise = sum(replica.sessions(steps, self.budget_s) for replica in self.replicas)
            decode = denoise if self.decode_sessions is None else self.decode_sessions
            self._known[steps] = max(1, min(self.slots, denoise, decode))
        return self._known[steps]

    def load(self, sessions: Mapping[int, int]) -> float:
        """Share of the capacity that `sessions`, numbers by step count, take; above 1 they are late. Mixtures are interpolated."""
        return sum([number / self.sessions(steps) for steps, number in sessions.items()])


def decode_capacity(chunk_decode_s: float | None, budget_s: float, replicas: int) -> int | None:
    """Sessions that `replicas` decoders hold, each decoding one chunk after another in `chunk_decode_s`; None where that is not known."""
    if not chunk_decode_s or chunk_decode_s <= 0:
        return None
    return math.floor(replicas * budget_s / chunk_decode_s + _ROUNDING)
