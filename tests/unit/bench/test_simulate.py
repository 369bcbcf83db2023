from __future__ import annotations

import json

import pytest

from autoscaling.simulator.outcome import Outcome
from bench.scaling.simulate import verdict


def outcome(node_hours: float, ttff_share: float = 1.0) -> Outcome:
    return Outcome(
        arrivals=100, ttff_share=ttff_share, ttff_p50_s=0.2, ttff_p99_s=0.4, on_time_share=1.0, degraded_share=0.0, killed=0, refused=0,
        abandoned=0, node_hours=node_hours, replica_hours={}, cost=1e-6, good_s=1e3, peak_sessions=10, events=1,
    )  # fmt: skip


def test_the_verdict_names_the_cheapest_policy_that_holds_the_objectives_and_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {
        "headrace": [outcome(8.0), outcome(8.0)],
        "ray": [outcome(10.0), outcome(10.0)],
        "lightx2v": [outcome(4.0, ttff_share=0.9), outcome(4.0, ttff_share=0.9)],
        "static": [outcome(16.0), outcome(16.0)],
    }
    judged = verdict(rows)
    assert capsys.readouterr().out == ""
    assert (judged.ours_holds, judged.best) == (True, "ray")
    assert {other: (round(saving.percent.value, 9), saving.holds) for other, saving in judged.saved.items()} == {
        "ray": (20.0, True),
        "static": (50.0, True),
    }
    assert judged.lines() == ["20.0 ± 0.0 % fewer node-hours than ray", "50.0 ± 0.0 % fewer node-hours than static"]
    assert json.loads(json.dumps(judged.to_json()))["saved"]["ray"] == {"percent": pytest.approx(20.0), "half": 0.0, "holds": True}


def test_the_verdict_says_where_our_policy_misses_and_costs_more() -> None:
    judged = verdict({"headrace": [outcome(12.0, ttff_share=0.9)], "ray": [outcome(10.0, ttff_share=0.9)]})
    assert (judged.ours_holds, judged.best) == (False, None)
    assert judged.lines() == [
        "ours MISSES: TTFF 90 %, chunks 100 %",
        "no other policy that was not told holds the objectives",
        "20.0 ± inf % MORE node-hours than ray, which misses",
    ]
