"""One run: visitors meet admission, admission meets stages, stages meet a cluster, and the cluster meets a policy.

The control plane is a loop over small ticks. What has a time of its own (an arrival, an end, a change of mind, a fault) happens at that
time, but the data plane moves only at ticks; sessions end, and slots are free again, up to a tick later than they would.
Admission, brown-out, fairness and estimation are the objects that the front door uses.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import repeat

import numpy as np

from autoscaling.admission.control import AdmissionControl
from autoscaling.admission.decide import DEFAULT_TENANT, AdmissionConfig, Admit, Ask, Reject
from autoscaling.capacity.estimate import CapacityEstimator, DecodeReading, DenoiseReading, TextReading
from autoscaling.scaling import Observation, StageReplicas
from autoscaling.simulator.arrays import Floats
from autoscaling.simulator.cluster import Cluster, Hardware, Phase, Replica
from autoscaling.simulator.fast import FastPlane
from autoscaling.simulator.fine import FinePlane
from autoscaling.simulator.legs import Legs
from autoscaling.simulator.outcome import Books, Outcome, Timeline, by_bin, quantile
from autoscaling.simulator.plane import DataPlane, StageTimes
from autoscaling.simulator.signals import Autoscaler, History, Sample, Target
from autoscaling.simulator.workload import Workload, draw, fault_times, streams
from model_core.stage import Stage

_UNBOUNDED = 1_000_000
# A crash is seen after so long.
_DETECT_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """All but the visitors and the policy.

    Attributes:
        utilisation: see `autoscaling.capacity.profile.Capacity.budget_s`.
        ttff_s: objective.
        seconds, warm_s: length of a run; what comes before `warm_s` is not counted.
        prewarmed: replicas that are there at the start, by stage.
        tick_s, sample_s: of the control plane; of the signals and of admission's look at the stages.
        fine: the slow data plane instead of the fast one.
        grace_s: None where draining replicas hand their sessions over; else sessions run on for so long, and are killed then.
    """

    times: StageTimes
    hardware: Hardware
    admission: AdmissionConfig
    utilisation: float = 0.8
    ttff_s: float = 1.0
    seconds: float = 1800.0
    warm_s: float = 300.0
    prewarmed: dict[Stage, int] = field(default_factory=lambda: dict.fromkeys(Stage, 1))
    tick_s: float = 0.05
    sample_s: float = 1.0
    bin_s: float = 10.0
    fine: bool = False
    grace_s: float | None = None


class Simulation:
    """See the module's docstring. `run` may be called once."""

    def __init__(self, setting: Setting, workload: Workload, policy: Autoscaler, seed: int) -> None:
        self._x, self._workload, self._policy = setting, workload, policy
        self.visitors = draw(workload, seed, setting.seconds)
        rng = streams(seed)
        self._failures, times = rng["failures"], setting.times
        chunks = np.maximum(1, np.ceil(self.visitors.length_s / times.chunk_s - 1e-9)).astype(np.int64)
        bins = math.ceil(setting.seconds / setting.bin_s)
        engines = max(64, setting.hardware.max_nodes * setting.hardware.node_units // max(1, setting.hardware.units[Stage.DENOISER]) + 64)
        plane: DataPlane = (
            FinePlane(times, chunks, seed, bins, setting.bin_s)
            if setting.fine
            else FastPlane(times, chunks, seed, bins, setting.bin_s, engines, 8 * engines)
        )
        self.plane = plane
        self.cluster = Cluster(setting.hardware, rng["starts"])
        self._estimator = CapacityEstimator(setting.utilisation * times.chunk_s, _UNBOUNDED, times.slots)
        self._control = AdmissionControl(setting.admission, self._estimator.capacity, 0.0)
        self._ask = Ask(DEFAULT_TENANT, times.steps, paced=True)
        self._fixed_ask = replace(self._ask, fixed=True)
        self.legs = Legs(times, plane, self.cluster)
        self.books = Books()
        self.timeline = Timeline(setting.bin_s)
        self.history = History()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._counted = 0
        self._now = 0.0
        self._tries: dict[int, int] = {}
        self._target = Target(dict(setting.prewarmed))
        self._warm_cost: tuple[float, dict[Stage, float]] = (0.0, dict.fromkeys(Stage, 0.0))
        self._peak = 0
        self._expecting: set[int] = set()
        self._firsts = (0, 0)  # first frames sent, and those that were late

    def run(self) -> Outcome:
        """To the end; sessions that still run then are neither killed nor ended."""
        x = self._x
        self._ready(self.cluster.prewarm(x.prewarmed), 0.0)
        for at, luck in fault_times(self._workload.faults.crash_s, self._failures, x.seconds):
            self._at(at, partial(self._crash, luck))
        for at, luck in fault_times(self._workload.faults.spot_s, self._failures, x.seconds):
            self._at(at, partial(self._withdraw, luck))
        self._at(0.0, self._sample)
        self._at(self._policy.interval_s, self._decide)
        self._at(0.0, self._plot)
        self._at(x.warm_s, self._warm)
        arrivals, nobody = self.visitors.at_s.tolist(), len(self.visitors.at_s)
        following = 0
        for tick in range(round(x.seconds / x.tick_s)):
            until = (tick + 1) * x.tick_s
            while following < nobody and arrivals[following] < until:
                at = arrivals[following]
                self._happen(at)
                self._now = at
                self.books.arrived += 1
                self.books.present.add(following)
                self._arrive(following, at)
                following += 1
            self._happen(until)
            for at, i in self.plane.advance(until):
                self._at(at, partial(self._end, i))
        return self._outcome()

    # What happens by itself.

    def _at(self, at: float, what: Callable[[float], None]) -> None:
        self._counted += 1
        heapq.heappush(self._events, (at, self._counted, what))

    def _happen(self, until: float) -> None:
        """What is known of only now, as the end of a session in the tick before, happens no earlier than what has happened already."""
        while self._events and self._events[0][0] < until:
            at, _, what = heapq.heappop(self._events)
            self._now = max(self._now, at)
            what(self._now)

    def _arrive(self, i: int, now: float) -> None:
        ask = self._fixed_ask if i in self.visitors.fixed else self._ask
        decision = self._control.arrive(i, ask, now, self.visitors.luck.item(i))
        if isinstance(decision, Admit):
            self._start(i, decision.steps, now)
        elif isinstance(decision, Reject):
            self._turn_away(i, decision.retry_after_s, now)
        else:
            self._at(now + self._workload.patience_s, partial(self._give_up, i))
        self._follow(now)

    def _turn_away(self, i: int, retry_after_s: float, now: float) -> None:
        tried = self._tries.get(i, 0)
        if tried >= self._workload.retries or self.visitors.luck[i] >= self._workload.retry_share:
            self.books.refused += 1
            self.books.present.remove(i)
            return
        self._tries[i] = tried + 1
        self._at(now + retry_after_s, partial(self._arrive, i))

    def _give_up(self, i: int, now: float) -> None:
        if i in self.books.present and i not in self.legs.sessions:
            self.books.abandoned += 1
            self.books.present.remove(i)
            self._control.leave(i, now)
            self._follow(now)

    def _start(self, i: int, steps: int, now: float) -> None:
        self.books.prompts += 1
        self._expecting.add(i)
        self.legs.start(i, steps, now)
        if self._workload.switch_s > 0:
            self._at(now + self.visitors.next_switch_s(i, 0), partial(self._switch, i, 1))

    def _switch(self, i: int, count: int, now: float) -> None:
        """A new prompt: the leg reopens with it, from the first chunk not yet sent."""
        if i in self.legs.sessions:
            self.books.prompts += 1
            self.legs.reopen(i, now, encode=True)
            self._at(now + self.visitors.next_switch_s(i, count), partial(self._switch, i, count + 1))

    def _end(self, i: int, now: float) -> None:
        if i in self.legs.sessions and self.plane.finished(i, now):
            self._gone(i, now)
            self.books.ended += 1

    def _gone(self, i: int, now: float) -> None:
        self.legs.close(i, now)
        self.books.present.remove(i)
        self._control.leave(i, now)
        self._follow(now)

    def _kill(self, i: int, now: float) -> None:
        self.books.killed += 1
        self._gone(i, now)

    def _follow(self, now: float) -> None:
        """What admission did to others."""
        for change in self._control.changes():
            if change.admitted:
                self._start(change.key, change.steps, now)
            else:
                self.legs.set_steps(change.key, change.steps, now)

    # Faults.

    def _crash(self, luck: float, now: float) -> None:
        if running := self.cluster.running(Stage.DENOISER):
            self._lost([running[int(luck * len(running))]], now)

    def _withdraw(self, luck: float, now: float) -> None:
        node = self.cluster.withdraw(luck, now, self._workload.faults.notice_s)
        if node is not None:
            self._at(node.leaving_at, lambda at: self._lost(self.cluster.lose(node, at), at))

    def _lost(self, replicas: list[Replica], now: float) -> None:
        for replica in replicas:
            self.cluster.remove(replica, now)
            for i in self.legs.empty(replica, now, hand_over=False):
                self.legs.reopen(i, now, delay_s=_DETECT_S)
            self.legs.remove(replica)

    # What is done again and again.

    def _ready(self, replicas: list[Replica], now: float) -> None:
        for replica in replicas:
            self.legs.add(replica, now)

    def _sample(self, now: float) -> None:
        """Drain, place, start, note the signals, and let admission see them as the front door's monitor does."""
        x = self._x
        self.cluster.scale(self._target.replicas, self._target.nodes, now)
        for stage in Stage:
            for replica in self.cluster.those(stage, Phase.DRAINING):
                overdue = x.grace_s is not None and now - replica.drain_since >= x.grace_s
                for i in self.legs.empty(replica, now, hand_over=x.grace_s is None):
                    if overdue:
                        self._kill(i, now)
                if not replica.sessions:
                    self.cluster.remove(replica, now)
                    self.legs.remove(replica)
        for i in self.legs.retry(now):
            self._kill(i, now)
        self._ready(self.cluster.advance(now), now)
        self._look_at_first_frames(now)
        self.cluster.charge(x.sample_s, now)
        seen = self._observation(now)
        self.history.add(Sample(now, seen, self.legs.ongoing(now, seen.waiting)))
        self._control.observe(self._estimator.observe(seen.denoise, seen.decode, len(self.legs.sessions)), now)
        self._follow(now)
        self._at(now + x.sample_s, self._sample)

    def _look_at_first_frames(self, now: float) -> None:
        first = self.plane.first_frames()
        seen = [i for i in self._expecting if first[i] <= now]
        late = sum(first[i] - self.visitors.at_s[i] > self._x.ttff_s for i in seen)
        self._expecting.difference_update(seen)
        self._firsts = (self._firsts[0] + len(seen), self._firsts[1] + int(late))

    def _decide(self, now: float) -> None:
        self._target = self._policy.decide(now, self.history)
        self._at(now + self._policy.interval_s, self._decide)

    def _plot(self, now: float) -> None:
        s = self._control.statistics()
        replicas = {str(stage): float(len(self.cluster.running(stage))) for stage in Stage}
        nodes = float(len(self.cluster.nodes))
        self.timeline.sample(now, live=float(s.live), waiting=float(s.waiting), level=float(s.level), nodes=nodes, **replicas)
        self._peak = max(self._peak, s.live)
        self._at(now + self._x.bin_s, self._plot)

    def _warm(self, now: float) -> None:
        self._warm_cost = (self.cluster.node_s, dict(self.cluster.replica_s))

    def _observation(self, now: float) -> Observation:
        running = {stage: self.cluster.running(stage) for stage in Stage}
        denoise, decode, times = running[Stage.DENOISER], running[Stage.DECODER], self._x.times
        work, decoded = self.plane.work([r.plane for r in denoise]), self.plane.decoding([r.plane for r in decode])
        held = [len(r.sessions) for r in denoise]
        statistics, books, played = self._control.statistics(), self.books, self.plane.played()
        return Observation(
            live=statistics.live, waiting=statistics.waiting, arrivals_total=books.arrived, ended_total=books.ended + books.killed,
            prompts_total=books.prompts,
            replicas={s: StageReplicas(len(running[s]), self._target.replicas[s]) for s in Stage},
            text=tuple(TextReading(r.key, *self.legs.encoded(r)) for r in running[Stage.TEXT_ENCODER]),
            denoise=tuple(map(DenoiseReading, _keys(denoise), repeat(times.slots), held, repeat(times.profile), *work)),
            decode=tuple(map(DecodeReading, _keys(decode), *decoded)),
            nodes=self.cluster.staying_nodes(now),
            chunks_total=float((played.on_time + played.late).sum()), late_chunks_total=float(played.late.sum()),
            first_frames_total=float(self._firsts[0]), late_first_frames_total=float(self._firsts[1]),
        )  # fmt: skip

    # What it came to.

    def ttff_s(self) -> Floats:
        """By visitor: from arrival to the first frame's arrival; infinity for none."""
        return self.plane.first_frames() - self.visitors.at_s + self._x.times.hop_s

    def _outcome(self) -> Outcome:
        x, played, bins = self._x, self.plane.played(), len(self.timeline.at_s)
        if not self.books.balanced():
            raise RuntimeError(f"sessions were lost or counted twice: {self.books}")
        # Who came so late that the run ended before the objective did, says nothing.
        at, ttff = self.visitors.at_s, self.ttff_s()
        counted = (at >= x.warm_s) & (at < x.seconds - max(10.0, x.ttff_s))
        ttff_counted = ttff[counted]
        started = ttff_counted[np.isfinite(ttff_counted)]
        first = int(x.warm_s / x.bin_s)
        on_time, chunks = int(played.on_time[first:].sum()), int((played.on_time + played.late)[first:].sum())
        node_s = self.cluster.node_s - self._warm_cost[0]
        good_s = on_time * x.times.chunk_s
        seen = np.isfinite(ttff)
        self.timeline.ttff_p99_s = by_bin(at[seen], ttff[seen], bins, x.bin_s, 0.99)
        self.timeline.on_time = [round(float(a / max(1, a + b)), 5) for a, b in zip(played.on_time, played.late, strict=True)]
        return Outcome(
            arrivals=int(counted.sum()), ttff_share=float((started <= x.ttff_s).sum() / max(1, counted.sum())),
            ttff_p50_s=quantile(started, 0.5), ttff_p99_s=quantile(started, 0.99), on_time_share=on_time / max(1, chunks),
            degraded_share=int(played.degraded[first:].sum()) / max(1, chunks), killed=self.books.killed, refused=self.books.refused,
            abandoned=self.books.abandoned, node_hours=node_s / 3600,
            replica_hours={str(s): (self.cluster.replica_s[s] - self._warm_cost[1][s]) / 3600 for s in Stage},
            cost=node_s / 3600 * x.hardware.node_cost_per_h / max(1.0, good_s), good_s=good_s, peak_sessions=self._peak,
            events=played.events + self._counted + self.books.arrived,
        )  # fmt: skip


def _keys(replicas: list[Replica]) -> list[float]:
    return [r.key for r in replicas]
