"""What an operator wants at a glance, out of two readings of every process's metrics. Pure: who read them, and how, it does not know."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from observability import catalogue as c
from observability.catalogue import Metric, Process

Labels = tuple[tuple[str, str], ...]
Buckets = list[tuple[float, float]]

# The device seconds of each stage's replicas.
_BUSY = {
    Process.TEXT_ENCODER: c.ENCODER_BUSY,
    Process.DENOISER: c.DENOISER_BUSY,
    Process.DECODER: c.DECODER_BUSY,
    Process.ENHANCER: c.ENHANCER_BUSY,
}
_STAGE_OF = {Process.TEXT_ENCODER: "text_encoder", Process.DENOISER: "denoiser", Process.DECODER: "decoder", Process.ENHANCER: "enhancer"}


@dataclass(frozen=True, slots=True)
class Reading:
    """All metrics at one moment, in seconds of any clock.

    Attributes:
        series: value by replica's address, name and labels.
        processes: what each address is: a deployment, or the controller.
        unreadable: addresses that are known and did not answer.
    """

    at: float
    series: Mapping[tuple[str, str, Labels], float]
    processes: Mapping[str, str]
    unreadable: int = 0


def reading(at: float, pages: Mapping[str, tuple[str, str | None]]) -> Reading:
    """Out of the text that each address served; None for one that did not."""
    series: dict[tuple[str, str, Labels], float] = {}
    for address, (_, text) in pages.items():
        for family in text_string_to_metric_families(text or ""):
            for sample in family.samples:
                series[address, sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    processes = {address: process for address, (process, text) in pages.items() if text is not None}
    return Reading(at, series, processes, len(pages) - len(processes))


@dataclass(frozen=True, slots=True)
class StageRow:
    """One deployment: its replicas; and since the earlier reading how busy one of them was, and the medians of a chunk, or a prompt."""

    deployment: str
    replicas: int
    busy: float
    wait_p50_s: float
    work_p50_s: float


@dataclass(frozen=True, slots=True)
class View:
    """Numbers now; those of frames, first frames and chunks are of the time since the earlier reading. NaN where nothing happened.

    Attributes:
        span_s: that time.
        live, waiting, degraded, capacity: sessions.
        level: of brown-out, the highest of any front door.
        slots_used, slots: of the session cache.
        frames_per_s: sent, over all sessions.
        first_frames: sessions that showed their first.
        late, chunks: of paced sessions.
        unreadable: processes that are known and did not answer.
    """

    span_s: float
    live: int
    waiting: int
    degraded: int
    capacity: int
    level: int
    slots_used: int
    slots: int
    frames_per_s: float
    first_frames: int
    ttff_p50_s: float
    ttff_p99_s: float
    late: int
    chunks: int
    stages: tuple[StageRow, ...]
    unreadable: int


def view(before: Reading, now: Reading) -> View:
    """`before` is an earlier reading of the same cluster. What came since counts from zero, and so does what was started anew."""
    span_s = now.at - before.at
    ttff = _grown_buckets(c.TTFF, before, now)
    lateness = _grown_buckets(c.LATENESS, before, now)
    chunks = lateness[-1][1] if lateness else 0.0
    on_time = next((count for edge, count in lateness if edge >= c.LATENESS_OBJECTIVE_S), 0.0)
    used, free = (_sum(c.CACHE_SLOTS, now, state=state) for state in ("used", "free"))
    return View(
        span_s=span_s,
        live=round(_sum(c.SESSIONS_LIVE, now)),
        waiting=round(_sum(c.SESSIONS_WAITING, now)),
        degraded=round(_sum(c.SESSIONS_DEGRADED, now)),
        capacity=round(_sum(c.CAPACITY, now)),
        level=round(max((value for (_, name, _), value in now.series.items() if name == c.BROWNOUT.full), default=0.0)),
        slots_used=round(used),
        slots=round(used + free),
        frames_per_s=_grown(c.FRAMES.full, before, now) / span_s,
        first_frames=round(ttff[-1][1]) if ttff else 0,
        ttff_p50_s=quantile(ttff, 0.5),
        ttff_p99_s=quantile(ttff, 0.99),
        late=round(chunks - on_time),
        chunks=round(chunks),
        stages=tuple(_stage(process, before, now, span_s) for process in _rows(now)),
        unreadable=now.unreadable,
    )


def quantile(buckets: Buckets, q: float) -> float:
    """As `histogram_quantile` of Prometheus does it: a straight line within a bucket. NaN for no events.

    Args:
        buckets: upper edge and the count up to it, in order; the last edge is infinite.
        q: from 0 to 1.
    """
    if not buckets or buckets[-1][1] <= 0:
        return math.nan
    rank, below, start = q * buckets[-1][1], 0.0, 0.0
    for edge, count in buckets:
        if count >= rank and count > below:
            return start if math.isinf(edge) else start + (edge - start) * max(0.0, rank - below) / (count - below)
        below, start = count, edge
    return start


def _rows(now: Reading) -> Iterator[Process]:
    """An enhancer is no part of most applications."""
    for process in (*_BUSY, Process.FRONT_DOOR):
        if process is not Process.ENHANCER or process in now.processes.values():
            yield process


def _stage(process: Process, before: Reading, now: Reading, span_s: float) -> StageRow:
    replicas = sum(each == process for each in now.processes.values())
    busy_s = _grown(_BUSY[process].full, before, now) if process in _BUSY else math.nan
    wait, work = (
        quantile(_grown_buckets(metric, before, now, stage=_STAGE_OF.get(process, "")), 0.5) for metric in (c.STAGE_QUEUE, c.STAGE_SERVICE)
    )
    return StageRow(process, replicas, busy_s / span_s / replicas if replicas else math.nan, wait, work)


def _sum(metric: Metric, now: Reading, **labels: str) -> float:
    return sum(value for (_, name, has), value in now.series.items() if name == metric.full and labels.items() <= dict(has).items())


def _grown(full: str, before: Reading, now: Reading) -> float:
    return sum(value - _start(key, value, before) for key, value in now.series.items() if key[1] == full)


def _grown_buckets(metric: Metric, before: Reading, now: Reading, **labels: str) -> Buckets:
    found: defaultdict[float, float] = defaultdict(float)
    for key, value in now.series.items():
        has = dict(key[2])
        if key[1] == f"{metric.full}_bucket" and labels.items() <= has.items():
            found[float(has["le"])] += value - _start(key, value, before)
    return sorted(found.items())


def _start(key: tuple[str, str, Labels], value: float, before: Reading) -> float:
    """What the counter had; 0 for one that is new, or was started anew."""
    had = before.series.get(key, 0.0)
    return had if had <= value else 0.0


def busiest(stages: Sequence[StageRow]) -> str:
    """The deployment whose replicas have least to spare; empty where none did anything."""
    working = [stage for stage in stages if stage.busy > 0]
    return max(working, key=lambda stage: stage.busy).deployment if working else ""
