"""Where each millisecond of a first frame went, out of the spans of one call. Pure; reads the lines that `tracing`'s file exporter writes.

Each part is what its own process measured, or lies between two moments that the front door saw. Nothing makes them sum to the time to first
frame, which the front door measured apart: what is missing is shown as such.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from observability.session_trace import CHUNK, DECODE, DENOISE, ENCODE, QUEUE, SEND, SERVICE, SESSION, STARTED, STEP, TRANSFER, TTFF, WAIT

_BAR = 40


@dataclass(frozen=True, slots=True)
class Span:
    """Moments in seconds since the epoch; `parent` is empty for a call without a caller's context."""

    trace_id: str
    span_id: str
    parent: str
    name: str
    start: float
    end: float
    attributes: Mapping[str, Any]
    events: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """One call: its own span, and those below it in order of their start."""

    root: Span
    spans: tuple[Span, ...]

    @property
    def session_id(self) -> str:
        return str(self.root.attributes.get(SESSION, ""))

    def find(self, name: str, chunk: int | None = None) -> Span | None:
        """The first of these."""
        return next((s for s in self.spans if s.name == name and chunk in (None, s.attributes.get(CHUNK))), None)


@dataclass(frozen=True, slots=True)
class Part:
    """`seconds` that went into `what`, `where`; `at` seconds after the time began to count."""

    where: str
    what: str
    at: float
    seconds: float


@dataclass(frozen=True, slots=True)
class FirstFrame:
    """`ttff_s` as the front door measured it, its parts in order, and when the steps of the first chunk were done."""

    ttff_s: float
    parts: tuple[Part, ...]
    steps: tuple[float, ...]

    @property
    def missing_s(self) -> float:
        """What no part accounts for; negative where parts overlap."""
        return self.ttff_s - sum(part.seconds for part in self.parts)


def read(lines: Iterable[str]) -> list[Trace]:
    """Calls that are over, in the order of their ends. Lines that are no spans are passed over: a writer may have died in mid-line."""
    below: dict[str, list[Span]] = {}
    roots: list[Span] = []
    for line in lines:
        try:
            raw = json.loads(line)
            span = _span(raw)
        except (ValueError, KeyError, TypeError):
            continue
        if raw["kind"] == "SpanKind.SERVER":
            roots.append(span)
        else:
            below.setdefault(span.parent, []).append(span)
    return [Trace(root, tuple(sorted(below.get(root.span_id, ()), key=lambda span: span.start))) for root in roots]


def first_frame(trace: Trace) -> FirstFrame | None:
    """None for a call that sent no first frame of a new session."""
    send = trace.find(SEND)
    ttff_s = trace.root.attributes.get(TTFF)
    started = next((at for name, at in trace.root.events if name == STARTED), None)
    if send is None or ttff_s is None or started is None:
        return None
    chunk = send.attributes[CHUNK]
    encode, denoise, decode = trace.find(ENCODE), trace.find(DENOISE, chunk), trace.find(DECODE, chunk)
    if denoise is None or decode is None:
        return None
    began = send.end - ttff_s
    parts: list[Part] = []

    def part(where: str, what: str, start: float, seconds: float) -> float:
        parts.append(Part(where, what, start - began, seconds))
        return start + seconds

    if trace.find(WAIT) is None and encode is not None:
        part("front door", "checks, admission", began, encode.start - began)
        cursor = part("text encoder", "there and back", encode.start, encode.attributes[TRANSFER])
        cursor = part("text encoder", "waits", cursor, encode.attributes[QUEUE])
        part("text encoder", "works", cursor, encode.attributes[SERVICE])
        part("front door", "opens the session", encode.end, started - encode.end)
    else:
        part("front door", "opens the session", began, started - began)
    part("stages", "open their streams", started, denoise.start - started)
    for where, span in (("denoiser", denoise), ("decoder", decode)):
        cursor = part(where, "waits", span.start, span.attributes[QUEUE])
        cursor = part(where, "works", cursor, span.attributes[SERVICE])
        part(where, "on its way from there", cursor, span.attributes[TRANSFER])
    part("front door", "sends", send.start, send.end - send.start)
    return FirstFrame(ttff_s, tuple(parts), tuple(at - began for name, at in denoise.events if name == STEP))


def table(found: FirstFrame) -> list[str]:
    """Lines of text: where, what, milliseconds, and a bar at its place in time."""
    lines = [f"{'where':14}{'what':24}{'ms':>8}  0 ms{f'{1000 * found.ttff_s:.1f} ms':>{_BAR - 4}}"]
    for part in found.parts:
        lines.append(f"{part.where:14}{part.what:24}{1000 * part.seconds:8.2f}  {_bar(part, found.ttff_s)}")
        if (part.where, part.what) == ("denoiser", "works"):
            lines += _steps(found)
    lines.append(f"{'sum':38}{1000 * (found.ttff_s - found.missing_s):8.2f}")
    lines.append(f"{'measured':38}{1000 * found.ttff_s:8.2f}  time to first frame, by the front door's clock")
    lines.append(f"{'missing':38}{1000 * found.missing_s:8.2f}  {100 * found.missing_s / found.ttff_s:.2f} %")
    return lines


def _steps(found: FirstFrame) -> list[str]:
    """Each since the one before, or since the chunk could be worked on: waits lie between steps where sessions share the device."""
    done = found.steps
    before = (*(part.at for part in found.parts if (part.where, part.what) == ("denoiser", "waits")), *done)
    return [f"{'':14}  step {n:<17}{1000 * (after - at):8.2f}" for n, (at, after) in enumerate(zip(before, done, strict=False), start=1)]


def _bar(part: Part, whole: float) -> str:
    """At least a thin mark for what is too short to be seen."""
    first = min(_BAR - 1, max(0, int(_BAR * part.at / whole)))
    last = min(_BAR, round(_BAR * (part.at + part.seconds) / whole))
    return (" " * first + ("█" * (last - first) or "▏")).rstrip()


def _span(raw: Mapping[str, Any]) -> Span:
    parent = raw["parent_id"] or ""
    events = tuple((event["name"], _moment(event["timestamp"])) for event in raw["events"])
    context = raw["context"]
    start, end = _moment(raw["start_time"]), _moment(raw["end_time"])
    return Span(
        trace_id=context["trace_id"].removeprefix("0x"),
        span_id=context["span_id"],
        parent=parent,
        name=raw["name"],
        start=start,
        end=end,
        attributes=raw["attributes"],
        events=events,
    )


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
