"""Grafana dashboards out of the catalogue: overview, stages, session tail, autoscaler, cost, quality of jobs, jobs.

Built with Grafana's own library, so that what is committed under `dashboards/` is what Grafana's schema asks for. Needs the development
requirements; nothing that serves imports it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef

from observability import catalogue as c
from observability.catalogue import Metric
from observability.rules import BURNS, OBJECTIVES, quantile_name, share_name

# Replaced by Grafana with four scrape intervals or more; by the checks with a window of theirs.
WINDOW = "$__rate_interval"
_SOURCE = "datasource"
_PANEL_HEIGHT, _PANEL_WIDTH = 8, 12


@dataclass(frozen=True, slots=True)
class Line:
    """One query and its legend, in which `{{label}}` stands for a label's value."""

    query: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """`eventful`: may be empty in a healthy system."""

    title: str
    text: str
    unit: str
    lines: tuple[Line, ...]
    eventful: bool = False


@dataclass(frozen=True, slots=True)
class Dashboard:
    uid: str
    title: str
    panels: tuple[Panel, ...]


def _rate(metric: Metric, by: str = "", where: str = "", part: str = "") -> str:
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric.full}{part}{where}[{WINDOW}]))"


def _quantile(metric: Metric, q: float, by: str = "", where: str = "") -> str:
    return f"histogram_quantile({q}, {_rate(metric, ', '.join(filter(None, ('le', by))), where, '_bucket')})"


def _mean(metric: Metric, by: str = "", where: str = "") -> str:
    return f"{_rate(metric, by, where, '_sum')} / {_rate(metric, by, where, '_count')}"


def _quantiles(metric: Metric, *qs: float) -> tuple[Line, ...]:
    return tuple(Line(_quantile(metric, q), f"p{q * 100:g}") for q in qs)


def _within(metric: Metric, edge: float) -> str:
    good = _rate(metric, where=f'{{le="{edge}"}}', part="_bucket")
    return f"{good} / {_rate(metric, part='_count')}"


def _panel(title: str, metric: Metric, unit: str, *lines: Line, eventful: bool = False) -> Panel:
    return Panel(title, metric.text, unit, lines, eventful or metric.eventful)


def _gauge(title: str, *metrics: Metric) -> Panel:
    text = " ".join(f"{metric.name}: {metric.text}" for metric in metrics)
    return Panel(title, text, "short", tuple(Line(f"sum({m.full})", m.name.replace("_", " ")) for m in metrics))


_OVERVIEW = Dashboard(
    "headrace-overview", "Headrace: overview",
    (
        _gauge("Sessions and capacity", c.SESSIONS_LIVE, c.SESSIONS_WAITING, c.SESSIONS_DEGRADED, c.CAPACITY),
        _panel("Time to first frame", c.TTFF, "s", *_quantiles(c.TTFF, 0.5, 0.99)),
        Panel(
            "Objectives: good in the last five minutes", "Shares of first frames, chunks and prompt switches within their objective.",
            "percentunit",
            (
                Line(_within(c.TTFF, c.TTFF_OBJECTIVE_S), "first frame"),
                Line(_within(c.LATENESS, c.LATENESS_OBJECTIVE_S), "chunks on time"),
                Line(_within(c.PROMPT_SWITCH, c.SWITCH_OBJECTIVE_S), "prompt switch"),
            ),
        ),
        Panel(
            "Error budgets: burn rate", "How many times faster than allowed each budget burns, in the alerts' shortest window.", "short",
            tuple(Line(f"{share_name(o, BURNS[0].short_s)} / {1 - o.target:.6g}", o.name.replace("_", " ")) for o in OBJECTIVES),
        ),
        _panel("Time to first frame by model, p95", c.TTFF, "s", Line(_quantile(c.TTFF, 0.95, "model"), "{{model}}")),
        _panel("Calls ended", c.CALLS, "ops", Line(_rate(c.CALLS, "rpc, outcome"), "{{rpc}} {{outcome}}")),
        _panel("Requests by answer", c.ADMISSIONS, "ops", Line(_rate(c.ADMISSIONS, "answer"), "{{answer}}")),
        _panel("Wait for a slot", c.ADMISSION_WAIT, "s", *_quantiles(c.ADMISSION_WAIT, 0.5, 0.99)),
        _panel("Frames", c.FRAMES, "ops", Line(_rate(c.FRAMES, "codec"), "{{codec}}")),
        Panel(
            "Brown-out", c.BROWNOUT.text, "short", (Line(f"max({c.BROWNOUT.full})", "level"),),
        ),
        _gauge("Watching others' sessions", c.WATCHERS),
        _panel("Video sent to those who watch", c.WATCHED_SECONDS, "ops", Line(_rate(c.WATCHED_SECONDS, "door"), "{{door}}")),
        _panel("Frames skipped for those who watch", c.WATCH_SKIPPED, "ops", Line(_rate(c.WATCH_SKIPPED), "frames")),
        _panel("Degraded chunks", c.DEGRADED_CHUNKS, "ops", Line(_rate(c.DEGRADED_CHUNKS, "level"), "level {{level}}")),
        _panel("Session store errors", c.STORE_ERRORS, "ops", Line(_rate(c.STORE_ERRORS, "operation"), "{{operation}}")),
    ),
)  # fmt: skip

_BUSY = (c.DENOISER_BUSY, c.DECODER_BUSY, c.ENCODER_BUSY, c.ENHANCER_BUSY)

_STAGES = Dashboard(
    "headrace-stages", "Headrace: stages",
    (
        *(
            _panel(f"{title}, p99", metric, "s", Line(f"{quantile_name(metric, 0.99)}", "{{stage}}"))
            for title, metric in (("Queue", c.STAGE_QUEUE), ("Service", c.STAGE_SERVICE), ("Transfer", c.STAGE_TRANSFER))
        ),
        _panel("Queue and service of a chunk, all stages", c.CHUNK_LATENCY, "s", *_quantiles(c.CHUNK_LATENCY, 0.5, 0.99)),
        _panel("Mean service time", c.STAGE_SERVICE, "s", Line(_mean(c.STAGE_SERVICE, "stage"), "{{stage}}")),
        _panel("Framework overhead, mean", c.OVERHEAD, "s", Line(_mean(c.OVERHEAD, "of"), "{{of}}")),
        Panel(
            "Framework overhead as a share of stage compute", c.OVERHEAD.text, "percentunit",
            (Line(
                f"""{_rate(c.OVERHEAD, where='{of="chunk"}', part="_sum")}"""
                f""" / {_rate(c.STAGE_SERVICE, where='{stage!="text_encoder"}', part="_sum")}""",
                "chunk",
            ),),
        ),
        _panel("Forward, p99 by batch", c.STEP_TIME, "s", Line(quantile_name(c.STEP_TIME, 0.99), "{{work}} of {{batch}}")),
        _panel("Batch occupancy, mean", c.OCCUPANCY, "percentunit", Line(_mean(c.OCCUPANCY, "work"), "{{work}}")),
        _panel("Slack at dispatch", c.SLACK, "s", *_quantiles(c.SLACK, 0.01, 0.5)),
        _panel("Cache slots", c.CACHE_SLOTS, "short", Line(f"sum by (state) ({c.CACHE_SLOTS.full})", "{{state}}")),
        _gauge("Waiting in the denoisers", c.DENOISER_WAITING, c.UNDELIVERED),
        Panel(
            "Device time, by replica", " ".join(m.text for m in _BUSY), "percentunit",
            tuple(Line(_rate(m, "process, instance"), "{{process}} {{instance}}") for m in _BUSY),
        ),
        Panel(
            "Denoise time against the profile", c.EXPECTED_SECONDS.text + " 1 is as measured.", "short",
            (Line(f"{_rate(c.DENOISER_BUSY, 'instance')} / {_rate(c.EXPECTED_SECONDS, 'instance')}", "{{instance}}"),),
        ),
        Panel(
            "Chunks made", f"{c.DENOISER_CHUNKS.text} {c.DECODER_CHUNKS.text} {c.ENHANCER_CHUNKS.text}", "ops",
            (
                Line(_rate(c.DENOISER_CHUNKS), "denoised"), Line(_rate(c.DECODER_CHUNKS), "decoded"),
                Line(_rate(c.ENHANCER_CHUNKS), "enhanced"),
            ),
        ),
        _panel("Prompts embedded", c.PROMPTS, "ops", Line(_rate(c.PROMPTS, "source"), "{{source}}")),
        _gauge("Sessions in the decoders", c.DECODER_SESSIONS),
        _gauge("Sessions in the enhancers", c.ENHANCER_SESSIONS),
    ),
)  # fmt: skip

_TAIL = Dashboard(
    "headrace-tail", "Headrace: session tail",
    (
        _panel("Time to first frame", c.TTFF, "s", *_quantiles(c.TTFF, 0.5, 0.9, 0.99, 0.999)),
        _panel("Where the first frame's time goes, mean", c.TTFF_PART, "s", Line(_mean(c.TTFF_PART, "part"), "{{part}}")),
        _panel("Gap between chunks", c.GAP, "s", *_quantiles(c.GAP, 0.5, 0.99, 0.999)),
        _panel("Jitter", c.JITTER, "s", *_quantiles(c.JITTER, 0.5, 0.99)),
        _panel("Lateness", c.LATENESS, "s", *_quantiles(c.LATENESS, 0.99, 0.999)),
        _panel("Late chunks", c.LATENESS, "percentunit", Line(f"1 - {_within(c.LATENESS, c.LATENESS_OBJECTIVE_S)}", "late")),
        Panel(
            "Stalled share of viewing time", c.STALL_SECONDS.text, "percentunit",
            (Line(f"{_rate(c.STALL_SECONDS)} / ({_rate(c.STALL_SECONDS)} + {_rate(c.VIDEO_SECONDS)})", "stalled"),),
        ),
        Panel(
            "Sessions that played without a stall", c.PLAYED.text, "percentunit",
            (Line(f"""{_rate(c.PLAYED, where='{continuous="yes"}')} / {_rate(c.PLAYED)}""", "continuous"),),
        ),
        _panel("Prompt switch", c.PROMPT_SWITCH, "s", *_quantiles(c.PROMPT_SWITCH, 0.5, 0.99)),
        _panel("Resume", c.RESUME, "s", *_quantiles(c.RESUME, 0.5, 0.99)),
        _panel("Slack at dispatch below zero", c.SLACK, "percentunit", Line(_within(c.SLACK, 0.0), "cannot be on time")),
    ),
)  # fmt: skip

_AUTOSCALER = Dashboard(
    "headrace-autoscaler", "Headrace: autoscaler",
    (
        _panel("Replicas that answer", c.REPLICAS, "short", Line(f"max by (deployment) ({c.REPLICAS.full})", "{{deployment}}")),
        _panel(
            "Replicas wanted", c.AUTOSCALER_TARGET, "short", Line(f"max by (deployment) ({c.AUTOSCALER_TARGET.full})", "{{deployment}}")
        ),
        _panel(
            "Decisions", c.AUTOSCALER_DECISIONS, "ops",
            Line(_rate(c.AUTOSCALER_DECISIONS, "deployment, direction"), "{{deployment}} {{direction}}"),
        ),
        _panel("Time of a decision", c.AUTOSCALER_TIME, "s", *_quantiles(c.AUTOSCALER_TIME, 0.5, 0.99)),
        _gauge("Demand and capacity", c.SESSIONS_LIVE, c.SESSIONS_WAITING, c.CAPACITY),
        _panel(
            "Refused", c.ADMISSIONS, "percentunit",
            Line(f"""{_rate(c.ADMISSIONS, where='{answer="refused"}')} / {_rate(c.ADMISSIONS)}""", "refused"), eventful=True,
        ),
    ),
)  # fmt: skip

_COST = Dashboard(
    "headrace-cost", "Headrace: cost",
    (
        _panel("Accelerators in use by tenant", c.ACCELERATOR_SECONDS, "short", Line(_rate(c.ACCELERATOR_SECONDS, "tenant"), "{{tenant}}")),
        _panel("Accelerators in use by stage", c.ACCELERATOR_SECONDS, "short", Line(_rate(c.ACCELERATOR_SECONDS, "stage"), "{{stage}}")),
        _panel("Video made, by tenant", c.VIDEO_SECONDS, "short", Line(_rate(c.VIDEO_SECONDS, "tenant"), "{{tenant}}")),
        _panel("Video made, by door", c.VIDEO_SECONDS, "short", Line(_rate(c.VIDEO_SECONDS, "door"), "{{door}}")),
        _panel("Pixels made, by tenant", c.PIXELS, "short", Line(_rate(c.PIXELS, "tenant"), "{{tenant}}")),
        _panel("Denoise steps, by tenant", c.STEPS, "ops", Line(_rate(c.STEPS, "tenant"), "{{tenant}}")),
        Panel(
            "Accelerator-seconds for a second of video", c.ACCELERATOR_SECONDS.text, "s",
            (Line(f"{_rate(c.ACCELERATOR_SECONDS, 'stage')} / on() group_left() {_rate(c.VIDEO_SECONDS)}", "{{stage}}"),),
        ),
        Panel(
            "Device time that reached no viewer", "Made by the stages, but not sent: dropped by prompt changes, cancels and retries.",
            "percentunit",
            (
                Line(
                    f"""clamp_min(1 - {_rate(c.ACCELERATOR_SECONDS, where='{stage=~"denoiser|decoder"}')}"""
                    f" / ({_rate(c.DENOISER_BUSY)} + {_rate(c.DECODER_BUSY)}), 0)",
                    "dropped",
                ),
            ),
        ),
        _panel(
            "Usage and audit writes that failed", c.LEDGER_ERRORS, "ops", Line(_rate(c.LEDGER_ERRORS, "book"), "{{book}}"), eventful=True
        ),
        _panel(
            "Usage and audit entries dropped", c.LEDGER_DROPPED, "ops", Line(_rate(c.LEDGER_DROPPED, "book"), "{{book}}"), eventful=True
        ),
    ),
)  # fmt: skip


def _per_model(title: str, metric: Metric, query: str, which: str = "") -> Panel:
    return _panel(title, metric, "percentunit", Line(query, f"{{{{model}}}} {which}".rstrip()))


_QUALITY = Dashboard(
    "headrace-quality",
    "Headrace: quality of jobs",
    (
        _per_model("Change from frame to frame", c.QUALITY_FLICKER, _quantile(c.QUALITY_FLICKER, 0.5, "model"), "p50"),
        _per_model("Flicker of brightness", c.QUALITY_BRIGHTNESS, _quantile(c.QUALITY_BRIGHTNESS, 0.9, "model"), "p90"),
        _per_model("Smoothness", c.QUALITY_SMOOTHNESS, _quantile(c.QUALITY_SMOOTHNESS, 0.1, "model"), "p10"),
        _per_model("Shows what the prompt names, mean", c.QUALITY_ADHERENCE, _mean(c.QUALITY_ADHERENCE, "model")),
        _per_model("Frozen frames, mean", c.QUALITY_FROZEN, _mean(c.QUALITY_FROZEN, "model")),
        _per_model("Black frames, mean", c.QUALITY_BLACK, _mean(c.QUALITY_BLACK, "model")),
        _panel("Videos looked at", c.QUALITY_LOOKS, "ops", Line(_rate(c.QUALITY_LOOKS, "model, measured"), "{{model}} {{measured}}")),
    ),
)

_JOBS = Dashboard(
    "headrace-jobs", "Headrace: jobs",
    (
        Panel(
            "Queued and running", f"{c.JOBS_QUEUED.text} {c.JOBS_RUNNING.text}", "short",
            (Line(f"max({c.JOBS_QUEUED.full})", "queued"), Line(f"sum({c.JOBS_RUNNING.full})", "running")),
        ),
        _panel("Age of the oldest in the queue", c.OLDEST_QUEUED, "s", Line(f"max({c.OLDEST_QUEUED.full})", "oldest")),
        _panel("Ended, by outcome", c.JOBS_ENDED, "ops", Line(_rate(c.JOBS_ENDED, "outcome"), "{{outcome}}")),
        _panel("Ended, by door", c.JOBS_ENDED, "ops", Line(_rate(c.JOBS_ENDED, "door"), "{{door}}")),
        _panel("Wait until a job was begun", c.JOB_WAIT, "s", *_quantiles(c.JOB_WAIT, 0.5, 0.95), eventful=True),
        _panel("Time to make a job", c.JOB_TIME, "s", *_quantiles(c.JOB_TIME, 0.5, 0.95), eventful=True),
        _panel("Video made", c.JOB_VIDEO, "short", Line(_rate(c.JOB_VIDEO, "door"), "{{door}}")),
        _panel("Webhooks", c.WEBHOOKS, "ops", Line(_rate(c.WEBHOOKS, "outcome"), "{{outcome}}")),
    ),
)  # fmt: skip

DASHBOARDS = (_OVERVIEW, _STAGES, _TAIL, _AUTOSCALER, _COST, _QUALITY, _JOBS)


def queries() -> Iterator[tuple[str, Panel, str]]:
    """Every query with its dashboard's title and its panel."""
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            for line in panel.lines:
                yield dashboard.title, panel, line.query


def to_json(dashboard: Dashboard) -> str:
    """What Grafana imports; asks for a Prometheus data source when it is opened."""
    made = (
        build.Dashboard(dashboard.title).uid(dashboard.uid).tags([c.PREFIX]).refresh("10s").time("now-30m", "now").editable()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(build.DatasourceVariable(_SOURCE).label("Prometheus").type("prometheus"))
    )  # fmt: skip
    for panel in dashboard.panels:
        made = made.with_panel(_grafana(panel))
    return json.dumps(made.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def _grafana(panel: Panel) -> Any:
    source = DataSourceRef(type_val="prometheus", uid=f"${{{_SOURCE}}}")
    made = timeseries.Panel().title(panel.title).description(panel.text).unit(panel.unit).datasource(source)
    made = made.height(_PANEL_HEIGHT).span(_PANEL_WIDTH)
    for number, line in enumerate(panel.lines):
        made = made.with_target(prometheus.Dataquery().expr(line.query).legend_format(line.legend).ref_id(chr(ord("A") + number)))
    return made
