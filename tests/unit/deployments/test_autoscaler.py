from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.serve._private.config import DeploymentConfig
from ray.serve.config import AutoscalingConfig
from ray.serve.context import ReplicaContext

from autoscaling.admission.decide import Tenant
from autoscaling.reports import FrontDoorReport, ReplicaReport, Terms, ViewerTotals, flatten
from deployments.cluster.local import STAGED_CONFIG, Overrides, load
from deployments.config.application import AppConfig
from deployments.config.names import ENHANCER_DEPLOYMENT, FRONT_DOOR, STAGE_DEPLOYMENTS, deployment_name
from deployments.config.scaling import NodeSettings, ScalingSettings, newest_settings, scaling_numbers
from deployments.config.tuning import Tuned, tuning
from deployments.links.routing import Candidate, may_shrink, preferred
from deployments.scaling.policy import Counters, PipelinePolicy, PolicyLoop, Totals, latest, log
from deployments.scaling.report import PolicyReport
from model_core.errors import InvalidRequest
from model_core.stage import Stage
from tests.reports import ADMISSION, DENOISER, VIEWERS
from tests.work import calls_of

TERMS = Terms(0.5, 4, 0.8, (3, 2))


@dataclass
class Up:
    """Nodes as the policy sees them."""

    up: int | None = None
    wanted: list[tuple[int, str]] = field(default_factory=list)

    def want(self, nodes: int, settings: NodeSettings) -> None:
        self.wanted.append((nodes, " ".join(pool.name for pool in settings.pools)))


def context(name: str, replicas: dict[str, dict[str, float]], now: float, target: int = 1, most: int = 8) -> Any:
    """As Serve's: series by number and replica, with an old value that must not count."""
    series: dict[str, dict[str, list[Any]]] = {}
    for replica, told in replicas.items():
        for number, value in told.items():
            series.setdefault(number, {})[replica] = [SimpleNamespace(value=-1.0), SimpleNamespace(value=value)]
    return SimpleNamespace(
        deployment_name=name, raw_metrics=series, current_time=now, current_num_replicas=target, target_num_replicas=target,
        capacity_adjusted_min_replicas=1, capacity_adjusted_max_replicas=most,
    )  # fmt: skip


PLAIN: dict[str, Any] = {"burst_k": 0, "burst_z": 0, "z": 0}


def door(**admission: int) -> dict[str, float]:
    """What a front door reports."""
    return flatten(FrontDoorReport(replace(ADMISSION, **admission), VIEWERS, TERMS))


def contexts(
    now: float, live: int, settings: dict[str, Any] | None = None, since: float = 1.0, *, sessions: int | None = None, waiting: int = 0
) -> dict[str, Any]:
    """`settings` are those that the front door has been told, `since` then."""
    tuned = tuning({"scaling": {**PLAIN, **(settings or {})}}).scaling
    front_door = door(live=live if sessions is None else sessions, waiting=waiting, arrivals=live) | scaling_numbers(tuned, since)
    denoiser = flatten(ReplicaReport(1.0, denoiser=replace(DENOISER, sessions=live, free_slots=max(0, 4 - live))))
    told: dict[str, dict[str, dict[str, float]]] = {FRONT_DOOR: {"a": front_door}, "Denoiser": {"b": denoiser}}
    return {name: context(name, told.get(name, {}), now) for name in (FRONT_DOOR, *STAGE_DEPLOYMENTS.values())}


def policy(up: Up | None = None) -> PolicyLoop:
    return PolicyLoop(up or Up(), PolicyReport(), time.perf_counter)


def test_sessions_become_replicas_and_the_front_door_is_left_alone() -> None:
    wanted = policy().tick(contexts(100.0, 8))
    assert set(wanted) == set(STAGE_DEPLOYMENTS.values())
    assert wanted["Denoiser"] == 1, "of a replica with 8 sessions and no slot left, 8 is what it holds"
    assert policy().tick(contexts(100.0, 3)).get("Denoiser") == 1
    assert policy().tick(contexts(100.0, 3, waiting=9))["Denoiser"] == 3


def test_an_enhancer_is_sized_by_the_sessions_that_ask_for_one() -> None:
    loop, told = policy(), contexts(100.0, 3)
    told[ENHANCER_DEPLOYMENT] = context(ENHANCER_DEPLOYMENT, {}, 100.0)
    assert loop.tick(told)[ENHANCER_DEPLOYMENT] == told[ENHANCER_DEPLOYMENT].capacity_adjusted_min_replicas
    asking = contexts(102.0, 3)
    report = FrontDoorReport(replace(ADMISSION, live=3), VIEWERS, replace(TERMS, enhance_slots=2), enhanced=5)
    asking[FRONT_DOOR] = context(FRONT_DOOR, {"a": flatten(report)}, 102.0)
    asking[ENHANCER_DEPLOYMENT] = context(ENHANCER_DEPLOYMENT, {}, 102.0)
    assert loop.tick(asking)[ENHANCER_DEPLOYMENT] == 3


def test_a_policy_for_another_model_sizes_that_model_s_deployments_and_no_others() -> None:
    report = PolicyReport()
    loop = PolicyLoop(Up(), report, time.perf_counter, "wan-1.3b")
    both = contexts(100.0, 3)
    assert loop.tick(both) == {}, "it waits for its own deployments"
    both |= {deployment_name(stage, "wan-1.3b"): both[deployment_name(stage)] for stage in Stage}
    wanted = loop.tick(both)
    assert set(wanted) == {"TextEncoder@wan-1.3b", "Denoiser@wan-1.3b", "Decoder@wan-1.3b"}
    value = report.registry.get_sample_value
    assert value("headrace_autoscaler_target_replicas", {"deployment": "Denoiser@wan-1.3b"}) == wanted["Denoiser@wan-1.3b"]
    assert value("headrace_autoscaler_target_replicas", {"deployment": "Denoiser"}) is None


def test_between_decisions_the_last_one_stands() -> None:
    loop = policy()
    first = dict(loop.tick(contexts(100.0, 2)))
    assert loop.tick(contexts(101.9, 400)) == first
    assert loop.tick(contexts(102.0, 400)) != first


def test_nothing_is_said_until_a_front_door_reports_or_where_a_stage_is_missing() -> None:
    loop = policy()
    quiet = contexts(100.0, 5)
    quiet[FRONT_DOOR].raw_metrics = {}
    assert loop.tick(quiet) == {}
    assert loop.tick({"FusedPipeline": context("FusedPipeline", {}, 200.0)}) == {}
    assert loop.tick({}) == {}


def test_an_error_leaves_every_stage_as_it_is_and_is_logged_once() -> None:
    loop = policy()
    broken = contexts(100.0, 5)
    broken["Denoiser"].raw_metrics.popitem()
    again = {name: SimpleNamespace(**{**vars(c), "current_time": 105.0}) for name, c in broken.items()}
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    try:
        assert loop.tick(broken) == {}
        assert loop.tick(again) == {}
    finally:
        log.removeHandler(handler)
    assert len(lines) == 1
    assert loop.tick(contexts(110.0, 5))


def test_nodes_are_asked_for_within_the_pools() -> None:
    nodes = Up(up=1)
    pools = [{"name": "trn2", "max_nodes": 2}, {"name": "trn2-spot", "max_nodes": 1}]
    settings = {"nodes": {"pools": pools, "units": 4, "replica_units": {"denoiser": 2}}}
    loop = policy(nodes)
    loop.tick(contexts(100.0, 4, settings))
    assert loop.tick(contexts(102.0, 4, settings, sessions=400))["Denoiser"] == 6, "three nodes of two replicas each"
    assert nodes.wanted == [(1, "trn2 trn2-spot"), (3, "trn2 trn2-spot")]


def crowded(now: float, settings: dict[str, Any], since: float) -> dict[str, Any]:
    """More viewers than any pool has room for, on replicas that hold four each."""
    return contexts(now, 4, settings, since, sessions=400)


def pool(name: str, most: int) -> dict[str, Any]:
    return {"nodes": {"pools": [{"name": name, "max_nodes": most}], "units": 4, "replica_units": {"denoiser": 2}}}


def settings_in(door: Any) -> dict[str, Any]:
    return {number: series for number, series in door.raw_metrics.items() if number.startswith("scaling ")}


def test_settings_that_the_front_doors_are_told_later_count_from_the_next_decision_on() -> None:
    nodes = Up(up=4)
    loop = policy(nodes)
    loop.tick(crowded(100.0, pool("trn2", 2), since=50.0))
    assert nodes.wanted.pop() == (2, "trn2")
    changed = crowded(102.0, pool("spot", 3), since=101.0)
    for number, series in settings_in(crowded(102.0, pool("trn2", 2), since=50.0)[FRONT_DOOR]).items():
        changed[FRONT_DOOR].raw_metrics[number] = {"z": series["a"]}  # a second front door has not heard yet
    loop.tick(changed)
    assert nodes.wanted.pop() == (3, "spot")
    silent = crowded(104.0, {}, since=0.0)
    for number in settings_in(silent[FRONT_DOOR]):
        del silent[FRONT_DOOR].raw_metrics[number]
    loop.tick(silent)
    assert nodes.wanted.pop() == (3, "spot"), "what was told last stands"
    loop.tick(crowded(106.0, {}, since=105.0))
    assert not nodes.wanted, "no nodes are to be asked for any more"


def test_a_wrong_setting_ends_no_replica_that_serves() -> None:
    times = iter([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"user_config\.scaling\.z: "):
        Tuned(lambda: 0.0, print).take({"scaling": {"z": -1}})
    tenants: list[dict[str, Tenant]] = []
    tuned = Tuned(lambda: next(times), tenants.append)
    assert newest_settings([tuned.numbers]) == ScalingSettings()
    tuned.take({"scaling": {"z": 2}})
    tuned.take({"scaling": {"z": -1}, "tenants": {"studio": {}}})
    assert tuned.numbers == scaling_numbers(ScalingSettings(z=2), 2.0)
    tuned.take({"scaling": {"z": 3}, "tenants": {"studio": {"weight": 2, "max_sessions": 8}}})
    assert tuned.numbers == scaling_numbers(ScalingSettings(z=3), 3.0)
    assert tenants == [{}, {"studio": Tenant(2, 8)}]


def test_settings_of_another_version_are_left_out() -> None:
    known = scaling_numbers(tuning({"scaling": {"z": 2}}).scaling, 1.0)
    assert newest_settings([known, {'scaling {"zz":1}': 9.0}]) == tuning({"scaling": {"z": 2}}).scaling
    assert newest_settings([door(live=3)]) is None


def test_serve_s_identifiers_come_back() -> None:
    chosen, state = PipelinePolicy()({("app", name): c for name, c in contexts(100.0, 3).items()})
    assert set(chosen) == {("app", name) for name in STAGE_DEPLOYMENTS.values()}
    assert state is None


def test_a_decision_does_not_grow_with_what_came_before() -> None:
    """Counted in calls of functions; `bench.costs.hot_path` has the seconds."""
    loop, settings = policy(), {"interval_seconds": 1}

    def work(now: float) -> int:
        seen = contexts(now, 40, settings)
        return calls_of(lambda: loop.tick(seen))

    for n in range(400):
        loop.tick(contexts(100.0 + n, 40, settings))
    early = work(500.0)
    for n in range(401, 2000):
        loop.tick(contexts(100.0 + n, 40, settings))
    assert work(2100.0) <= 1.1 * early
    assert work(2100.1) < 0.1 * early, "between two decisions the last one is repeated"


def test_the_terms_are_those_of_the_configuration() -> None:
    told = AppConfig().terms()
    assert (told.steps, told.tiers, told.utilisation) == (4, (3, 2), 0.8)


def test_counters_of_replicas_that_come_and_go() -> None:
    totals = Totals()
    seen: list[dict[str, int]] = [{"a": 5}, {"a": 7, "b": 100}, {"b": 103}, {"b": 1}, {}, {"c": 9}, {"c": 10}]
    sums = [totals.add({name: Counters(chunks=value, prompts=3) for name, value in round_.items()}) for round_ in seen]
    assert [(each.chunks, each.prompts) for each in sums] == [(n, 0) for n in (0, 2, 5, 6, 6, 6, 7)]


def test_each_counter_of_a_front_door_is_summed_as_itself() -> None:
    report = FrontDoorReport(replace(ADMISSION, arrivals=1, departures=2), ViewerTotals(3, 4, 5, 6, 7), TERMS)
    assert Counters.of(report) == Counters(
        arrivals=1, departures=2, prompts=3, chunks=4, late_chunks=5, first_frames=6, late_first_frames=7
    )


def test_a_front_door_that_has_not_reported_yet_is_waited_for_and_one_that_lacks_a_number_stops_decisions() -> None:
    loop = policy()
    starting = contexts(100.0, 3)
    starting[FRONT_DOOR].raw_metrics["running_requests"] = {"z": [SimpleNamespace(value=1.0)]}  # Serve's own count
    assert loop.tick(starting)["Denoiser"] == 1
    partly = contexts(200.0, 3)
    del partly[FRONT_DOOR].raw_metrics[next(iter(door()))]
    assert loop.tick(partly) == {}


def test_the_newest_value_counts() -> None:
    assert latest(context("X", {"r": {"n": 3.0}}, 0.0)) == {"r": {"n": 3.0}}


@pytest.mark.parametrize(
    ("kwargs", "field"),
    [
        ({"zz": 1}, "user_config.scaling.zz"),
        ({"z": -1}, "user_config.scaling.z"),
        ({"stable_window_seconds": 5}, "stable_window_seconds must be at least"),
        ({"nodes": {"pools": [], "units": 4, "replica_units": {}}}, "user_config.scaling.nodes.pools"),
        (
            {"nodes": {"pools": [{"name": "t", "max_nodes": 1}], "units": 2, "replica_units": {"denoiser": 4}}},
            "replica_units.denoiser must be at most the 2 units",
        ),
    ],
)
def test_wrong_arguments_name_themselves(kwargs: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        tuning({"scaling": kwargs})
    with pytest.raises(InvalidRequest, match=field):
        load(STAGED_CONFIG, Overrides(scaling=kwargs))


def test_without_the_policy_ray_s_own_is_left() -> None:
    document, _ = load(STAGED_CONFIG, Overrides(scaling=None))
    assert "autoscaling_policy" not in document["applications"][0]


@pytest.mark.parametrize(
    ("candidates", "chosen"),
    [
        ([], None),
        ([Candidate(5, 8, 0), Candidate(0, 8, 1)], 0),
        ([Candidate(6, 8, 0), Candidate(0, 8, 1)], 1),
        ([Candidate(9, 8, 0), Candidate(8, 8, 1)], 1),
        ([Candidate(3, None, 0), Candidate(2, None, 1)], 1),
        ([Candidate(0, 1, 1), Candidate(0, 1, 0)], 1),
    ],
    ids=["nobody", "kept first", "full", "all full", "unmeasured", "one session each"],
)
def test_replicas_that_stay_are_filled_first(candidates: list[Candidate], chosen: int | None) -> None:
    assert preferred(candidates) == chosen


@pytest.mark.parametrize(
    ("config", "shrinks"),
    [
        (DeploymentConfig(num_replicas=2), False),
        (DeploymentConfig(autoscaling_config=AutoscalingConfig(min_replicas=2, max_replicas=2)), False),
        (DeploymentConfig(autoscaling_config=AutoscalingConfig(min_replicas=1, max_replicas=2)), True),
    ],
    ids=["so many", "pinned", "scaled"],
)
def test_replicas_are_filled_one_by_one_only_where_some_may_go(config: DeploymentConfig, shrinks: bool) -> None:
    assert may_shrink(cast("ReplicaContext", SimpleNamespace(_deployment_config=config))) == shrinks
