from __future__ import annotations

from typing import Any

import pytest

from bench.costs.quick import losses
from bench.kit import framing, svg
from bench.peers import report


def turn(system: str, repeat: int, goodput: int, chunk_ms: float) -> dict[str, Any]:
    part = {
        "ttff_p50_ms": 60.0, "ttff_p99_ms": 80.0, "overhead_p50_ms": 9.0, "gap_p50_ms": 333.0, "gap_p99_ms": 400.0, "on_time_share": 1.0,
        "stall_share": 0.0, "failed": 0,
    }  # fmt: skip
    work = {"chunk_ms": chunk_ms, "cpu_ms": 2 * chunk_ms}
    return {
        "system": system, "repeat": repeat, "goodput": goodput, "first": part, "paced": part, "trace": part, "most": part, "alone": work,
        "crowd": work, "memory_mib": 900, "load_before": 0.5, "load_after": 0.7, "gaps_ms": [333.0, 340.0, 400.0 + repeat], "errors": [],
    }  # fmt: skip


def found() -> dict[str, Any]:
    names = {"floor": 8, "staged": 7, "bentoml": 9}
    return {
        "machine": {"cpu": "a CPU", "cores": 2, "memory_gib": 23, "torch": "2.13.0", "date": "2026-01-01"}, "replicas": 2, "minutes": 1.5,
        "systems": {name: {"title": f"<{name}>", "note": f"notes on {name}"} for name in names},
        "turns": [turn(name, repeat, held + repeat, 50.0 + 10 * (name == "staged")) for repeat in range(2) for name, held in names.items()],
    }  # fmt: skip


def test_a_cell_is_the_median_and_the_range() -> None:
    table = {row.title: (row, by_name) for row, by_name in report.cells(found())}
    row, goodput = table["sessions on time"]
    staged = goodput["staged"]
    assert staged is not None
    assert (staged.median, staged.low, staged.high) == (7.5, 7, 8)
    assert staged.show(row.digits) == "8 (7–8)"


def test_what_serving_costs_is_told_beside_the_floor_of_the_same_repeat() -> None:
    table = {row.title: by_name for row, by_name in report.cells(found())}
    over = table["over the floor, one job, %"]["staged"]
    assert over is not None
    assert over.median == pytest.approx(20.0)


def test_the_report_says_where_staging_loses_and_only_beyond_the_ranges() -> None:
    said = report.staging_loses(found())
    assert any(sentence.startswith("sessions on time: <bentoml>") for sentence in said)
    assert any(sentence.startswith("ms a chunk, one job: <bentoml>") for sentence in said)
    assert not any(sentence.startswith("first frame p50") for sentence in said)  # equal
    assert "<bentoml>" not in "".join(report.staging_loses({**found(), "systems": {"staged": {"title": "s", "note": ""}}, "turns": []}))


def test_the_report_is_written_into_a_document_again_and_again() -> None:
    made = report.markdown(found())
    document = f"before\n{report.START}\nold\n{report.END}\nafter\n"
    once = report.into(document, made)
    assert once == report.into(once, made)
    assert once.startswith("before\n")
    assert once.endswith("after\n")
    assert "old" not in once
    assert "| sessions on time |" in once
    with pytest.raises(ValueError, match="must hold"):
        report.into("no markers", made)


def test_the_page_stands_alone_and_escapes_names() -> None:
    page = report.html(found())
    assert "&lt;bentoml&gt;" in page
    assert "<bentoml>" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert page.count("<svg") == 6


def test_plots_of_nothing_are_plots() -> None:
    assert svg.bars("t", {}).startswith("<svg")
    assert svg.tails("t", {}).startswith("<svg")
    assert svg.tails("t", {"one": [1.0]}).count("polyline") == 1


def test_chunks_survive_their_frame_however_they_are_cut() -> None:
    packed = framing.pack(0, (b"abc", b"de"), 0.25) + framing.pack(8, (b"",), 0.0)
    for size in (1, 3, len(packed)):
        reader = framing.Reader()
        chunks = [chunk for start in range(0, len(packed), size) for chunk in reader.feed(packed[start : start + size])]
        assert chunks == [framing.Chunk(0, 2, 0.25, b"abcde"), framing.Chunk(8, 1, 0.0, b"")]


def test_only_a_clear_loss_fails_the_guard() -> None:
    baseline = {"staged.alone": 1.0}
    assert losses({"staged.alone": [1.0, 1.1, 5.0, 6.0]}, baseline) == []  # the better rounds were as before: something else was running
    assert "staged.alone: 1.500" in losses({"staged.alone": [1.5, 1.5, 1.6, 1.7]}, baseline)[0]
    assert "was not measured" in losses({}, baseline)[0]
    assert losses({"new": [9.0]}, baseline | {}) == ["staged.alone: the baseline has it, and it was not measured"]
