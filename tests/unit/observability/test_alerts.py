"""Every alert fires on what it is for, and not without it: `promtool test rules` runs the real rules over made-up series."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from observability.rules import ALERTS, rules

RULES = Path(__file__).parents[3] / "observability" / "prometheus" / "rules.yaml"
Series = tuple[str, str]


@dataclass(frozen=True)
class Case:
    """`bad` makes `alert` fire, `good` does not. A case with `window` is one of a burn-rate alert's."""

    alert: str
    bad: tuple[Series, ...]
    good: tuple[Series, ...]
    window: str = ""
    every: str = "1m"
    after: str = "2h"
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        return f"{self.alert}{self.window}"


def histogram(name: str, edge: str, within: float, beyond: float, labels: str = "") -> tuple[Series, ...]:
    """So many events a minute within the edge, and beyond it."""
    inner = f"{labels}," if labels else ""
    total = f"{within + beyond:g}"
    return (
        (f'{name}_bucket{{{inner}le="{edge}"}}', f"0+{within:g}x200"),
        (f'{name}_bucket{{{inner}le="9.0"}}', f"0+{total}x200"),
        (f'{name}_bucket{{{inner}le="+Inf"}}', f"0+{total}x200"),
        (f"{name}_count{{{labels}}}", f"0+{total}x200"),
    )


# Bad events of a hundred a minute that each pair of windows must notice, and so few that it must not.
BURNS = (("1h", "1m", "2h", 20, 10), ("6h", "5m", "7h", 8, 4), ("3d", "30m", "4d", 3, 0.5))
# How often series have samples, and rules are evaluated; more often would only take longer.
EVALUATED = {"1m": "5m", "5m": "30m", "30m": "6h"}
UP = 'up{job="headrace",process="FrontDoor",instance="a"}'


def objective(alert: str, name: str, edge: str) -> list[Case]:
    return [
        Case(alert, histogram(name, edge, 100 - bad, bad), histogram(name, edge, 100 - good, good), window, every, after)
        for window, every, after, bad, good in BURNS
    ]


def calls(failed: float) -> tuple[Series, ...]:
    series = 'headrace_calls_total{rpc="Stream",outcome="%s"}'
    return ((series % "completed", f"0+{100 - failed:g}x200"), (series % "unavailable", f"0+{failed:g}x200"))


def rates(first: str, per_minute: float, second: str, other: float) -> tuple[Series, ...]:
    return ((first, f"0+{per_minute:g}x200"), (second, f"0+{other:g}x200"))


CASES = [
    *objective("HeadraceFirstFrameSlow", "headrace_ttff_seconds", "1.0"),
    *objective("HeadraceChunksLate", "headrace_chunk_lateness_seconds", "0.0"),
    *objective("HeadracePromptSwitchSlow", "headrace_prompt_switch_seconds", "1.0"),
    *(Case("HeadraceCallsFail", calls(bad / 10), calls(good / 10), w, every, after) for w, every, after, bad, good in BURNS),
    Case("HeadraceNoFrontDoor", ((UP, "0x200"),), ((UP, "1x200"),)),
    Case(
        "HeadraceReplicaUnreadable", ((UP, "0x200"),), ((UP, "1x200"),),
        labels=(("job", "headrace"), ("process", "FrontDoor"), ("instance", "a")),
    ),
    Case(
        "HeadraceStageQueueLong", histogram("headrace_stage_queue_seconds", "0.5", 80, 20, 'stage="decoder"'),
        histogram("headrace_stage_queue_seconds", "0.5", 98, 2, 'stage="decoder"'), labels=(("stage", "decoder"),),
    ),
    Case(
        "HeadraceDenoiserSlow",
        rates('headrace_denoiser_busy_seconds_total{instance="a"}', 40, 'headrace_expected_busy_seconds_total{instance="a"}', 20),
        rates('headrace_denoiser_busy_seconds_total{instance="a"}', 25, 'headrace_expected_busy_seconds_total{instance="a"}', 20),
        labels=(("instance", "a"),),
    ),
    Case(
        "HeadraceRefusing",
        rates('headrace_admissions_total{tenant="a",answer="refused"}', 10, 'headrace_admissions_total{tenant="b",answer="admitted"}', 90),
        rates('headrace_admissions_total{tenant="a",answer="refused"}', 1, 'headrace_admissions_total{tenant="b",answer="admitted"}', 90),
    ),
    Case("HeadraceBrownOutLong", (("headrace_brownout_level", "1x200"),), (("headrace_brownout_level", "1x100 0 1x200"),), after="115m"),
    Case(
        "HeadraceSessionStoreFails", (('headrace_session_store_errors_total{operation="write"}', "0+1x200"),),
        (('headrace_session_store_errors_total{operation="write"}', "5x200"),),
    ),
    Case("HeadraceJobsWait", (("headrace_jobs_oldest_queued_seconds", "7200x200"),), (("headrace_jobs_oldest_queued_seconds", "600x200"),)),
    Case(
        "HeadraceOverheadHigh",
        rates('headrace_framework_overhead_seconds_sum{of="chunk"}', 5, 'headrace_stage_service_seconds_sum{stage="denoiser"}', 10),
        rates('headrace_framework_overhead_seconds_sum{of="chunk"}', 1, 'headrace_stage_service_seconds_sum{stage="denoiser"}', 10),
    ),
    Case(
        "HeadraceAutoscalerSlow", histogram("headrace_autoscaler_decision_seconds", "0.05", 90, 10),
        histogram("headrace_autoscaler_decision_seconds", "0.05", 100, 0),
    ),
]  # fmt: skip


def alerts() -> list[dict[str, Any]]:
    return [rule for group in rules()["groups"] for rule in group["rules"] if "alert" in rule]


def rule(case: Case) -> dict[str, Any]:
    found = [r for r in alerts() if r["alert"] == case.alert and r["labels"].get("window", "") == case.window]
    assert len(found) == 1
    return dict(found[0])


def promtool_test(case: Case, series: tuple[Series, ...], *, fires: bool) -> dict[str, Any]:
    wanted = rule(case)
    severity, window = wanted["labels"]["severity"], f',window="{case.window}"' if case.window else ""
    query = f'ALERTS{{alertname="{case.alert}",alertstate="firing",severity="{severity}"{window}}}'
    all_labels = {**wanted["labels"], **dict(case.labels), "alertname": case.alert, "alertstate": "firing"}
    labels = ",".join(f'{name}="{value}"' for name, value in sorted(all_labels.items()))
    return {
        "interval": case.every,
        "name": f"{case.name} {'fires' if fires else 'is silent'}",
        "input_series": [{"series": name, "values": values} for name, values in series],
        "promql_expr_test": [
            {"expr": query, "eval_time": case.after, "exp_samples": [{"labels": f"ALERTS{{{labels}}}", "value": 1}] if fires else []}
        ],
    }


def test_every_rule_has_a_case() -> None:
    assert {case.name for case in CASES} == {f"{r['alert']}{r['labels'].get('window', '')}" for r in alerts()}
    assert {case.alert for case in CASES} == set(ALERTS)


def test_every_alert_fires_and_stays_silent(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; Debian's package prometheus has it")
    files = []
    for every in sorted({case.every for case in CASES}):
        cases = [case for case in CASES if case.every == every]
        tests = [promtool_test(case, series, fires=fires) for case in cases for series, fires in ((case.bad, True), (case.good, False))]
        document = {
            "rule_files": [str(RULES)],
            "evaluation_interval": EVALUATED[every],
            "tests": tests,
        }
        files.append(tmp_path / f"{every}.yaml")
        files[-1].write_text(yaml.safe_dump(document, sort_keys=False))
    done = subprocess.run([promtool, "test", "rules", *map(str, files)], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
