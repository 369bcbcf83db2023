"""`autoscaling.scaling.plan` as an application-level policy of Ray Serve 2.60.

`serve.yaml` names the class; Serve makes one object of it in its controller and calls it in the control loop, ten times a second. So a call
must be quick and must never raise: most calls repeat the last decision, and an error leaves every stage as it is and is logged.

What it goes by comes from the front doors, so that a change of it replaces no replica; see `deployments.config.scaling`.

Three things of Serve shape what stands here. Custom numbers are averaged over time in `aggregated_metrics`, which is wrong for counters:
the newest raw value is taken. Contexts know nothing of nodes. A deployment with no replica and a queued call is started by Serve itself.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from autoscaling.capacity.estimate import DecodeReading, DenoiseReading, EnhanceReading, TextReading
from autoscaling.reports import FrontDoorReport, ReplicaReport, Terms, parse
from autoscaling.scaling import Observation, Plan, StageReplicas, State, plan
from autoscaling.scaling.enhancing import EnhanceState, enhance_replicas
from deployments.config.names import ENHANCER_DEPLOYMENT, FRONT_DOOR, deployment_name
from deployments.config.scaling import NodeSettings, ScalingSettings, enhancing, newest_settings
from deployments.replicas.metrics_port import ReplicaMetrics, announce
from deployments.scaling.nodes import node_keeper
from deployments.scaling.report import PolicyReport
from model_core.stage import Stage

R = TypeVar("R")

# Serve's logger writes where the controller's other lines go.
log = logging.getLogger("ray.serve.headrace")


class PipelinePolicy:
    """Sizes text encoder, denoiser and decoder together, and the enhancer by itself; leaves other deployments alone.

    Its argument is all that Serve may hash: where Prometheus reads the policy's metrics, on a free port that the front doors' `/targets`
    tells.
    """

    def __init__(self, metrics_host: str = "127.0.0.1") -> None:
        report = PolicyReport()
        self._loop = PolicyLoop(ClusterNodes(), report, time.perf_counter)
        if ray.is_initialized():
            metrics = ReplicaMetrics(report.registry, metrics_host)
            announce("Controller", metrics.address)
            weakref.finalize(self, metrics.close)  # Serve makes another policy when the application is deployed again

    def __call__(self, contexts: Mapping[Any, Any]) -> tuple[dict[Any, int], None]:
        """Replicas for the deployments of `contexts`, which are Serve's `AutoscalingContext`s by `DeploymentID`."""
        by_name = {context.deployment_name: (name, context) for name, context in contexts.items()}
        wanted = self._loop.tick({name: context for name, (_, context) in by_name.items()})
        return {by_name[name][0]: number for name, number in wanted.items()}, None


class NodeProvisioner(Protocol):
    """Where whole nodes come from. `up` of them run; None while that is not known. Neither may wait."""

    @property
    def up(self) -> int | None: ...

    def want(self, nodes: int, settings: NodeSettings) -> None:
        """Hold `nodes` of the pools in `settings` from now on; said at each decision."""
        ...


class PolicyLoop:
    """The policy without Serve's identifiers.

    Args:
        nodes: asks for nodes and counts them, where the settings want any.
        report: is told of every decision.
        timer: seconds, to time decisions.
        model: whose stages it sizes; empty for the application's default model.
    """

    def __init__(self, nodes: NodeProvisioner, report: PolicyReport, timer: Callable[[], float], model: str = "") -> None:
        self._model = model
        self._names = {stage: deployment_name(stage, model) for stage in Stage}
        self._settings = ScalingSettings()
        self._nodes = nodes
        self._report = report
        self._timer = timer
        self._totals = Totals()
        self._state = State()
        self._enhancing = EnhanceState()
        self._wanted: dict[str, int] = {}
        self._now = self._next = 0.0
        self._failing = False

    def tick(self, contexts: Mapping[str, Any]) -> Mapping[str, int]:
        """Replicas by deployment; of those that are not named, the number stands."""
        if not contexts or not set(self._names.values()) <= set(contexts):
            return {}
        now = float(next(iter(contexts.values())).current_time)
        if now >= self._next or now < self._now - self._settings.interval_seconds:  # the clock was set back
            self._next = now + self._settings.interval_seconds
            started = self._timer()
            try:
                self._decide(contexts, max(now, self._now))
                self._failing = False
            except Exception:
                if not self._failing:
                    log.exception("headrace scaling: no decision, every stage stays as it is")
                self._failing, self._wanted = True, {}
            self._report.took(self._timer() - started)
        return self._wanted

    def _decide(self, contexts: Mapping[str, Any], now: float) -> None:
        told = latest(contexts[FRONT_DOOR]) if FRONT_DOOR in contexts else {}
        self._settings = newest_settings(told.values()) or self._settings
        doors = reports(FrontDoorReport, told)
        if not doors:
            return  # no front door has reported yet
        terms = next(iter(doors.values())).terms
        limits = {
            stage: (contexts[name].capacity_adjusted_min_replicas, contexts[name].capacity_adjusted_max_replicas)
            for stage, name in self._names.items()
        }
        config = self._settings.config(terms, limits)
        replicas = {
            stage: StageReplicas(contexts[name].current_num_replicas, contexts[name].target_num_replicas)
            for stage, name in self._names.items()
        }
        self._now = now
        stages = {stage: tuple(reports(ReplicaReport, latest(contexts[name])).values()) for stage, name in self._names.items()}
        seen = self._observation(doors, stages, replicas)
        decided, self._state = plan(seen, config, self._state, now)
        self._apply(decided)
        if ENHANCER_DEPLOYMENT in contexts:
            self._enhance(contexts[ENHANCER_DEPLOYMENT], sum(door.enhanced for door in doors.values()), terms, now)

    def _enhance(self, context: Any, sessions: int, terms: Terms, now: float) -> None:
        config = enhancing(self._settings, terms, context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas)
        found = [EnhanceReading.of(report) for report in reports(ReplicaReport, latest(context)).values()]
        wanted, self._enhancing = enhance_replicas(sessions, found, config, self._enhancing, now)
        self._wanted[ENHANCER_DEPLOYMENT] = wanted
        self._report.sized(ENHANCER_DEPLOYMENT, context.target_num_replicas, wanted)

    def _observation(
        self, doors: Mapping[str, FrontDoorReport], stages: Mapping[Stage, Sequence[ReplicaReport]], replicas: Mapping[Stage, StageReplicas]
    ) -> Observation:
        now = [door.admission for door in doors.values()]
        totals = self._totals.add({name: Counters.of(door) for name, door in doors.items()})
        return Observation(
            live=sum(door.live - door.live_jobs for door in now),
            waiting=sum(door.waiting - door.waiting_jobs for door in now),
            jobs=sum(door.live_jobs + door.waiting_jobs for door in now),
            arrivals_total=totals.arrivals,
            ended_total=totals.departures,
            prompts_total=totals.prompts,
            chunks_total=totals.chunks,
            late_chunks_total=totals.late_chunks,
            first_frames_total=totals.first_frames,
            late_first_frames_total=totals.late_first_frames,
            replicas=replicas,
            text=tuple(map(TextReading.of, stages[Stage.TEXT_ENCODER])),
            denoise=tuple(map(DenoiseReading.of, stages[Stage.DENOISER])),
            decode=tuple(map(DecodeReading.of, stages[Stage.DECODER])),
            nodes=None if self._settings.nodes is None else self._nodes.up,
            model=self._model,
        )

    def _apply(self, decided: Plan) -> None:
        self._wanted = {self._names[stage]: number for stage, number in decided.replicas.items()}
        if self._settings.nodes is not None and decided.nodes is not None:
            self._nodes.want(decided.nodes, self._settings.nodes)
        self._report.decided(decided)


class ClusterNodes:
    """Those of the cluster's node keeper, an actor: it is told, and what it answered before is taken."""

    def __init__(self) -> None:
        self._keeper: Any = None
        self._answer: Any = None
        self._up: int | None = None

    @property
    def up(self) -> int | None:
        return self._up

    def want(self, nodes: int, settings: NodeSettings) -> None:
        self._hear()
        if self._keeper is None:
            self._keeper = node_keeper()
        if self._answer is None:
            pools = [(pool.name, pool.max_nodes) for pool in settings.pools]
            self._answer = self._keeper.hold.remote(nodes, pools, settings.retry_seconds)

    def _hear(self) -> None:
        if self._answer is None or not ray.wait([self._answer], timeout=0)[0]:
            return
        answer, self._answer = self._answer, None
        try:
            self._up = ray.get(answer)
        except RayTaskError as error:  # it is of another version, and will never understand
            log.warning("headrace scaling: the node keeper is replaced: %s", str(error).strip().splitlines()[-1])
            ray.kill(self._keeper)
            self._keeper = None
        except RayError:  # it has gone; the next call starts another
            self._keeper = None


def latest(context: Any) -> dict[str, dict[str, float]]:
    """The newest value of each number that each running replica exports, by replica."""
    found: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for name, series_of in (context.raw_metrics or {}).items():
        for replica, series in series_of.items():
            if series:
                found[str(replica)][name] = float(series[-1].value)
    return dict(found)


def reports(kind: type[R], told: Mapping[str, Mapping[str, float]]) -> dict[str, R]:
    """By replica; a replica that has not reported yet is left out.

    Raises:
        ReportError: one lacks numbers that a report must have.
    """
    return {name: report for name, numbers in told.items() if (report := parse(kind, numbers)) is not None}


class Counters(NamedTuple):
    """The counters in one front door's report, or their sums over front doors."""

    arrivals: float = 0.0
    departures: float = 0.0
    prompts: float = 0.0
    chunks: float = 0.0
    late_chunks: float = 0.0
    first_frames: float = 0.0
    late_first_frames: float = 0.0

    @classmethod
    def of(cls, door: FrontDoorReport) -> Counters:
        seen = door.viewers
        return cls(
            door.admission.arrivals, door.admission.departures, seen.prompts, seen.chunks, seen.late_chunks, seen.first_frames,
            seen.late_first_frames,
        )  # fmt: skip


class Totals:
    """Sums of counters over front doors that come and go: what each has added since it was first seen."""

    def __init__(self) -> None:
        self._last: Mapping[str, Counters] = {}
        self._sums = Counters()

    def add(self, doors: Mapping[str, Counters]) -> Counters:
        """The sums with what `doors` have counted since the last call. A counter that is below its last value has begun anew at 0."""
        for name, now in doors.items():
            added = (n - before if n >= before else n for n, before in zip(now, self._last.get(name, now), strict=True))
            self._sums = Counters(*(total + more for total, more in zip(self._sums, added, strict=True)))
        self._last = doors
        return self._sums
