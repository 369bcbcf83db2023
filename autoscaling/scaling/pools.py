"""Which nodes to ask for by name: those to keep, and new ones from the first pool that can give them.

A cluster's autoscaler is told the least that it must hold. To say "three nodes" is not enough: it would hold any three, idle ones among
them, beside busy ones that nobody held, so that a whole node more is paid for than was planned; and of two node types that would both
do, Ray 2.60's asks for the same one again and again, though the cloud has none. So what is asked for names nodes and pools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodePool:
    """A node type of the cluster, by its name there, and how many of it there may be."""

    name: str
    max_nodes: int

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name of a node pool must not be empty")
        if self.max_nodes < 0:
            raise ValueError(f"max_nodes of node pool {self.name} must be 0 or more; got {self.max_nodes}")


@dataclass(frozen=True, slots=True)
class PoolNode:
    """A node that is up. `busy`: something runs on it, so it stays whatever is asked for."""

    node_id: str
    pool: str
    busy: bool


@dataclass(frozen=True, slots=True)
class Hold:
    """One node to have: the one named, or a new one of the pool where `node_id` is empty."""

    pool: str
    node_id: str = ""


def holds(
    wanted: int,
    pools: Sequence[NodePool],
    nodes: Sequence[PoolNode],
    coming: Mapping[str, int],
    refused: Mapping[str, float],
    now: float,
    retry_s: float,
) -> tuple[Hold, ...]:
    """At most `wanted` nodes to have.

    Args:
        wanted: nodes that the plan needs.
        pools: best first.
        nodes: that are up; those of no pool here are not counted.
        coming: nodes that were asked for, by us or for a replica that waits, and are not up yet, by pool.
        refused: when the cloud last had none of a pool, by name.
        now, retry_s: a pool is not asked again for so long after it refused, as long as another one has room.

    Returns:
        Busy nodes before idle ones, so that the idle ones are what goes; then those that come; then new ones. Where every pool with room
        has refused, the one that did so first is asked again.
    """
    order = {pool.name: place for place, pool in enumerate(pools)}
    up = sorted((n for n in nodes if n.pool in order), key=lambda n: (not n.busy, order[n.pool], n.node_id))
    kept = [Hold(node.pool, node.node_id) for node in up[: max(0, wanted)]]
    room = {pool.name: pool.max_nodes - sum(node.pool == pool.name for node in up) for pool in pools}

    def reluctance(pool: NodePool) -> tuple[float, int]:
        at = refused.get(pool.name)
        return (0.0 if at is None or now - at >= retry_s else 1.0 + at, order[pool.name])

    new: list[Hold] = []
    on_their_way = [(pool, coming.get(pool.name, 0)) for pool in pools]
    for pool, most in on_their_way + [(pool, wanted) for pool in sorted(pools, key=reluctance)]:
        count = max(0, min(most, room[pool.name], wanted - len(kept) - len(new)))
        new += [Hold(pool.name)] * count
        room[pool.name] -= count
    return (*kept, *new)
