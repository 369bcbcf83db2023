"""The catalogue, what is generated from it, and the objects to count with."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

from model_core.events import Forward
from model_core.statistics import DecoderStatistics, DenoiserStatistics, EnhancerStatistics, StageStatistics, TextEncoderStatistics
from observability import catalogue as c
from observability.__main__ import generated
from observability.catalogue import CATALOGUE, PREFIX, Kind, Metric, Process
from observability.context import TRACE_ID
from observability.dashboards import DASHBOARDS, queries, to_json
from observability.metrics import AutoscalerMetrics, DenoiserMetrics, Metrics, StatisticsCollector, shown_on_ray, statistics_as_metrics
from observability.rules import ALERTS, RUNBOOKS, rules
from tests.reports import DECODER, DENOISER, ENCODER

ROOT = Path(__file__).parents[3]
STATISTICS: tuple[StageStatistics, ...] = (ENCODER, DENOISER, DECODER, EnhancerStatistics(1, 2, 0.5))


def every_rule() -> list[dict[str, Any]]:
    return [rule for group in rules()["groups"] for rule in group["rules"]]


def openmetrics(registry: CollectorRegistry) -> str:
    return str(generate_latest(registry).decode())  # type: ignore[no-untyped-call]


def everything() -> CollectorRegistry:
    """A registry with what all processes have together."""
    registry = CollectorRegistry()
    Metrics(registry).of("m")
    DenoiserMetrics(registry)
    AutoscalerMetrics(registry)
    registry.register(StatisticsCollector(lambda: STATISTICS))
    return registry


def test_every_metric_of_the_catalogue_is_counted_somewhere_and_no_other() -> None:
    families = {family.name: family for family in everything().collect()}
    old = {f"{PREFIX}_{m.formerly}" for m in CATALOGUE if m.formerly}
    assert {name.removesuffix("_total") for name in old | {m.full for m in CATALOGUE}} == set(families)
    for metric in CATALOGUE:
        family = families[metric.full.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind.value, metric.text)


def test_a_renamed_counter_is_served_under_both_names() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.calls_total.labels("ListModels", "completed").inc()
    metrics.calls_total.labels("Stream", "refused").inc(2)
    for name in ("headrace_calls_total", "headrace_sessions_total"):
        assert registry.get_sample_value(name, {"rpc": "ListModels", "outcome": "completed"}) == 1
        assert registry.get_sample_value(name, {"rpc": "Stream", "outcome": "refused"}) == 2
    queried = "".join(str(rule["expr"]) for rule in every_rule()) + "".join(to_json(dashboard) for dashboard in DASHBOARDS)
    assert "headrace_calls_total" in queried
    assert "headrace_sessions_total" not in queried


def test_what_sessions_do_is_counted_for_their_model_and_nothing_else_is() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.of("a").ttff_seconds.observe(0.5)
    metrics.of("b").frames["jpeg"].inc(3)
    assert metrics.of("a") is metrics.of("a")
    value = registry.get_sample_value
    assert (value("headrace_ttff_seconds_count", {"model": "a"}), value("headrace_ttff_seconds_count", {"model": "b"})) == (1, 0)
    assert value("headrace_frames_total", {"model": "b", "codec": "jpeg"}) == 3
    models = {m.name: [label is c.MODEL for label in m.labels] for m in CATALOGUE if c.MODEL in m.labels}
    assert all(first and not any(others) for first, *others in models.values())
    assert {m.process for m in CATALOGUE if m.name in models} == {Process.FRONT_DOOR}
    gauges = {m.name for m in CATALOGUE if m.kind is Kind.GAUGE and m.process is Process.FRONT_DOOR}
    of_all_models = {"calls_total", "session_store_errors_total", "ledger_errors_total", "ledger_dropped_total"}
    of_all_models |= {"jobs_ended_total", "job_wait_seconds", "job_seconds", "job_video_seconds_total", "webhook_deliveries_total"}
    assert {m.name for m in CATALOGUE if m.process is Process.FRONT_DOOR} == set(models) | gauges | of_all_models


def test_names_carry_their_units_and_are_unique() -> None:
    assert len({metric.name for metric in CATALOGUE}) == len(CATALOGUE) > 40
    for metric in CATALOGUE:
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER), metric.name
        assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM), metric.name
        if metric.kind is Kind.HISTOGRAM:
            assert metric.name.endswith(("_seconds", "_ratio")), metric.name
            assert list(metric.buckets) == sorted(set(metric.buckets)), metric.name


def test_objectives_stand_on_bucket_edges() -> None:
    assert c.TTFF_OBJECTIVE_S in c.TTFF.buckets
    assert c.LATENESS_OBJECTIVE_S in c.LATENESS.buckets
    assert c.SWITCH_OBJECTIVE_S in c.PROMPT_SWITCH.buckets
    text = openmetrics(everything())
    told = json.dumps(rules()) + json.dumps([query for _, _, query in queries()])
    edges = set(re.findall(r'(headrace_\w+_bucket)\{le=\\+"([^"\\]+)\\+"\}', told))
    assert len(edges) >= 3
    for name, edge in edges:
        assert re.search(rf'{name}{{[^}}]*le="{re.escape(edge)}"', text), "Prometheus compares edges as text"


def test_every_label_says_what_bounds_it() -> None:
    for metric in CATALOGUE:
        for label in metric.labels:
            assert bool(label.values) != bool(label.bound), (metric.name, label.name)


def test_statistics_become_metrics_when_they_are_scraped() -> None:
    read: list[StageStatistics] = [replace(DENOISER, free_slots=13)]
    registry = CollectorRegistry()
    registry.register(StatisticsCollector(lambda: read))
    assert registry.get_sample_value("headrace_cache_slots", {"state": "free"}) == 13
    read[0] = replace(DENOISER, free_slots=12)
    assert registry.get_sample_value("headrace_cache_slots", {"state": "free"}) == 12
    read.clear()
    assert registry.get_sample_value("headrace_cache_slots", {"state": "free"}) is None


@pytest.mark.parametrize(
    ("counted", "shown"),
    [
        (
            DenoiserStatistics(3, 1, 13, 2, 90, 91, 40, 5.0, 4.0),
            [
                (c.CACHE_SLOTS, "used", 3), (c.CACHE_SLOTS, "free", 13), (c.DENOISER_WAITING, "", 1), (c.UNDELIVERED, "", 2),
                (c.DENOISER_BUSY, "", 5), (c.EXPECTED_SECONDS, "", 4), (c.DENOISER_CHUNKS, "", 40),
            ],
        ),
        (DecoderStatistics(3, 39, 1.5), [(c.DECODER_BUSY, "", 1.5), (c.DECODER_CHUNKS, "", 39), (c.DECODER_SESSIONS, "", 3)]),
        (EnhancerStatistics(2, 9, 0.5), [(c.ENHANCER_BUSY, "", 0.5), (c.ENHANCER_CHUNKS, "", 9), (c.ENHANCER_SESSIONS, "", 2)]),
        (
            TextEncoderStatistics(4, 1, 2, 92, 93, 0.5),
            [(c.ENCODER_BUSY, "", 0.5), (c.PROMPTS, "cache", 4), (c.PROMPTS, "joined", 1), (c.PROMPTS, "model", 2)],
        ),
    ],
    ids=["denoiser", "decoder", "enhancer", "text encoder"],
)  # fmt: skip
def test_each_metric_of_a_stage_is_the_number_that_it_says(counted: StageStatistics, shown: list[tuple[Metric, str, float]]) -> None:
    assert [(metric, "".join(values), number) for metric, values, number in statistics_as_metrics(counted)] == shown


def test_forwards_are_told_by_batch_with_their_occupancy_and_slack() -> None:
    registry = CollectorRegistry()
    metrics = DenoiserMetrics(registry)
    metrics.observe(Forward("step", 4, 3, 0.02, (0.3, -0.1)))
    metrics.observe(Forward("commit", 1, 1, 0.004))
    value = registry.get_sample_value
    assert value("headrace_step_seconds_sum", {"work": "step", "batch": "4"}) == pytest.approx(0.02)
    assert value("headrace_step_seconds_count", {"work": "commit", "batch": "1"}) == 1
    assert value("headrace_batch_occupancy_ratio_bucket", {"work": "step", "le": "0.75"}) == 1
    assert value("headrace_dispatch_slack_seconds_bucket", {"le": "0.0"}) == 1
    assert value("headrace_dispatch_slack_seconds_count") == 2


def test_ray_shows_gauges_only() -> None:
    registry = everything()
    shown = {metric.name: (labels, value) for metric, labels, value in shown_on_ray(registry)}
    assert {"sessions_live", "capacity_sessions", "cache_slots"} <= set(shown)
    assert all(metric.kind is Kind.GAUGE for metric in CATALOGUE if metric.on_ray)


def test_an_exemplar_carries_the_trace_id_and_only_where_there_is_one() -> None:
    from observability.session_meter import SessionMeter

    registry = CollectorRegistry()
    meter = SessionMeter(Metrics(registry).of("m"), "default", 24, paced=True)
    meter.switched(0.2)
    assert "trace_id" not in openmetrics(registry)
    token = TRACE_ID.set("0af7651916cd43dd8448eb211c80319c")
    try:
        meter.switched(0.3)
    finally:
        TRACE_ID.reset(token)
    lines = [line for line in openmetrics(registry).splitlines() if "trace_id" in line]
    assert len(lines) == 1
    assert lines[0].startswith("headrace_prompt_switch_seconds_bucket")
    assert "0af7651916cd43dd8448eb211c80319c" in lines[0]


@pytest.mark.parametrize(("path", "text"), list(generated()), ids=lambda value: value.name if isinstance(value, Path) else "")
def test_generated_files_are_up_to_date(path: Path, text: str) -> None:
    assert path.read_text(encoding="utf-8") == text, "run `make observability`"


def test_every_metric_is_on_a_dashboard() -> None:
    shown = " ".join(query for _, _, query in queries())
    recorded = {rule["record"]: rule["expr"] for rule in every_rule() if "record" in rule}
    shown += " ".join(expr for name, expr in recorded.items() if name in shown)
    assert [metric.name for metric in CATALOGUE if metric.full not in shown] == []


def test_dashboards_query_nothing_but_the_catalogue() -> None:
    recorded = {rule["record"] for rule in every_rule() if "record" in rule}
    known = {metric.full for metric in CATALOGUE}
    for title, panel, query in queries():
        names = {re.sub(r"_(bucket|count|sum)$", "", name) for name in re.findall(r"\bheadrace_\w+", query)}
        assert names <= known, (title, panel.title)
        assert set(re.findall(r"\bheadrace:[\w:]+", query)) <= recorded, (title, panel.title)
    assert len({dashboard.uid for dashboard in DASHBOARDS}) == len(DASHBOARDS) == 7


def test_every_alert_has_a_runbook_that_says_what_it_means_what_to_look_at_and_what_to_do() -> None:
    annotated = {rule["annotations"]["runbook"] for rule in every_rule() if "alert" in rule}
    assert annotated == {f"{RUNBOOKS}/{alert}.md" for alert in ALERTS}
    page = (ROOT / "docs" / "operate-on-ray.md").read_text(encoding="utf-8")
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^## (.+)$", page, re.MULTILINE)}
    for name in annotated:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert [heading for heading in ("## What it means", "## What to look at", "## What to do") if heading not in text] == [], name
        for metric in re.findall(r"`(headrace_\w+)`", text):
            assert re.sub(r"_(bucket|count|sum)$", "", metric) in {m.full for m in CATALOGUE}, (name, metric)
        to_do = text.split("## What to do")[1]
        assert "](" in to_do or "`" in to_do, f"{name} names no command, setting or page"
        for anchor in re.findall(r"operate-on-ray\.md#([\w-]+)", text):
            assert anchor in headings, (name, anchor)
    assert {path.stem for path in (ROOT / RUNBOOKS).glob("*.md")} == set(ALERTS) | {"README"}


def test_processes_are_deployments_or_the_controller() -> None:
    from deployments.config.names import ENHANCER_DEPLOYMENT, FRONT_DOOR, STAGE_DEPLOYMENTS

    assert {*map(str, Process)} == {FRONT_DOOR, *STAGE_DEPLOYMENTS.values(), ENHANCER_DEPLOYMENT, "Controller"}
