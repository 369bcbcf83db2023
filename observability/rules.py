"""Prometheus rules out of the catalogue and a few objectives: recording rules, burn-rate alerts, and alerts on causes.

An objective is a share of events that must be good. Its budget is the rest, and the burn rate is how many times faster than allowed the
budget is being used: three pairs of windows, as in "The Site Reliability Workbook", chapter 5. The long window says that it matters, the
short one that it is still so. Quantiles and shares come from sums over replicas, never from averages of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from observability import catalogue as c
from observability.catalogue import Metric
from observability.exporter import TARGETS_PATH

RUNBOOKS = "docs/runbooks"
DISCOVERY_JOB = "headrace"

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
# Fewer events than this in the long window wake nobody: one slow session at night is no trend.
_MIN_EVENTS = 10


@dataclass(frozen=True, slots=True)
class Burn:
    """One pair of windows, in seconds: alert where the budget burns `factor` times too fast in both. `severity`: page or ticket."""

    long_s: float
    short_s: float
    factor: float
    severity: str


BURNS = (
    Burn(_HOUR, 5 * _MINUTE, 14.4, "page"),
    Burn(6 * _HOUR, 30 * _MINUTE, 6.0, "page"),
    Burn(3 * _DAY, 6 * _HOUR, 1.0, "ticket"),
)


@dataclass(frozen=True, slots=True)
class Objective:
    """A share of events that are good.

    Attributes:
        name: in rule names.
        alert: what it is called when the budget burns.
        target: the share.
        bad, total: PromQL of the events a second, with `{w}` for the window.
        means: one sentence for the operator.
    """

    name: str
    alert: str
    target: float
    bad: str
    total: str
    means: str


def _over(metric: Metric, edge: float) -> tuple[str, str]:
    """Events of a histogram above a bucket's edge, and all of them."""
    total = f"sum(rate({metric.full}_count[{{w}}]))"
    return f'({total} - sum(rate({metric.full}_bucket{{{{le="{edge}"}}}}[{{w}}])))', total


_SLOW_FIRST, _FIRST = _over(c.TTFF, c.TTFF_OBJECTIVE_S)
_LATE, _CHUNKS = _over(c.LATENESS, c.LATENESS_OBJECTIVE_S)
_SLOW_SWITCH, _SWITCHES = _over(c.PROMPT_SWITCH, c.SWITCH_OBJECTIVE_S)
_REFUSED = f'(sum(rate({c.CALLS.full}{{{{outcome="refused"}}}}[{{w}}])) or vector(0))'
_FAILED = f'(sum(rate({c.CALLS.full}{{{{outcome=~"internal|unavailable"}}}}[{{w}}])) or vector(0))'

OBJECTIVES = (
    Objective(
        "first_frame", "HeadraceFirstFrameSlow", 0.99, f"({_SLOW_FIRST} + {_REFUSED})", f"({_FIRST} + {_REFUSED})",
        f"Viewers wait longer than {c.TTFF_OBJECTIVE_S:g} s for the first frame, or are refused.",
    ),
    Objective("chunks", "HeadraceChunksLate", 0.99, _LATE, _CHUNKS, "Frames are sent after they were due: pictures stand still."),
    Objective(
        "prompt_switch", "HeadracePromptSwitchSlow", 0.99, _SLOW_SWITCH, _SWITCHES,
        f"A new prompt takes longer than {c.SWITCH_OBJECTIVE_S:g} s to show.",
    ),
    Objective(
        "availability", "HeadraceCallsFail", 0.999, _FAILED, f"sum(rate({c.CALLS.full}[{{w}}]))",
        "Calls end with INTERNAL or UNAVAILABLE.",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cause:
    """An alert on what may lead to the above, or explains it: `expr`, with `{w}` for `window_s`, holds for `for_s`."""

    alert: str
    expr: str
    window_s: float
    for_s: float
    severity: str
    means: str


CAUSES = (
    Cause(
        "HeadraceNoFrontDoor", f'absent(up{{{{job="{DISCOVERY_JOB}", process="{c.Process.FRONT_DOOR}"}}}} == 1)', 0, 2 * _MINUTE, "page",
        "Prometheus reads no front door: none runs, or discovery is broken.",
    ),
    Cause(
        "HeadraceReplicaUnreadable", f'up{{{{job="{DISCOVERY_JOB}"}}}} == 0', 0, 5 * _MINUTE, "ticket",
        "A replica answers its front door, but Prometheus cannot read it.",
    ),
    Cause(
        "HeadraceStageQueueLong",
        f"histogram_quantile(0.95, sum by (le, stage) (rate({c.STAGE_QUEUE.full}_bucket[{{w}}]))) > 0.5",
        5 * _MINUTE, 5 * _MINUTE, "ticket", "One chunk in twenty waits longer than half a second inside this stage.",
    ),
    Cause(
        "HeadraceDenoiserSlow",
        f"rate({c.DENOISER_BUSY.full}[{{w}}]) / (rate({c.EXPECTED_SECONDS.full}[{{w}}]) > 0) > 1.5", 10 * _MINUTE, 10 * _MINUTE, "ticket",
        "A denoise replica takes half as long again as it measured at its start.",
    ),
    Cause(
        "HeadraceRefusing",
        f'sum(rate({c.ADMISSIONS.full}{{{{answer="refused"}}}}[{{w}}])) / sum(rate({c.ADMISSIONS.full}[{{w}}])) > 0.05',
        10 * _MINUTE, 10 * _MINUTE, "page", "More than one request in twenty is refused.",
    ),
    Cause(
        "HeadraceBrownOutLong", f"min_over_time({c.BROWNOUT.full}[{{w}}]) > 0", 30 * _MINUTE, 0, "ticket",
        "Quality has been lowered for half an hour.",
    ),
    Cause(
        "HeadraceSessionStoreFails", f"sum(rate({c.STORE_ERRORS.full}[{{w}}])) > 0", 5 * _MINUTE, 5 * _MINUTE, "ticket",
        "The session store fails: streams go on, but their clients may not be able to resume.",
    ),
    Cause(
        "HeadraceJobsWait", f"max({c.OLDEST_QUEUED.full}) > 3600", 0, 10 * _MINUTE, "ticket",
        "A job has waited for more than an hour.",
    ),
    Cause(
        "HeadraceOverheadHigh",
        f'sum(rate({c.OVERHEAD.full}_sum{{{{of="chunk"}}}}[{{w}}]))'
        f' / sum(rate({c.STAGE_SERVICE.full}_sum{{{{stage!="text_encoder"}}}}[{{w}}])) > 0.25',
        10 * _MINUTE, 10 * _MINUTE, "ticket", "Moving chunks takes more than a quarter of the time that making them takes.",
    ),
    Cause(
        "HeadraceAutoscalerSlow", f"histogram_quantile(0.99, sum by (le) (rate({c.AUTOSCALER_TIME.full}_bucket[{{w}}]))) > 0.05",
        10 * _MINUTE, 10 * _MINUTE, "ticket", "The autoscaling policy holds up Serve's control loop.",
    ),
)  # fmt: skip

ALERTS = (*(objective.alert for objective in OBJECTIVES), *(cause.alert for cause in CAUSES))


def runbook(alert: str) -> str:
    """Where it says what to do."""
    return f"{RUNBOOKS}/{alert}.md"


def rules(scale: float = 1.0) -> dict[str, Any]:
    """A file of rules: bad shares of each objective in each window, the alerts on them, quantiles for dashboards, alerts on causes.

    Shares and their alerts stand in one group, which Prometheus evaluates in order: an alert sees the shares of its own moment.
    `scale` shortens all windows, for checks.
    """
    return {
        "groups": [
            {"name": "headrace-objectives", "rules": [*_shares(scale), *_burning(scale)]},
            {"name": "headrace-quantiles", "rules": _quantiles(scale)},
            {"name": "headrace-causes", "rules": _causes(scale)},
        ]
    }


def _shares(scale: float) -> list[dict[str, Any]]:
    windows = sorted({window for burn in BURNS for window in (burn.long_s, burn.short_s)})
    return [
        {
            "record": share_name(objective, window),
            "expr": f"{objective.bad.format(w=_duration(window * scale))} / ({objective.total.format(w=_duration(window * scale))} > 0)",
        }
        for objective in OBJECTIVES
        for window in windows
    ]


def _quantiles(scale: float) -> list[dict[str, Any]]:
    five = _duration(5 * _MINUTE * scale)
    return [
        {
            "record": quantile_name(metric, q),
            "expr": f"histogram_quantile({q}, sum by ({', '.join(('le', *labels))}) (rate({metric.full}_bucket[{five}])))",
        }
        for metric, labels in _SHOWN
        for q in (0.5, 0.99)
    ]


_SHOWN: tuple[tuple[Metric, tuple[str, ...]], ...] = (
    (c.TTFF, ()), (c.GAP, ()), (c.LATENESS, ()), (c.PROMPT_SWITCH, ()), (c.STAGE_QUEUE, ("stage",)), (c.STAGE_SERVICE, ("stage",)),
    (c.STAGE_TRANSFER, ("stage",)), (c.STEP_TIME, ("work", "batch")),
)  # fmt: skip


def _causes(scale: float) -> list[dict[str, Any]]:
    return [
        {
            "alert": cause.alert,
            "expr": cause.expr.format(w=_duration(cause.window_s * scale)),
            "for": _duration(cause.for_s * scale),
            "labels": {"severity": cause.severity},
            "annotations": {"summary": cause.means, "runbook": runbook(cause.alert)},
        }
        for cause in CAUSES
    ]


def _burning(scale: float) -> list[dict[str, Any]]:
    return [_burn_alert(objective, burn, scale) for objective in OBJECTIVES for burn in BURNS]


def _burn_alert(objective: Objective, burn: Burn, scale: float) -> dict[str, Any]:
    limit = f"{burn.factor * (1 - objective.target):.6g}"
    enough = f"{objective.total.format(w=_duration(burn.long_s * scale))} * {burn.long_s * scale:g} >= {_MIN_EVENTS}"
    both = " and ".join(f"{share_name(objective, window)} > {limit}" for window in (burn.long_s, burn.short_s))
    return {
        "alert": objective.alert,
        "expr": f"{both} and {enough}",
        "labels": {"severity": burn.severity, "window": _duration(burn.long_s)},
        "annotations": {"summary": objective.means, "runbook": runbook(objective.alert)},
    }


def prometheus_config(doors: Sequence[str], rule_files: Sequence[str], every_s: float = 15.0) -> dict[str, Any]:
    """Prometheus' own configuration.

    Args:
        doors: `host:port` of the metrics of front doors; each one knows all replicas. One for each node that runs one.
        rule_files: paths.
        every_s: between two scrapes, two rounds of discovery, and two evaluations.
    """
    every = _duration(every_s)
    discovery = [{"url": f"http://{door}{TARGETS_PATH}", "refresh_interval": every} for door in doors]
    return {
        "global": {"scrape_interval": every, "evaluation_interval": every},
        "rule_files": list(rule_files),
        "scrape_configs": [{"job_name": DISCOVERY_JOB, "http_sd_configs": discovery}],
    }


def share_name(objective: Objective, window_s: float) -> str:
    """The recorded share of bad events; it is called after the unscaled window."""
    return f"{c.PREFIX}:{objective.name}_bad:ratio_rate{_duration(window_s)}"


def quantile_name(metric: Metric, q: float) -> str:
    return f"{c.PREFIX}:{metric.name}:p{q * 100:g}_5m"


def _duration(seconds: float) -> str:
    """As Prometheus writes it; nothing is shorter than a second, but 0."""
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{max(1.0, round(seconds)):g}s" if seconds else "0s"
