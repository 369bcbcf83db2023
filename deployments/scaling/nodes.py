"""Asks Ray's autoscaler for the nodes that a plan needs, ahead of the replicas that will need them.

A policy runs inside Serve's controller and must never wait, so this is an actor beside it. It also reads what became of the requests: of
several node types that would do, Ray 2.60 asks for the one it likes best, and goes on asking when the cloud has none; the actor sees the
failure and names another pool. Which nodes to name is decided in `autoscaling.scaling.pools`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import ray
from ray.autoscaler.sdk import request_resources
from ray.autoscaler.v2.schema import ClusterStatus
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.serve._private.constants import SERVE_NAMESPACE
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from autoscaling.scaling.pools import Hold, NodePool, PoolNode, holds

ACTOR = "headrace-nodes"
RETRY_S = 300.0
# Without a word from the policy for so long, the application has gone and its nodes may go; a controller comes back much sooner.
LEASE_S = 60.0
_EVERY_S = 1.0
_NODE_ID = "ray.io/node-id"  # a label that Ray gives every node


@dataclass(frozen=True, slots=True)
class NodesSeen:
    """Nodes that are up, and by node type those that come, and when a launch last failed, in seconds since the epoch."""

    nodes: tuple[PoolNode, ...]
    refused: Mapping[str, float]
    coming: Mapping[str, int] = field(default_factory=dict)


class Autoscaler(Protocol):
    """The cluster's."""

    def look(self) -> NodesSeen: ...

    def ask(self, wanted: Sequence[Hold]) -> None:
        """Hold these, and no others."""
        ...


class RayAutoscaler:
    """Ray's. Every node of a pool offers one of a resource with the pool's name, so that a bundle can ask for the pool."""

    def look(self) -> NodesSeen:
        return nodes_seen(get_cluster_status(ray.get_runtime_context().gcs_address))

    def ask(self, wanted: Sequence[Hold]) -> None:
        selectors = [{_NODE_ID: hold.node_id} if hold.node_id else {} for hold in wanted]
        request_resources(bundles=[{hold.pool: 1} for hold in wanted], bundle_label_selectors=selectors)


def nodes_seen(status: ClusterStatus) -> NodesSeen:
    """What Ray's answer says of nodes."""
    nodes = [
        PoolNode(node.node_id, node.ray_node_type_name, busy)
        for group, busy in ((status.active_nodes, True), (status.idle_nodes, False))
        for node in group
        if node.node_id
    ]
    refused: dict[str, float] = {}
    for launch in status.failed_launches:
        at = float(launch.failed_ts_s or launch.request_ts_s)
        refused[launch.ray_node_type_name] = max(at, refused.get(launch.ray_node_type_name, 0.0))
    coming = Counter(node.ray_node_type_name for node in status.pending_nodes)
    for launch in status.pending_launches:
        # Of a type that was refused, a launch is pending all the time: Ray asks again and again.
        if launch.ray_node_type_name not in refused:
            coming[launch.ray_node_type_name] += launch.count
    return NodesSeen(tuple(nodes), refused, coming)


class NodeKeeper:
    """Holds the number of nodes it was told last, until it is told nothing for `lease_s`; then it lets go of all.

    Args:
        autoscaler: is asked.
        clock: seconds since the epoch.
        lease_s: see above.
    """

    def __init__(self, autoscaler: Autoscaler, clock: Callable[[], float], lease_s: float = LEASE_S) -> None:
        self._pools: tuple[NodePool, ...] = ()
        self._autoscaler = autoscaler
        self._clock = clock
        self._retry_s = RETRY_S
        self._lease_s = lease_s
        self._wanted: int | None = None
        self._told_at = clock()
        self._asked: tuple[Hold, ...] | None = None
        self._up: int | None = None

    @property
    def expired(self) -> bool:
        return self._clock() - self._told_at >= self._lease_s

    def hold(self, wanted: int, pools: Sequence[NodePool], retry_s: float = RETRY_S) -> int | None:
        """Hold `wanted` nodes of `pools`, best first, from now on; `retry_s` as in `autoscaling.scaling.pools.holds`.

        Returns how many were up when it looked last; None if it has not looked for nodes of these pools yet.
        """
        self._wanted, self._told_at, self._retry_s = wanted, self._clock(), retry_s
        if self._pools != tuple(pools):
            self._pools, self._up = tuple(pools), None
        return self._up

    def step(self) -> None:
        """Look, and ask if that changes what was asked for last. Before it has been told anything it leaves alone what others asked for."""
        seen = self._autoscaler.look()
        if self._wanted is None:
            return
        names = {pool.name for pool in self._pools}
        self._up = sum(node.pool in names for node in seen.nodes)
        wanted = 0 if self.expired else self._wanted
        now_asked = holds(wanted, self._pools, seen.nodes, seen.coming, seen.refused, self._clock(), self._retry_s)
        if now_asked != self._asked:
            self._autoscaler.ask(now_asked)
            self._asked = now_asked


class NodeKeeperActor:
    """A `NodeKeeper` at work. It ends itself once nobody has told it anything for its lease."""

    def __init__(self, lease_s: float = LEASE_S) -> None:
        self._keeper = NodeKeeper(RayAutoscaler(), time.time, lease_s)
        self._working = asyncio.get_event_loop().create_task(self._work())

    async def hold(self, wanted: int, pools: Sequence[tuple[str, int]], retry_s: float) -> int | None:
        """As `NodeKeeper.hold`; pools are names, and the most nodes of each. It may have been started by another version of this module."""
        return self._keeper.hold(wanted, [NodePool(name, most) for name, most in pools], retry_s)

    async def _work(self) -> None:
        while True:
            expired = self._keeper.expired
            await asyncio.to_thread(self._step)
            if expired:
                ray.actor.exit_actor()
            await asyncio.sleep(_EVERY_S)

    def _step(self) -> None:
        try:
            self._keeper.step()
        except Exception as error:  # noqa: BLE001 - whatever the autoscaler answers, the next round asks again
            print(f"nodes: {error!r}")  # noqa: T201 - Ray keeps what an actor prints


def node_keeper(lease_s: float = LEASE_S) -> Any:
    """A handle of the cluster's `NodeKeeperActor`, which is started if there is none.

    It outlives Serve's controller, and goes when its lease is over.
    """
    # Beside the caller, which is Serve's controller on the head: anywhere else it would keep a node busy that is to go, and go with one.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options: dict[str, Any] = {
        "name": ACTOR, "namespace": SERVE_NAMESPACE, "lifetime": "detached", "get_if_exists": True,
        "num_cpus": 0, "max_restarts": -1, "scheduling_strategy": here,
    }  # fmt: skip
    actor: Any = ray.remote(NodeKeeperActor)
    return actor.options(**options).remote(lease_s)
