from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from deployments.links.drain import DrainWatch, must_hand_over
from deployments.links.link import CreditLine, LinkOffer, LinkServer
from model_core.errors import StageDraining
from model_core.reopen import ReopenPolicy
from tests.fakes import eventually

Changed = Callable[[frozenset[str]], None]


class FakeTargets:
    """What Serve publishes, told by the test."""

    def __init__(self) -> None:
        self.watching: list[Changed] = []
        self.running = True
        self.stopped = False

    def watch(self, changed: Changed) -> FakeTargets:
        self.watching.append(changed)
        self.running = True
        return self

    def tell(self, *names: str) -> None:
        self.watching[-1](frozenset(names))

    def stop(self) -> None:
        self.stopped = True


@pytest.mark.parametrize(
    ("seen", "targets", "leaves"),
    [
        (True, {"b"}, True),
        (True, {"a", "b"}, False),  # still routed to
        (True, set(), False),  # nobody to give the sessions to
        (False, {"b"}, False),  # not published yet
    ],
)
def test_a_replica_hands_over_once_it_is_routed_to_no_more_and_another_is(seen: bool, targets: set[str], leaves: bool) -> None:
    assert must_hand_over("a", seen, frozenset(targets)) is leaves


async def test_hand_over_waits_for_a_successor_and_is_taken_back() -> None:
    targets, told = FakeTargets(), list[bool]()
    watch = DrainWatch("a", targets.watch, told.append, settle_s=0.0)
    watch.start()
    targets.tell("b")
    targets.tell("a", "b")
    targets.tell()
    await asyncio.sleep(0.02)
    assert told == []
    targets.tell("c")
    await eventually(lambda: told == [True])
    targets.tell("d")
    targets.tell("a", "d")
    await eventually(lambda: told == [True, False])
    watch.stop()
    assert targets.stopped


async def test_a_change_of_mind_within_the_settling_time_ends_no_stream() -> None:
    targets, told = FakeTargets(), list[bool]()
    watch = DrainWatch("a", targets.watch, told.append, settle_s=3600.0)
    watch.start()
    targets.tell("a", "b")
    targets.tell("b")
    targets.tell("a", "b")
    await eventually(lambda: told == [False])


async def test_a_watch_that_gave_up_is_started_again_and_one_that_runs_is_not() -> None:
    targets = FakeTargets()
    watch = DrainWatch("a", targets.watch, lambda _: None)
    watch.start()
    watch.start()
    assert len(targets.watching) == 1
    targets.running = False
    watch.start()
    assert len(targets.watching) == 2


async def test_streams_end_at_the_next_chunk_when_their_replica_leaves() -> None:
    server = LinkServer("127.0.0.1", window=1)
    closed: list[int] = []

    async def chunks(number: int):  # type: ignore[no-untyped-def]  # noqa: ANN202 - any generator
        try:
            for n in range(100):
                yield n
        finally:
            closed.append(number)

    streams = [server.serve(chunks(n)) for n in range(3)]
    lines = []
    for stream in streams:
        offer = await anext(stream)
        assert isinstance(offer, LinkOffer)
        lines.append(await CreditLine.dial(offer))
        assert await anext(stream) == 0
    waiting = asyncio.create_task(anext(streams[0]))  # for credit
    await asyncio.sleep(0)
    lines[1].grant()
    await eventually(lambda: server.statistics().credit == 1)
    server.hand_over()
    for call in (waiting, anext(streams[1]), anext(streams[2])):
        with pytest.raises(StageDraining):
            await call
    assert sorted(closed) == [0, 1, 2]
    assert server.statistics().open == 0
    late = server.serve(chunks(3))
    with pytest.raises(StageDraining):
        await anext(late)
    server.hand_over(leaving=False)
    back = server.serve(chunks(4))
    assert isinstance(await anext(back), LinkOffer)
    await back.aclose()
    for line in lines:
        await line.aclose()
    await server.aclose()


@pytest.mark.parametrize(
    ("failures", "chance", "delay"),
    [(1, 0.0, 0.0), (1, 1.0, 0.0), (2, 0.0, 0.1), (3, 0.0, 0.2), (3, 1.0, 0.1), (9, 0.0, 1.5), (10_000, 1.0, 0.75)],
)
def test_reopening_is_immediate_at_first_then_ever_later_and_never_in_step(failures: int, chance: float, delay: float) -> None:
    policy = ReopenPolicy(attempts=5, backoff_s=0.1, max_backoff_s=1.5)
    assert policy.delay(failures, chance) == pytest.approx(delay)
