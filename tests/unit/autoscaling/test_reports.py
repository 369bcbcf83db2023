"""Reports come out of their flat numbers as they went in, whichever version made them, and no other module spells a number's name."""

from __future__ import annotations

import ast
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaling.reports import (
    ControlStatistics,
    FrontDoorReport,
    LinkStatistics,
    ProcessStatistics,
    ReplicaReport,
    ReportError,
    Terms,
    ViewerTotals,
    flatten,
    parse,
)
from model_core.statistics import DecoderStatistics, DenoiserStatistics, EnhancerStatistics, ForwardProfile, TextEncoderStatistics

KINDS = (
    ReplicaReport, FrontDoorReport, TextEncoderStatistics, DenoiserStatistics, DecoderStatistics, EnhancerStatistics, ForwardProfile,
    LinkStatistics, ProcessStatistics, ViewerTotals, Terms, ControlStatistics,
)  # fmt: skip
ROOT = Path(__file__).parents[3]

st.register_type_strategy(float, st.floats(allow_nan=False))
st.register_type_strategy(int, st.integers(-(2**53), 2**53))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_a_report_comes_out_of_its_numbers_as_it_went_in(kind: type[Any], data: st.DataObject) -> None:
    report = data.draw(st.from_type(kind))
    numbers = flatten(report)
    assert all(type(value) is float for value in numbers.values())
    read = parse(kind, numbers)
    assert read == (report if numbers else None)
    assert parse(kind, numbers | {"of_a_later_version": 1.0}) == read


REPLICA = ReplicaReport(
    7.0,
    TextEncoderStatistics(1, 2, 3, 4, 5, 0.5),
    DenoiserStatistics(3, 1, 12, 0, 9, 8, 7, 1.5, 1.25, ForwardProfile((1, 2), (0.1, 0.2), (0.3, 0.4))),
    DecoderStatistics(3, 7, 0.25),
    LinkStatistics(1, 2, 3, 4),
    ProcessStatistics(5, 6, 7, 8),
    EnhancerStatistics(2, 6, 0.75),
)
DOOR = FrontDoorReport(
    ControlStatistics(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),
    ViewerTotals(1, 2, 3, 4, 5),
    Terms(0.5, 4, 0.8, (3, 2), 6, 8),
    12,
    ProcessStatistics(5, 6, 7, 8),
    3,
)


STAGE_NAMES = """
replica
text_encoder: hits joined misses cached in_flight service_s footage_hits footage_misses footage_service_s
denoiser: sessions waiting free_slots undelivered steps rows chunks busy_s expected_s
denoiser_profile: buckets_0 buckets_1 step_s_0 step_s_1 commit_s_0 commit_s_1
decoder: sessions chunks busy_s
enhancer: sessions chunks busy_s
link: open opened sent credit
process: pid tasks files resident_bytes
"""
DOOR_NAMES = """
front_door: live degraded waiting level capacity live_jobs waiting_jobs arrivals departures paused aside
front_door: prompts chunks late_chunks first_frames late_first_frames open enhanced
terms: chunk_s steps utilisation tiers_0 tiers_1 decode_slots enhance_slots
process: pid tasks files resident_bytes
"""


@pytest.mark.parametrize(("report", "names"), [(REPLICA, STAGE_NAMES), (DOOR, DOOR_NAMES)], ids=["replica", "front door"])
def test_the_names_of_numbers_stand(report: Any, names: str) -> None:
    """Replicas of two versions run side by side: one that is renamed or removed cannot be read by the other version."""
    expected = set()
    for line in names.split("\n"):
        section, _, fields = line.rpartition(": ")
        expected |= {f"{section}_{name}".removeprefix("_") for name in fields.split()}
    assert set(flatten(report)) == expected


def test_a_number_keeps_its_value_under_its_name() -> None:
    numbers = flatten(REPLICA)
    assert (numbers["replica"], numbers["denoiser_busy_s"], numbers["denoiser_profile_step_s_1"]) == (7.0, 1.5, 0.2)
    assert flatten(DOOR)["front_door_late_chunks"] == 3.0


@pytest.mark.parametrize("report", [REPLICA, DOOR], ids=["replica", "front door"])
def test_no_two_fields_share_a_name(report: Any) -> None:
    def leaves(value: Any) -> int:
        if isinstance(value, int | float):
            return 1
        parts = value if isinstance(value, tuple) else [getattr(value, name) for name in value.__slots__]
        return sum(map(leaves, parts))

    assert len(flatten(report)) == leaves(report)


def test_a_stage_that_a_replica_does_not_have_is_none() -> None:
    report = ReplicaReport(1.0, decoder=DecoderStatistics(1, 2, 3.0))
    assert parse(ReplicaReport, flatten(report)) == report


@pytest.mark.parametrize("numbers", [{}, {"running_requests": 1.0}], ids=["nothing", "what Serve counts by itself"])
def test_a_replica_that_has_not_reported_yet_has_no_report(numbers: dict[str, float]) -> None:
    assert parse(ReplicaReport, numbers) is None
    assert parse(FrontDoorReport, numbers) is None


def without(numbers: dict[str, float], name: str) -> dict[str, float]:
    return {key: value for key, value in numbers.items() if key != name}


def test_a_replica_of_the_version_before_lacks_a_new_field_and_its_default_stands() -> None:
    numbers = {name: value for name, value in flatten(REPLICA).items() if not name.startswith(("text_encoder_footage", "denoiser_profile"))}
    bare = replace(REPLICA, denoiser=DenoiserStatistics(3, 1, 12, 0, 9, 8, 7, 1.5, 1.25))
    assert parse(ReplicaReport, numbers) == bare
    assert parse(FrontDoorReport, without(flatten(DOOR), "terms_decode_slots")) == replace(DOOR, terms=Terms(0.5, 4, 0.8, (3, 2), 0, 8))


@pytest.mark.parametrize("name", ["replica", "denoiser_busy_s", "decoder_chunks", "text_encoder_service_s", "link_open", "process_pid"])
def test_a_number_that_is_missing_is_named_and_not_taken_for_zero(name: str) -> None:
    with pytest.raises(ReportError, match=f"must have {name};"):
        parse(ReplicaReport, without(flatten(REPLICA), name))


@pytest.mark.parametrize("name", ["front_door_live", "front_door_late_chunks", "terms_chunk_s"])
def test_a_front_door_must_report_its_load_and_its_terms(name: str) -> None:
    with pytest.raises(ReportError, match=name):
        parse(FrontDoorReport, without(flatten(DOOR), name))


def test_a_field_that_cannot_travel_is_refused() -> None:
    @dataclass(frozen=True)
    class Named:
        name: str

    with pytest.raises(TypeError, match=r"Named\.name must be a number"):
        flatten(Named("x"))


SPELLS_NAMES = {"autoscaling/reports.py", "tests/unit/autoscaling/test_reports.py"}
# Names of metrics and of a checkpoint's settings, some of which read alike.
OTHER_NAMES = ("model_core/", "tests/unit/model_core/", "observability/catalogue.py", "training/")


def spelled(source: str, names: set[str]) -> list[str]:
    """Literals in `source` that are a number's name, or that begin one in a format string."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.rpartition(".")[2] in names:
            found.append(node.value)
        if isinstance(node, ast.JoinedStr) and isinstance(head := node.values[0], ast.Constant):
            start = str(head.value)
            found += [start] * ("_" in start and any(name.startswith(start) for name in names))
    return found


def test_no_other_module_spells_the_name_of_a_number() -> None:
    names = {name for report in (REPLICA, DOOR) for name in flatten(report)} - {"replica"}
    assert len(names) > 50
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()  # noqa: S607
    if not listed:
        pytest.skip("not a git checkout: there is no list of files to look at")
    others = [name for name in listed if name not in SPELLS_NAMES and not name.startswith(OTHER_NAMES)]
    found = {name: texts for name in others if (ROOT / name).exists() and (texts := spelled((ROOT / name).read_text(), names))}
    assert found == {}
    sample = 'r["link_open"], f"denoiser_{x}", "Denoiser.denoiser_chunks", f"{x}_s", "a sentence"'
    assert set(spelled(sample, names)) == {"link_open", "denoiser_", "Denoiser.denoiser_chunks"}
