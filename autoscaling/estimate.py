"""From what stage replicas report of themselves to a capacity.

Counters only grow while a replica lives; one that begins anew has another name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoscaling.profile import Average, Capacity, DenoiseReplica, StepProfile, corrected, decode_capacity

# A session that has just left is still counted by its replica for a moment: only what all these rounds agree on is taken for others'.
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class DenoiseReport:
    """One denoise replica.

    Attributes:
        replica: tells it from others.
        slots: sessions that it holds at most.
        sessions: that it holds or that wait for it, whoever admitted them.
        profile: None if it measures none.
        busy_s, expected_s: device seconds since its start, and what they should have been by its profile.
    """

    replica: float
    slots: int
    sessions: int = 0
    profile: StepProfile | None = None
    busy_s: float = 0.0
    expected_s: float = 0.0


@dataclass(frozen=True, slots=True)
class DecodeReport:
    """One decode replica: chunks decoded and seconds spent on them, since its start."""

    replica: float
    chunks: float = 0.0
    busy_s: float = 0.0


class CapacityEstimator:
    """Folds rounds of reports.

    Args:
        budget_s, ceiling: see `Capacity`.
        slots: of a denoise replica, until one reports.
    """

    def __init__(self, budget_s: float, ceiling: int, slots: int) -> None:
        self._budget_s = budget_s
        self._ceiling = ceiling
        self._denoise: dict[float, DenoiseReport] = {}
        self._corrections: dict[float, Average] = {}
        self._decode: dict[float, DecodeReport] = {}
        self._chunk_decode: Average | None = None
        self._others: deque[int] = deque(maxlen=_ROUNDS)
        self.capacity = Capacity((DenoiseReplica(slots),), budget_s, ceiling)

    def observe(self, denoise: Sequence[DenoiseReport], decode: Sequence[DecodeReport], mine: int) -> Capacity:
        """One round. `mine` of the sessions were admitted here. Without a denoise report the last capacity stands."""
        if not denoise:
            return self.capacity
        self._corrections = {report.replica: self._corrected(report) for report in denoise}
        self._denoise = {report.replica: report for report in denoise}
        for report in decode:
            self._time_decode(report)
        self._decode = {report.replica: report for report in decode}
        self._others.append(max(0, sum(report.sessions for report in denoise) - mine))
        per_chunk = None if self._chunk_decode is None else self._chunk_decode.value
        self.capacity = Capacity(
            replicas=tuple(DenoiseReplica(r.slots, r.profile, self._corrections[r.replica].value) for r in denoise),
            budget_s=self._budget_s,
            ceiling=self._ceiling,
            decode_sessions=decode_capacity(per_chunk, self._budget_s, len(decode)) if decode else None,
            others=min(self._others) if len(self._others) == _ROUNDS else 0,
        )
        return self.capacity

    def _corrected(self, report: DenoiseReport) -> Average:
        before = self._denoise.get(report.replica, DenoiseReport(report.replica, report.slots))
        correction = self._corrections.get(report.replica, Average(1.0))
        return corrected(correction, report.busy_s - before.busy_s, report.expected_s - before.expected_s)

    def _time_decode(self, report: DecodeReport) -> None:
        before = self._decode.get(report.replica, DecodeReport(report.replica))
        chunks, busy_s = report.chunks - before.chunks, report.busy_s - before.busy_s
        if chunks > 0 and busy_s > 0:
            self._chunk_decode = (self._chunk_decode or Average(busy_s / chunks)).observe(busy_s / chunks, busy_s)


def denoise_report(numbers: Mapping[str, float], slots: int) -> DenoiseReport:
    """From the flat numbers that a replica exports; what it does not export is taken for unknown, its slots for `slots`."""

    def number(name: str) -> float:
        return numbers.get(f"denoiser_{name}", 0.0)

    if "denoiser_free_slots" in numbers:
        slots = int(number("sessions") + number("free_slots"))
    return DenoiseReport(
        replica=numbers.get("replica", 0.0), slots=slots, sessions=int(number("sessions") + number("waiting")), profile=_profile(numbers),
        busy_s=number("busy_s"), expected_s=number("expected_s"),
    )  # fmt: skip


def decode_report(numbers: Mapping[str, float]) -> DecodeReport:
    """As `denoise_report`."""
    return DecodeReport(numbers.get("replica", 0.0), numbers.get("decoder_chunks", 0.0), numbers.get("decoder_busy_s", 0.0))


def _profile(numbers: Mapping[str, float]) -> StepProfile | None:
    def table(name: str) -> tuple[float, ...]:
        values: list[float] = []
        while (value := numbers.get(f"denoiser_{name}_{len(values)}")) is not None:
            values.append(value)
        return tuple(values)

    buckets = table("profile_buckets")
    return StepProfile(tuple(map(int, buckets)), table("profile_step_s"), table("profile_commit_s")) if buckets else None
