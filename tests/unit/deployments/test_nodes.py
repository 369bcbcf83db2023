"""Which nodes are asked for by name, and when."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.autoscaler.v2.schema import ClusterStatus, LaunchRequest, NodeInfo

from autoscaling.scaling.pools import Hold, NodePool, PoolNode, holds
from deployments.scaling.nodes import NodeKeeper, NodesSeen, nodes_seen

SPOT, PAID = NodePool("spot", 2), NodePool("paid", 3)
POOLS = (SPOT, PAID)


def ask(
    wanted: int, nodes: Sequence[PoolNode] = (), refused: dict[str, float] | None = None, coming: dict[str, int] | None = None
) -> tuple[Hold, ...]:
    return holds(wanted, POOLS, nodes, coming or {}, refused or {}, now=1000.0, retry_s=300.0)


def test_new_nodes_come_from_the_best_pool_until_it_is_full() -> None:
    assert ask(3) == (Hold("spot"), Hold("spot"), Hold("paid"))


def test_a_pool_that_refused_is_left_alone_for_a_while() -> None:
    assert ask(1, refused={"spot": 900.0}) == (Hold("paid"),)
    assert ask(1, refused={"spot": 700.0}) == (Hold("spot"),)


def test_where_all_refused_the_first_to_refuse_is_asked_again() -> None:
    assert ask(1, refused={"spot": 990.0, "paid": 980.0}) == (Hold("paid"),)


def test_what_comes_already_is_not_asked_for_twice() -> None:
    """A replica that waits makes Ray ask for a node too, of the type that Ray likes."""
    assert ask(1, coming={"paid": 1}) == (Hold("paid"),)
    assert ask(1, coming={"spot": 1}, refused={"spot": 990.0}) == (Hold("spot"),)
    assert ask(2, coming={"paid": 4}, nodes=[PoolNode("a", "paid", busy=True)]) == (Hold("paid", "a"), Hold("paid"))
    assert ask(0, coming={"paid": 1}) == ()


def test_busy_nodes_are_kept_and_idle_ones_go() -> None:
    nodes = (PoolNode("a", "spot", busy=False), PoolNode("b", "paid", busy=True), PoolNode("c", "other", busy=True))
    assert ask(1, nodes) == (Hold("paid", "b"),)
    assert ask(2, nodes) == (Hold("paid", "b"), Hold("spot", "a"))
    assert ask(3, nodes) == (Hold("paid", "b"), Hold("spot", "a"), Hold("spot"))


@given(
    wanted=st.integers(-1, 9),
    nodes=st.lists(st.tuples(st.sampled_from(["spot", "paid", "other"]), st.booleans()), max_size=6),
    refused=st.dictionaries(st.sampled_from(["spot", "paid"]), st.floats(0, 1000)),
    coming=st.dictionaries(st.sampled_from(["spot", "paid"]), st.integers(0, 4)),
)
def test_never_more_than_wanted_and_no_pool_beyond_its_bound(
    wanted: int, nodes: list[tuple[str, bool]], refused: dict[str, float], coming: dict[str, int]
) -> None:
    up = [PoolNode(str(n), pool, busy) for n, (pool, busy) in enumerate(nodes)]
    asked = ask(wanted, up, refused, coming)
    assert len(asked) <= max(0, wanted)
    assert len({hold.node_id for hold in asked if hold.node_id}) == sum(bool(hold.node_id) for hold in asked)
    for pool in POOLS:
        new = sum(hold == Hold(pool.name) for hold in asked)
        assert new == 0 or new + sum(node.pool == pool.name for node in up) <= pool.max_nodes
    room = sum(max(0, pool.max_nodes - sum(node.pool == pool.name for node in up)) for pool in POOLS)
    ours = sum(node.pool != "other" for node in up)
    assert len(asked) == max(0, min(wanted, ours + room))  # nobody is left out while there is room


@pytest.mark.parametrize(
    ("name", "most", "told"), [("", 1, "must not be empty"), ("a", -1, "max_nodes of node pool a must be 0 or more; got -1")]
)
def test_a_wrong_pool_says_so(name: str, most: int, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        NodePool(name, most)


class FakeAutoscaler:
    def __init__(self) -> None:
        self.seen = NodesSeen((), {})
        self.asked: list[tuple[Hold, ...]] = []

    def look(self) -> NodesSeen:
        return self.seen

    def ask(self, wanted: Sequence[Hold]) -> None:
        self.asked.append(tuple(wanted))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_keeper_asks_once_for_each_change_and_lets_go_after_its_lease() -> None:
    clock, cluster = Clock(), FakeAutoscaler()
    keeper = NodeKeeper(cluster, clock, lease_s=60.0)
    keeper.step()
    assert cluster.asked == []  # it may have come back after a crash: what was asked for before still stands
    assert keeper.hold(1, POOLS) is None
    keeper.step()
    keeper.step()
    assert cluster.asked == [(Hold("spot"),)]
    cluster.seen = NodesSeen((), {"spot": 0.0})
    keeper.step()
    cluster.seen = NodesSeen((PoolNode("n", "paid", busy=False),), {"spot": 0.0})
    keeper.step()
    assert cluster.asked[1:] == [(Hold("paid"),), (Hold("paid", "n"),)]
    assert keeper.hold(1, POOLS) == 1
    clock.now = 59.0
    keeper.step()
    assert len(cluster.asked) == 3
    clock.now = 60.0
    keeper.step()
    assert keeper.expired
    assert cluster.asked[3:] == [()]


def test_a_running_keeper_is_told_of_other_pools() -> None:
    clock, cluster = Clock(), FakeAutoscaler()
    keeper = NodeKeeper(cluster, clock, lease_s=60.0)
    keeper.hold(2, [PAID])
    cluster.seen = NodesSeen((PoolNode("n", "paid", busy=True),), {"spot": 0.0})
    keeper.step()
    assert keeper.hold(2, [PAID]) == 1
    assert keeper.hold(2, [SPOT], retry_s=300.0) is None, "of these it has counted none yet"
    clock.now = 50.0
    keeper.step()
    assert keeper.hold(2, [SPOT], retry_s=10.0) == 0
    keeper.hold(2, [SPOT, PAID], retry_s=10.0)
    keeper.step()
    assert cluster.asked == [
        (Hold("paid", "n"), Hold("paid")),
        (Hold("spot"), Hold("spot")),
        (Hold("paid", "n"), Hold("spot")),
    ]


def test_rays_status_is_read() -> None:
    node = NodeInfo("m", "spot", "i-1", "10.0.0.1", node_id="aa")
    pending = NodeInfo("m", "spot", "i-2", "10.0.0.2")
    failed = [LaunchRequest("m", "paid", 1, LaunchRequest.Status.FAILED, at, at + 1) for at in (5, 3)]
    asked = [LaunchRequest("m", pool, 2, LaunchRequest.Status.PENDING, 7) for pool in ("paid", "spot")]
    status = ClusterStatus([node], pending_nodes=[pending], pending_launches=asked, failed_launches=failed)
    assert nodes_seen(status) == NodesSeen((PoolNode("aa", "spot", busy=True),), {"paid": 6.0}, {"spot": 3})
