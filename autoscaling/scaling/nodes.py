"""Replicas on whole nodes: how many nodes a set of replicas needs, and how many replicas fill a number of nodes.

Nodes are alike and offer a number of units of one resource; a replica of each stage takes a fixed number of them. Packing is first-fit by
decreasing size, which for one or two sizes is exact where the larger is a multiple of the smaller, and never too optimistic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

S = TypeVar("S")


def nodes_needed(replicas: Mapping[S, int], units: Mapping[S, int], node_units: int) -> int:
    """Nodes of `node_units` on which `replicas`, of `units` each, fit. Those of 0 units take no room."""
    sizes = sorted(((units[stage], count) for stage, count in replicas.items() if units[stage] > 0 and count > 0), reverse=True)
    free: dict[int, int] = {}  # begun nodes, by the units that are left on each
    nodes = 0
    for size, count in sizes:
        left = count
        for room in sorted(k for k in free if k >= size):
            left -= _place(free, size, left, room, free.pop(room))
        begun = -(-left // (node_units // size))
        _place(free, size, left, node_units, begun)
        nodes += begun
    return nodes


def most_that_fit(stage: S, replicas: Mapping[S, int], nodes: int, units: Mapping[S, int], node_units: int, most: int) -> int:
    """Most replicas of `stage`, up to `most`, that `nodes` hold beside the others; what it has where not even that fits."""
    low, high = replicas[stage], max(replicas[stage], most)
    while low < high:
        middle = (low + high + 1) // 2
        if nodes_needed({**replicas, stage: middle}, units, node_units) <= nodes:
            low = middle
        else:
            high = middle - 1
    return low


def _place(free: dict[int, int], size: int, count: int, room: int, nodes: int) -> int:
    """Put up to `count` on `nodes` with `room` each, and note in `free` what is left on them; how many were put."""
    each = room // size
    placed = min(count, nodes * each)
    full, last = divmod(placed, each)
    for left, number in ((room - size * each, full), (room - size * last, 1 if last else 0), (room, nodes - full - (1 if last else 0))):
        if left > 0 and number > 0:
            free[left] = free.get(left, 0) + number
    return placed
