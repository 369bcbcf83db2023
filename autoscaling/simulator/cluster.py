"""Nodes and replicas: placement, cold starts, nodes that come late and go when idle, and whom Serve stops first."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, auto

from autoscaling.scaling.nodes import nodes_needed
from autoscaling.simulator.workload import Rng
from model_core.stage import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What the cluster is made of. Start times are lognormal with these means and `start_cv`.

    Attributes:
        units: that a replica of each stage takes of a node's `node_units`.
        node_start_s: from the request of a node to its first replica's start.
        replica_start_s: from there, or from a replica's request on a node that is up, to its first session.
        idle_s: a node without replicas goes after so long.
        shutdown_s: before its end, a replica on a node that will be taken back drains, whether or not another one runs in its place.
        spread: replicas go to the emptiest node, as Serve does by default; else to the fullest that has room.
        node_cost_per_h: for the report.
    """

    units: Mapping[Stage, int] = field(default_factory=lambda: {Stage.TEXT_ENCODER: 1, Stage.DENOISER: 8, Stage.DECODER: 2})
    node_units: int = 32
    max_nodes: int = 64
    node_start_s: float = 150.0
    replica_start_s: Mapping[Stage, float] = field(
        default_factory=lambda: {Stage.TEXT_ENCODER: 15.0, Stage.DENOISER: 30.0, Stage.DECODER: 20.0}
    )
    start_cv: float = 0.2
    idle_s: float = 60.0
    shutdown_s: float = 20.0
    spread: bool = False
    node_cost_per_h: float = 1.0


class Phase(IntEnum):
    """Of a replica: wanted and without a place, starting, serving, emptying."""

    PENDING = auto()
    STARTING = auto()
    RUNNING = auto()
    DRAINING = auto()


@dataclass(slots=True, eq=False)
class Node:
    """One machine, paid for from `asked_at` on. `leaving_at`: when it will be taken back."""

    key: int
    asked_at: float
    up_at: float
    units: int
    free: int
    replicas: int = 0
    idle_since: float = math.inf
    leaving_at: float = math.inf


@dataclass(slots=True, eq=False)
class Replica:
    """`plane`: its number in the data plane; `sessions`: that it holds, in the order in which they came."""

    key: int
    stage: Stage
    phase: Phase = Phase.PENDING
    node: Node | None = None
    ready_at: float = math.inf
    drain_since: float = math.inf
    plane: int = -1
    sessions: dict[int, None] = field(default_factory=dict)

    @property
    def staying(self) -> bool:
        """Neither on its way out nor on a node that will be taken back."""
        return self.phase is not Phase.DRAINING and (self.node is None or self.node.leaving_at == math.inf)


class Cluster:
    """One owner: the simulation. It tells it targets and the time, and takes the replicas that became ready."""

    def __init__(self, hardware: Hardware, rng: Rng) -> None:
        self.hardware = hardware
        self._rng = rng
        self._keys = 0
        self.nodes: dict[int, Node] = {}
        self.replicas: dict[Stage, dict[int, Replica]] = {stage: {} for stage in Stage}
        self.floor = 0
        self.node_s = 0.0
        self.replica_s = dict.fromkeys(Stage, 0.0)
        self._listed: dict[Stage, dict[Phase, list[Replica]]] = {}  # until one of the stage comes, goes or is in another phase

    def those(self, stage: Stage, phase: Phase) -> list[Replica]:
        """In that phase, in the order in which they were asked for; not to be changed."""
        if (listed := self._listed.get(stage)) is None:
            listed = self._listed[stage] = {each: [] for each in Phase}
            for replica in self.replicas[stage].values():
                listed[replica.phase].append(replica)
        return listed[phase]

    def running(self, stage: Stage) -> list[Replica]:
        return self.those(stage, Phase.RUNNING)

    def wanted(self, stage: Stage) -> int:
        """Replicas that stay."""
        staying = len(self.replicas[stage]) - len(self.those(stage, Phase.DRAINING))
        return staying - len(self._leaving(stage))

    def _leaving(self, stage: Stage) -> list[Replica]:
        """Those on nodes that will be taken back, and which do not drain yet."""
        if all(node.leaving_at == math.inf for node in self.nodes.values()):
            return []
        return [r for r in self.replicas[stage].values() if r.phase is not Phase.DRAINING and not r.staying]

    def _turn(self, replica: Replica, phase: Phase) -> None:
        replica.phase = phase
        self._listed.pop(replica.stage, None)

    def staying_nodes(self, now: float) -> int:
        """Nodes up by `now` that nobody will take back."""
        return sum(n.up_at <= now and n.leaving_at == math.inf for n in self.nodes.values())

    def charge(self, seconds: float, now: float) -> None:
        """The last `seconds` cost this."""
        self.node_s += seconds * len(self.nodes)
        for stage in Stage:
            started = sum(r.ready_at <= now for r in self.those(stage, Phase.STARTING))
            self.replica_s[stage] += seconds * (started + len(self.running(stage)) + len(self.those(stage, Phase.DRAINING)))

    def scale(self, targets: Mapping[Stage, int], floor: int | None, now: float) -> None:
        """Ask for so many of each, and for at least `floor` nodes."""
        self.floor = min(floor or 0, self.hardware.max_nodes)
        for stage, target in targets.items():
            excess = self.wanted(stage) - target
            if excess > 0:
                for replica in self.victims(stage)[:excess]:
                    self.drain(replica, now)
            for _ in range(-excess):
                self._keys += 1
                self.replicas[stage][self._keys] = replica = Replica(self._keys, stage)
                self._turn(replica, Phase.PENDING)
            self._migrate(stage, target, now)

    def _migrate(self, stage: Stage, target: int, now: float) -> None:
        """As Serve does on nodes that drain: a replica goes once another one runs in its place, or when its time is up."""
        replaced = len(self.running(stage)) - target
        for replica in self._leaving(stage):
            assert replica.node is not None  # noqa: S101 - it would not be leaving
            starting = replica.phase is not Phase.RUNNING
            if starting or replaced > 0 or now >= replica.node.leaving_at - self.hardware.shutdown_s:
                self.drain(replica, now)
                replaced -= not starting

    def victims(self, stage: Stage) -> list[Replica]:
        """Those that stay, in the order in which Serve would stop them: not yet running, on the emptiest node, newest first."""
        here = [r for r in self.replicas[stage].values() if r.staying]
        return sorted(here, key=lambda r: (r.phase is Phase.RUNNING, r.node.replicas if r.node else 0, -r.key))

    def drain(self, replica: Replica, now: float) -> None:
        """It takes no more sessions; one that has none yet goes at once."""
        if replica.phase is Phase.RUNNING:
            replica.drain_since = now
            self._turn(replica, Phase.DRAINING)
        elif replica.phase is not Phase.DRAINING:
            self.remove(replica, now)

    def remove(self, replica: Replica, now: float) -> None:
        """It is gone."""
        if self.replicas[replica.stage].pop(replica.key, None) is None:
            return
        self._listed.pop(replica.stage, None)
        if (node := replica.node) is not None:
            node.free += self.hardware.units[replica.stage]
            node.replicas -= 1
            if not node.replicas:
                node.idle_since = now

    def advance(self, now: float) -> list[Replica]:
        """Place, buy, start, release. Returns the replicas that run from now on."""
        self._place(now)
        self._buy(now)
        self._release(now)
        ready = [r for stage in Stage for r in self.those(stage, Phase.STARTING) if r.ready_at <= now]
        for replica in ready:
            self._turn(replica, Phase.RUNNING)
        return ready

    def prewarm(self, targets: Mapping[Stage, int]) -> list[Replica]:
        """Targets and their nodes at once, before anything else happens."""
        self.scale(targets, 0, 0.0)
        for _ in range(min(self.hardware.max_nodes, nodes_needed(targets, self.hardware.units, self.hardware.node_units))):
            self._add_node(0.0, 0.0)
        self._place(0.0)
        for stage in Stage:
            for replica in self.replicas[stage].values():
                replica.ready_at = 0.0
        return self.advance(0.0)

    def withdraw(self, luck: float, now: float, notice_s: float) -> Node | None:
        """Somebody takes back the node that `luck` picks, after a notice. None if there is none."""
        up = [n for n in self.nodes.values() if n.up_at <= now and n.leaving_at == math.inf]
        if not up:
            return None
        node = up[int(luck * len(up))]
        node.leaving_at = now + notice_s
        return node

    def lose(self, node: Node, now: float) -> list[Replica]:
        """It is gone, with these replicas on it."""
        lost = [r for stage in Stage for r in self.replicas[stage].values() if r.node is node]
        for replica in lost:
            self.remove(replica, now)
        self.nodes.pop(node.key, None)
        return lost

    def _start_s(self, mean_s: float) -> float:
        return float(mean_s * self._rng.lognormal(-(self.hardware.start_cv**2) / 2, self.hardware.start_cv))

    def _place(self, now: float) -> None:
        if not (pending := [r for stage in Stage for r in self.those(stage, Phase.PENDING)]):
            return
        sign = -1 if self.hardware.spread else 1
        rooms: dict[int, list[int]] = {}  # nodes by what they have free, the oldest first: a heap each
        for node in self.nodes.values():
            if node.up_at <= now and node.leaving_at == math.inf:
                rooms.setdefault(node.free, []).append(node.key)
        for replica in sorted(pending, key=lambda r: r.key):  # first asked for, first placed
            units = self.hardware.units[replica.stage]
            free = min((f for f, keys in rooms.items() if keys and f >= units), key=lambda f: sign * f, default=None)
            if free is None:
                continue
            node = self.nodes[heapq.heappop(rooms[free])]
            node.free -= units
            node.replicas += 1
            node.idle_since = math.inf
            heapq.heappush(rooms.setdefault(node.free, []), node.key)
            replica.node = node
            self._turn(replica, Phase.STARTING)
            replica.ready_at = now + self._start_s(self.hardware.replica_start_s[replica.stage])

    def _buy(self, now: float) -> None:
        """Nodes for what has no place, beyond those on their way."""
        units, coming = self.hardware.units, [n.units for n in self.nodes.values() if n.up_at > now]
        pending = [r for stage in Stage for r in self.those(stage, Phase.PENDING)]
        for replica in sorted(pending, key=lambda r: -units[r.stage]):
            fits = next((k for k, free in enumerate(coming) if free >= units[replica.stage]), None)
            if fits is None and len(self.nodes) < self.hardware.max_nodes:
                self._add_node(now, now + self._start_s(self.hardware.node_start_s))
                coming.append(self.hardware.node_units)
                fits = len(coming) - 1
            if fits is not None:
                coming[fits] -= units[replica.stage]
        while self.staying_nodes(math.inf) < self.floor and len(self.nodes) < self.hardware.max_nodes:
            self._add_node(now, now + self._start_s(self.hardware.node_start_s))

    def _add_node(self, asked_at: float, up_at: float) -> None:
        self._keys += 1
        units = self.hardware.node_units
        self.nodes[self._keys] = Node(self._keys, asked_at, up_at, units, units, idle_since=up_at)

    def _release(self, now: float) -> None:
        idle = [n for n in self.nodes.values() if not n.replicas and now - n.idle_since >= self.hardware.idle_s]
        for node in idle[: max(0, self.staying_nodes(math.inf) - self.floor)]:
            del self.nodes[node.key]
