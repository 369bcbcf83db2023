"""Outcomes as a table, as JSON, and as one page of HTML that needs nothing from elsewhere. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from autoscaling.simulator.outcome import Outcome, Timeline
from model_core.stage import Stage

# Two-sided 95 % quantiles of Student's t, by degrees of freedom; 1.96 beyond.
_T95 = (math.inf, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10, 2.09)
FIGURES = ("ttff_share", "on_time_share", "degraded_share", "killed", "refused", "abandoned", "node_hours", "cost")
_WIDTH, _HEIGHT, _LEFT, _TOP = 460, 150, 48, 22
_COLOURS = ("#1f6feb", "#bf8700", "#2da44e", "#cf222e", "#8250df")


@dataclass(frozen=True, slots=True)
class Mean:
    """Over seeds; `half` is half of the 95 % confidence interval, infinite for a single one."""

    value: float
    half: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.half:.2g}" if math.isfinite(self.half) else f"{self.value:.4g}"


def mean(values: Sequence[float]) -> Mean:
    """With Student's t."""
    n = len(values)
    middle = sum(values) / n
    if n < 2:
        return Mean(middle, math.inf)
    deviation = math.sqrt(sum((v - middle) ** 2 for v in values) / (n - 1))
    return Mean(middle, (_T95[n - 1] if n <= len(_T95) else 1.96) * deviation / math.sqrt(n))


def summary(outcomes: Sequence[Outcome]) -> dict[str, Mean]:
    """The figures of one policy on one workload, over its seeds; shares in percent, cost in millionths a second."""
    scale = {name: 100.0 for name in FIGURES if name.endswith("share")} | {"cost": 1e6}
    return {name: mean([scale.get(name, 1.0) * float(getattr(o, name)) for o in outcomes]) for name in FIGURES}


_HEADS = ("TTFF ok %", "on time %", "degraded %", "killed", "refused", "went away", "node-hours", "cost/good s ·1e6")


def table(rows: Mapping[str, Sequence[Outcome]]) -> str:
    """One line a policy."""
    width = max(len(name) for name in rows) + 2
    lines = [" " * width + "".join(f"{head:>20}" for head in _HEADS)]
    lines += [f"{name:<{width}}" + "".join(f"{m!s:>20}" for m in summary(outcomes).values()) for name, outcomes in rows.items()]
    return "\n".join(lines)


def as_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Means with intervals, and every run."""
    means = {name: {"mean": m.value, "half": m.half if math.isfinite(m.half) else None} for name, m in summary(outcomes).items()}
    return {"summary": means, "runs": [asdict(o) for o in outcomes]}


def plots(title: str, timelines: Mapping[str, Timeline]) -> str:
    """Sessions, replicas of each stage, nodes, TTFF and on-time share over time; a line a policy."""
    panels: list[tuple[str, dict[str, Sequence[float]]]] = [
        (label, {policy: t.values[name] for policy, t in timelines.items()})
        for label, name in (
            ("sessions", "live"),
            ("nodes", "nodes"),
            *((f"{s} replicas", str(s)) for s in Stage),
            ("brown-out level", "level"),
        )
    ]
    panels.append(("p99 of time to first frame, s", {policy: t.ttff_p99_s for policy, t in timelines.items()}))
    panels.append(("share of chunks on time", {policy: t.on_time for policy, t in timelines.items()}))
    every_s = next(iter(timelines.values())).every_s
    return f"<h2>{escape(title)}</h2><div>" + "".join(_panel(label, lines, every_s) for label, lines in panels) + "</div>"


def page(title: str, body: Sequence[str], text: str) -> str:
    """`text` is shown as it is."""
    style = "body{font:14px/1.45 system-ui,sans-serif;margin:2rem}pre{overflow-x:auto}svg{margin:.4rem}text{font:11px sans-serif}"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{style}</style>'
    return f"{head}<h1>{escape(title)}</h1><pre>{escape(text)}</pre>{''.join(body)}</html>\n"


def _panel(label: str, lines: Mapping[str, Sequence[float]], every_s: float) -> str:
    most = max((v for values in lines.values() for v in values), default=0.0) or 1.0
    longest = max((len(values) for values in lines.values()), default=1)
    across, down = _WIDTH - _LEFT - 8, _HEIGHT - _TOP - 20
    parts = [f'<text x="{_LEFT}" y="12" font-weight="bold">{escape(label)}</text>']
    for share in (0.0, 0.5, 1.0):
        y = _TOP + down * (1 - share)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - 8}" y1="{y:.0f}" y2="{y:.0f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 4}" y="{y + 4:.0f}" text-anchor="end">{most * share:.3g}</text>')
    for k, (policy, values) in enumerate(lines.items()):
        colour = _COLOURS[k % len(_COLOURS)]
        points = " ".join(
            f"{_LEFT + across * i / max(1, longest - 1):.1f},{_TOP + down * (1 - v / most):.1f}" for i, v in enumerate(values)
        )
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.3" points="{points}"/>')
        parts.append(f'<text x="{_LEFT + 130 + 84 * k}" y="12" fill="{colour}">{escape(policy)}</text>')
    parts.append(f'<text x="{_WIDTH - 8}" y="{_HEIGHT - 4}" text-anchor="end">{longest * every_s:.0f} s</text>')
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" role="img">{"".join(parts)}</svg>'
