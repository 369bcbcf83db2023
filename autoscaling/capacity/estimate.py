"""From what stage replicas report to a capacity.

A reading is the part of a report that capacity needs. Its counters only grow while a replica lives; one that begins anew has another name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from autoscaling.capacity.profile import Capacity, CapacityProfile, DenoiseReplica, blended, corrected, decode_capacity
from autoscaling.reports import ReplicaReport, ReportError

# A session that has just left is still counted by its replica for a moment: only what all these rounds agree on is taken for others'.
_ROUNDS = 3


# Tuples and plain numbers, because a large cluster makes thousands of them in each round.
class DenoiseReading(NamedTuple):
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
    profile: CapacityProfile | None = None
    busy_s: float = 0.0
    expected_s: float = 0.0

    @classmethod
    def of(cls, report: ReplicaReport) -> DenoiseReading:
        """Of a replica that denoises.

        Raises:
            ReportError: it does not report that.
        """
        if (d := report.denoiser) is None:
            raise ReportError("a denoise replica must report its denoiser; it does not")
        profile = CapacityProfile(d.profile.buckets, d.profile.step_s, d.profile.commit_s) if d.profile.buckets else None
        return cls(report.replica, d.sessions + d.free_slots, d.sessions + d.waiting, profile, d.busy_s, d.expected_s)


class DecodeReading(NamedTuple):
    """One decode replica: chunks decoded and seconds spent on them, since its start."""

    replica: float
    chunks: float = 0.0
    busy_s: float = 0.0

    @classmethod
    def of(cls, report: ReplicaReport) -> DecodeReading:
        """As `DenoiseReading.of`."""
        if report.decoder is None:
            raise ReportError("a decode replica must report its decoder; it does not")
        return cls(report.replica, report.decoder.chunks, report.decoder.busy_s)


class EnhanceReading(NamedTuple):
    """One enhance replica: chunks enhanced and seconds spent on them, since its start."""

    replica: float
    chunks: float = 0.0
    busy_s: float = 0.0

    @classmethod
    def of(cls, report: ReplicaReport) -> EnhanceReading:
        """As `DenoiseReading.of`."""
        if report.enhancer is None:
            raise ReportError("an enhance replica must report its enhancer; it does not")
        return cls(report.replica, report.enhancer.chunks, report.enhancer.busy_s)


class TextReading(NamedTuple):
    """One text replica: prompts that went through its model and seconds spent on them, since its start."""

    replica: float
    prompts: float = 0.0
    busy_s: float = 0.0

    @classmethod
    def of(cls, report: ReplicaReport) -> TextReading:
        """As `DenoiseReading.of`."""
        if report.text_encoder is None:
            raise ReportError("a text replica must report its text encoder; it does not")
        return cls(report.replica, report.text_encoder.misses, report.text_encoder.service_s)


@dataclass(frozen=True, slots=True)
class Measured:
    """What rounds of reports say of each stage. `correction` is of each denoise replica, the others are seconds for one chunk or prompt."""

    denoise: Mapping[float, DenoiseReading] = field(default_factory=dict)
    correction: Mapping[float, float] = field(default_factory=dict)
    decode: Mapping[float, DecodeReading] = field(default_factory=dict)
    text: Mapping[float, TextReading] = field(default_factory=dict)
    chunk_decode: float | None = None
    encode: float | None = None

    def observe(self, denoise: Sequence[DenoiseReading], decode: Sequence[DecodeReading], text: Sequence[TextReading] = ()) -> Measured:
        """With one more round. Of a stage without a report, what was known last stands."""
        return Measured(
            denoise={report.replica: report for report in denoise} if denoise else self.denoise,
            correction=self._corrections(denoise) if denoise else self.correction,
            decode={report.replica: report for report in decode} if decode else self.decode,
            text={report.replica: report for report in text} if text else self.text,
            chunk_decode=timed(self.chunk_decode, decode, self.decode),
            encode=timed(self.encode, text, self.text),
        )

    def _corrections(self, denoise: Sequence[DenoiseReading]) -> dict[float, float]:
        found: dict[float, float] = {}
        for name, _, _, _, busy_s, expected_s in denoise:
            if before := self.denoise.get(name):
                found[name] = corrected(self.correction[name], busy_s - before.busy_s, expected_s - before.expected_s)
            else:
                found[name] = corrected(1.0, busy_s, expected_s)
        return found


_Done = tuple[float, float, float]  # replica, how many, and seconds that took: a report of decoding or of encoding


def timed(average: float | None, reports: Sequence[_Done], earlier: Mapping[float, _Done]) -> float | None:
    """Seconds for one, after what `reports` have done since `earlier` ones."""
    for report in reports:
        name, count, seconds = report
        if before := earlier.get(name):
            count, seconds = count - before[1], seconds - before[2]
        if count > 0 and seconds > 0:
            sample = seconds / count
            average = blended(sample if average is None else average, sample, seconds)
    return average


class CapacityEstimator:
    """Folds rounds of reports into a capacity.

    Args:
        budget_s, ceiling: see `Capacity`.
        slots: of a denoise replica, until one reports.
        decode_slots: of each decode replica; None where decoding has no slots of its own.
    """

    def __init__(self, budget_s: float, ceiling: int, slots: int, decode_slots: int | None = None) -> None:
        self._budget_s = budget_s
        self._ceiling = ceiling
        self._decode_slots = decode_slots
        self._measured = Measured()
        self._others: deque[int] = deque(maxlen=_ROUNDS)
        self.capacity = Capacity((DenoiseReplica(slots),), budget_s, ceiling, decode_slots=decode_slots)

    def observe(self, denoise: Sequence[DenoiseReading], decode: Sequence[DecodeReading], mine: int) -> Capacity:
        """One round. `mine` of the sessions were admitted here. Without a denoise report the last capacity stands."""
        if not denoise:
            return self.capacity
        self._measured = self._measured.observe(denoise, decode)
        self._others.append(max(0, sum(report.sessions for report in denoise) - mine))
        correction, per_chunk = self._measured.correction, self._measured.chunk_decode
        self.capacity = Capacity(
            replicas=tuple(DenoiseReplica(r.slots, r.profile, correction[r.replica]) for r in denoise),
            budget_s=self._budget_s,
            ceiling=self._ceiling,
            decode_sessions=decode_capacity(per_chunk, self._budget_s, len(decode)) if decode else None,
            others=min(self._others) if len(self._others) == _ROUNDS else 0,
            # One that is away or asleep is expected back: nothing tells how many it was.
            decode_slots=None if self._decode_slots is None else self._decode_slots * max(1, len(decode)),
        )
        return self.capacity


def sessions_alone(measured: Measured, budget_s: float, steps: int, decode_slots: int = 0) -> int | None:
    """Sessions of `steps` steps that one replica, which alone reported, serves in real time; None where it has measured nothing yet.

    `decode_slots`: see `autoscaling.reports.Terms`.
    """
    counts = [
        DenoiseReplica(report.slots, report.profile, measured.correction[name]).sessions(steps, budget_s)
        for name, report in measured.denoise.items()
        if report.profile is not None
    ]
    if (decoded := decode_capacity(measured.chunk_decode, budget_s, len(measured.decode))) is not None:
        counts.append(min(decoded, decode_slots or decoded))
    return max(1, min(counts)) if counts else None
