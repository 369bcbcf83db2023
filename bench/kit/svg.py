"""The two plots that reports need, as SVG to be put into a page. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, BAR, LABEL, RIGHT = 720, 22, 240, 90
HEIGHT, MARGIN = 260, 44
COLOURS = ("#555555", "#1f6feb", "#2da44e", "#bf8700", "#cf222e", "#8250df", "#0a7d8c", "#d4549a")
STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:1100px;padding:0 1rem}"
    "table{border-collapse:collapse;font-size:13px}td{border:1px solid #ccc;padding:.2rem .5rem}"
    "svg{display:block;margin:1.2rem 0}text{font:12px system-ui,sans-serif}"
)


def bars(title: str, values: Mapping[str, tuple[float, float, float]]) -> str:
    """A bar a name: median, with a whisker from the lowest to the highest."""
    most = max((high for _, _, high in values.values()), default=0.0) or 1.0
    scale = (WIDTH - LABEL - RIGHT) / most
    parts = [f'<text x="0" y="14" font-weight="bold">{escape(title)}</text>']
    for index, (name, (median, low, high)) in enumerate(values.items()):
        y = 24 + index * (BAR + 6)
        middle = y + BAR / 2
        parts += [
            f'<text x="{LABEL - 8}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{LABEL}" y="{y}" width="{max(0.0, median * scale):.1f}" height="{BAR}" fill="{COLOURS[index % len(COLOURS)]}"/>',
            f'<line x1="{LABEL + low * scale:.1f}" x2="{LABEL + high * scale:.1f}" y1="{middle}" y2="{middle}" stroke="black"/>',
            f'<text x="{LABEL + high * scale + 6:.1f}" y="{middle + 4}">{median:.4g}</text>',
        ]
    return _svg(30 + len(values) * (BAR + 6), parts)


def tails(title: str, samples: Mapping[str, Sequence[float]]) -> str:
    """For each name, the share of its samples that are longer than x, on a logarithmic scale: tails are what it is about."""
    longest = max((max(values) for values in samples.values() if values), default=1.0) or 1.0
    fewest = 1.0 / max((len(values) for values in samples.values()), default=10)
    across, down = WIDTH - MARGIN - 190, HEIGHT - 2 * MARGIN
    depth = max(1.0, -math.log10(fewest))
    parts = [f'<text x="0" y="14" font-weight="bold">{escape(title)}</text>']
    for decade in range(math.ceil(depth) + 1):
        y = MARGIN + down * min(1.0, decade / depth)
        parts.append(f'<line x1="{MARGIN}" x2="{MARGIN + across}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**-decade:g}</text>')
    for step in range(5):
        x = MARGIN + across * step / 4
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - MARGIN + 18}" text-anchor="middle">{longest * step / 4:.0f}</text>')
    for index, (name, values) in enumerate(samples.items()):
        colour, ordered = COLOURS[index % len(COLOURS)], sorted(values)
        points = [
            f"{MARGIN + across * value / longest:.1f},{MARGIN + down * min(1.0, -math.log10(1 - n / len(ordered)) / depth):.1f}"
            for n, value in enumerate(ordered)
        ]
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{" ".join(points)}"/>')
        parts.append(f'<text x="{MARGIN + across + 12}" y="{MARGIN + 16 * index + 4}" fill="{colour}">{escape(name)}</text>')
    return _svg(HEIGHT, parts)


def _svg(height: int, parts: Sequence[str]) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" role="img">{"".join(parts)}</svg>'
