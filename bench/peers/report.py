"""Reports of `bench.peers.compare`: text, Markdown for the documentation, and one HTML file that needs nothing else. Pure.

python -m bench.peers.report bench/results/compare.json                              prints the Markdown
python -m bench.peers.report bench/results/compare.json --docs docs/performance.md   puts it between the markers of that file

Figures are medians over the repeats, with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from bench.kit import svg
from bench.kit.tally import quantile

Found = Mapping[str, Any]
Turn = Mapping[str, Any]

START, END = "<!-- compare: made by bench.peers.report -->", "<!-- compare: end -->"
FLOOR = "floor"
STAGED = "staged"
COLUMNS = 4  # systems in one table, so that no line of it is wider than WIDTH
WIDTH = 120


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: where it stands in a turn, and whether less is better."""

    title: str
    value: Callable[[Turn, Turn | None], float | None]
    digits: int = 0
    less_is_better: bool = True


def _over_floor(part: str) -> Callable[[Turn, Turn | None], float | None]:
    def value(turn: Turn, floor: Turn | None) -> float | None:
        return None if floor is None else 100 * (turn[part]["chunk_ms"] / floor[part]["chunk_ms"] - 1)

    return value


ROWS = (
    Row("sessions on time", lambda t, _: t["goodput"], less_is_better=False),
    Row("first frame p50, ms", lambda t, _: t["first"]["ttff_p50_ms"]),
    Row("first frame p99, ms", lambda t, _: t["first"]["ttff_p99_ms"]),
    Row("overhead of the first frame, ms", lambda t, _: t["first"]["overhead_p50_ms"], 1),
    Row("first frame under the trace p50, ms", lambda t, _: t["trace"]["ttff_p50_ms"]),
    Row("first frame under the trace p99, ms", lambda t, _: t["trace"]["ttff_p99_ms"]),
    Row("ms a chunk, one job", lambda t, _: t["alone"]["chunk_ms"], 1),
    Row("over the floor, one job, %", _over_floor("alone"), 1),
    Row("ms a chunk, eight jobs", lambda t, _: t["crowd"]["chunk_ms"], 1),
    Row("over the floor, eight jobs, %", _over_floor("crowd"), 1),
    Row("CPU ms a chunk, eight jobs", lambda t, _: t["crowd"]["cpu_ms"], 1),
    Row("chunk gap p99 / p50, one live session", lambda t, _: _ratio(t["paced"]["gap_p99_ms"], t["paced"]["gap_p50_ms"]), 2),
    Row(
        "chunk gap p99 / p50, at capacity",
        lambda t, _: _ratio(t["most"]["gap_p99_ms"], t["most"]["gap_p50_ms"]) if t["most"] else None,
        2,
    ),
    Row("chunk gap p50 under the trace, ms", lambda t, _: t["trace"]["gap_p50_ms"]),
    Row("chunk gap p99 under the trace, ms", lambda t, _: t["trace"]["gap_p99_ms"]),
    Row("on time under the trace, %", lambda t, _: 100 * t["trace"]["on_time_share"], 1, less_is_better=False),
    Row("stalled under the trace, %", lambda t, _: 100 * t["trace"]["stall_share"], 2),
    Row("calls failed", lambda t, _: t["first"]["failed"] + t["paced"]["failed"] + t["trace"]["failed"]),
    Row("memory, MiB", lambda t, _: t["memory_mib"]),
    Row("load average before", lambda t, _: t["load_before"], 1),
)

PLOTTED = ("sessions on time", "first frame p50, ms", "ms a chunk, one job", "ms a chunk, eight jobs", "CPU ms a chunk, eight jobs")


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure over the repeats."""

    median: float
    low: float
    high: float

    def show(self, digits: int) -> str:
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}–{self.high:.{digits}f})"


def cells(found: Found) -> list[tuple[Row, dict[str, Cell | None]]]:
    """The table: for every row, each system's median and range."""
    floors = {turn["repeat"]: turn for turn in found["turns"] if turn["system"] == FLOOR}
    table = []
    for row in ROWS:
        values: dict[str, list[float]] = {name: [] for name in found["systems"]}
        for turn in found["turns"]:
            value = row.value(turn, floors.get(turn["repeat"]))
            if value is not None:
                values[turn["system"]].append(value)
        table.append((row, {n: Cell(statistics.median(v), min(v), max(v)) if v else None for n, v in values.items()}))
    return table


def pooled_gaps(found: Found) -> dict[str, list[float]]:
    """Every gap of a live session, over all repeats, in milliseconds."""
    return {name: [gap for turn in found["turns"] if turn["system"] == name for gap in turn["gaps_ms"]] for name in found["systems"]}


def staging_loses(found: Found) -> list[str]:
    """Sentences: where another server is better than the staged one beyond the ranges of both."""
    said = []
    for row, line_cells in cells(found):
        ours = line_cells.get(STAGED)
        if ours is None or row.title == ROWS[-1].title:
            continue
        for name, other in line_cells.items():
            if other is None or name in {STAGED, FLOOR}:
                continue
            if other.high < ours.low if row.less_is_better else other.low > ours.high:
                title = found["systems"][name]["title"]
                said.append(f"{row.title}: {title} {other.show(row.digits)}, staged {ours.show(row.digits)}")
    return said


def line(turn: Turn) -> str:
    """One turn, while it happens."""
    first, alone, crowd = turn["first"]["ttff_p50_ms"], turn["alone"]["chunk_ms"], turn["crowd"]["chunk_ms"]
    return (
        f"{turn['system']:9} holds {turn['goodput']:3d}  first {first:6.1f} ms  one job {alone:6.1f}  eight jobs {crowd:6.1f} ms a chunk"
        f"  load {turn['load_before']:.1f}  {'; '.join(turn['errors'])[:120]}"
    )


def markdown(found: Found) -> str:
    """Table, notes, and where staging loses."""
    names = list(found["systems"])
    lines = _setting(found)
    for first in range(0, len(names), COLUMNS):
        lines += ["", *_table(found, names[first : first + COLUMNS])]
    lines.append("")
    for system in found["systems"].values():
        lines += textwrap.wrap(f"- {system['title']}: {system['note']}.", WIDTH, subsequent_indent="  ")
    lost = staging_loses(found)
    if lost:
        lines += ["", "Another system is better than staged Headrace, beyond both ranges, in:", "", *(f"- {sentence}" for sentence in lost)]
    else:
        lines += ["", "No other system is better than staged Headrace beyond both ranges."]
    return "\n".join(lines)


def _table(found: Found, names: Sequence[str]) -> list[str]:
    lines = ["| | " + " | ".join(found["systems"][n]["title"] for n in names) + " |", "|---|" + "---|" * len(names)]
    for row, by_name in cells(found):
        shown = [cell.show(row.digits) if (cell := by_name[n]) is not None else "" for n in names]
        lines.append(f"| {row.title} | " + " | ".join(shown) + " |")
    gaps = pooled_gaps(found)
    tails = [f"{quantile(gaps[n], 0.999):.0f} ({len(gaps[n])})" for n in names]
    return [*lines, "| chunk gap p99.9, all repeats, ms (gaps) | " + " | ".join(tails) + " |"]


def text(found: Found) -> str:
    """The same for a terminal."""
    names = list(found["systems"])
    rows = [("", *names)]
    rows += [(row.title, *(c.show(row.digits) if (c := by_name[n]) else "" for n in names)) for row, by_name in cells(found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lost = staging_loses(found)
    return "\n".join([*lines, "", "where staging loses beyond the ranges:", *(f"  {s}" for s in lost or ["nowhere"])])


def html(found: Found) -> str:
    """One self-contained page: the table, goodput, chunk times, and the distribution of gaps."""
    titles = {name: system["title"] for name, system in found["systems"].items()}
    table = {row.title: by_name for row, by_name in cells(found)}
    bars = [svg.bars(title, {titles[n]: (c.median, c.low, c.high) for n, c in table[title].items() if c is not None}) for title in PLOTTED]
    gaps = {titles[n]: values for n, values in pooled_gaps(found).items() if values}
    body = "".join(f"<p>{escape(p)}</p>" if not p.startswith("|") else _html_table(p) for p in markdown(found).split("\n\n"))
    plots = "".join([*bars, svg.tails("share of chunk gaps longer than, ms", gaps)])
    title = "Headrace beside its peers"
    return f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{svg.STYLE}</style><h1>{title}</h1>{body}{plots}"


def _html_table(markdown_table: str) -> str:
    rows = [
        [escape(cell.strip()) for cell in row.strip("|").split("|")] for row in markdown_table.splitlines() if not row.startswith("|---")
    ]
    return "<table>" + "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows) + "</table>"


def into(document: str, made: str) -> str:
    """`document` with `made` between its markers.

    Raises:
        ValueError: it has none.
    """
    before, start, rest = document.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"the document must hold {START!r} and then {END!r}")
    return f"{before}{START}\n{made}\n{END}{after}"


def _ratio(above: float, below: float) -> float | None:
    return above / below if below else None


def _setting(found: Found) -> list[str]:
    m, replicas = found["machine"], found["replicas"]
    return [
        f"{m['cpu']}, {m['cores']} cores, {m['memory_gib']} GiB, torch {m['torch']}, {m['date']}.",
        f"{_repeats(found)} repeats in {found['minutes']:g} minutes; {replicas} replicas of each monolith and of fused Headrace.",
        "A cell shows the median, and the lowest and the highest value in parentheses.",
    ]


def _repeats(found: Found) -> int:
    return 1 + max((turn["repeat"] for turn in found["turns"]), default=-1)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--docs", type=Path)
    a = parser.parse_args(arguments)
    made = markdown(json.loads(a.results.read_text()))
    if a.docs:
        a.docs.write_text(into(a.docs.read_text(), made))
    else:
        print(made)


if __name__ == "__main__":
    main()
