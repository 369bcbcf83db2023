"""Figures over what callers met. Pure.

due        when a chunk's first frame must be there: on a screen that began to play at the first frame's arrival, or, with a start-up
           allowance, so long after the intended send time, whether anything has come or not
stall      the screen stands still until a late chunk comes, and everything after it is due so much later
overhead   time to first frame less what the stages took on their devices
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.kit.load import Heard

ON_TIME = 0.99  # of a session's chunks: then it is held


def quantile(values: Iterable[float], q: float) -> float:
    """Nearest-rank quantile; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else 0.0


def lateness(heard: Heard, fps: float, start_s: float | None = None) -> list[float]:
    """How late each chunk was, in seconds; negative is early. `start_s` is the start-up allowance."""
    if not heard.chunks:
        return []
    first = heard.chunks[0]
    origin = first.at_s - first.first_frame / fps if start_s is None else start_s
    return [chunk.at_s - (origin + chunk.first_frame / fps) for chunk in heard.chunks]


def stall_s(heard: Heard, fps: float) -> float:
    """Seconds for which the screen stood still after the first frame."""
    late = lateness(heard, fps)
    return max(0.0, *late) if late else 0.0


def gaps(heard: Heard) -> list[float]:
    """Seconds between neighbouring chunks."""
    return [after.at_s - before.at_s for before, after in itertools.pairwise(heard.chunks)]


def held(heard: Heard, fps: float, start_s: float | None = None) -> bool:
    """Whether it was served as promised: completed, and nearly all its chunks on time. What did not come is late."""
    expected = max(1, round(heard.arrival.seconds * fps))
    got = sum(chunk.frames for chunk in heard.chunks)
    punctual = sum(late <= 0 for late in lateness(heard, fps, start_s))
    return heard.result == "completed" and got >= expected and punctual >= ON_TIME * len(heard.chunks)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run; `held` counts sessions. Milliseconds are rounded to hundredths."""

    sessions: int
    held: int
    failed: int
    chunks: int
    on_time_share: float
    ttff_p50_ms: float
    ttff_p99_ms: float
    gap_p50_ms: float
    gap_p99_ms: float
    gap_p999_ms: float
    max_late_ms: float
    stall_share: float
    overhead_p50_ms: float
    behind_ms: float


def figures(runs: Sequence[Heard], fps: float, start_s: float | None = None) -> Figures:
    """Over all sessions of a run; what did not come is late. Without an allowance `start_s`, playback begins with the first frame."""
    first = [heard.chunks[0] for heard in runs if heard.chunks]
    ttff = [chunk.at_s for chunk in first]
    pauses = [gap for heard in runs for gap in gaps(heard)]
    late = [value for heard in runs for value in lateness(heard, fps, start_s)]
    frames_expected = sum(max(1, round(heard.arrival.seconds * fps)) for heard in runs)
    frames_on_time = sum(
        chunk.frames for heard in runs for chunk, value in zip(heard.chunks, lateness(heard, fps, start_s), strict=True) if value <= 0
    )
    stalled = sum(stall_s(heard, fps) for heard in runs)
    played = sum(chunk.frames for heard in runs for chunk in heard.chunks) / fps
    return Figures(
        sessions=len(runs), held=sum(held(heard, fps, start_s) for heard in runs),
        failed=sum(heard.result != "completed" for heard in runs), chunks=len(late),
        on_time_share=round(frames_on_time / max(1, frames_expected), 5),
        ttff_p50_ms=_ms(quantile(ttff, 0.5)), ttff_p99_ms=_ms(quantile(ttff, 0.99)),
        gap_p50_ms=_ms(quantile(pauses, 0.5)), gap_p99_ms=_ms(quantile(pauses, 0.99)), gap_p999_ms=_ms(quantile(pauses, 0.999)),
        max_late_ms=_ms(max(0.0, *late)) if late else 0.0, stall_share=round(stalled / max(1e-9, stalled + played), 5),
        overhead_p50_ms=_ms(quantile([chunk.at_s - chunk.compute_s for chunk in first], 0.5)),
        behind_ms=_ms(max((heard.behind_s for heard in runs), default=0.0)),
    )  # fmt: skip


def chunk_ms(runs: Sequence[Heard]) -> float:
    """Milliseconds a chunk: from the first call to the last arrival, over all chunks of all sessions."""
    count = sum(len(heard.chunks) for heard in runs)
    ended = max((heard.intended + heard.chunks[-1].at_s for heard in runs if heard.chunks), default=0.0)
    return _ms((ended - min(heard.intended for heard in runs)) / count) if count else 0.0


def next_count(tried: Mapping[int, bool], start: int, most: int) -> int | None:
    """How many sessions to try next, to find the most that are held; None when that is known. `tried` says which numbers were held."""
    good = max((count for count, ok in tried.items() if ok), default=0)
    bad = min((count for count, ok in tried.items() if not ok), default=most + 1)
    if not tried:
        return max(1, min(start, most))
    if bad - good <= 1:
        return None
    return min(most, max(good + 1, good * 3 // 2)) if bad > most else (good + bad) // 2


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 2)
