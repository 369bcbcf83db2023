"""Sessions that are watched at one front door and run at another: who asks whom, and what becomes of it when one is slow or goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest

from model_core.errors import CapacityExceeded, HeadraceError, StageUnavailable
from service.events import Frames, Skipped
from service.records.store import SessionNotFound
from service.watch_token import watch_token
from service.watching.elsewhere import WAIT_S, Batch, Source
from service.watching.hub import Hub, WatchLimits
from service.watching.moving import Moving
from service.watching.show import Place
from tests.fakes import ManualClock, eventually
from tests.unit.service.test_watching_hub import LINGER_S, TOKEN, Others, hub, reading, settled
from tests.unit.service.test_watching_show import ENDED, STARTED, frames, names


class Unsure(Others):
    """Some of them do not answer, and are waited for; or the one that has the session is busy. `error` says so while it is there."""

    def __init__(self, clock: ManualClock, *hubs: Hub) -> None:
        super().__init__(*hubs)
        self.error: HeadraceError | None = StageUnavailable("other front doors do not answer")
        self._clock = clock

    async def find(self, token: str) -> Source | None:
        if self.error is None:
            return await super().find(token)
        if isinstance(self.error, CapacityExceeded):
            return _Busy(self.error)
        await self._clock.sleep(2.0)
        raise self.error


class _Busy:
    def __init__(self, error: HeadraceError) -> None:
        self._error = error

    async def after(self, place: Place | None) -> Batch | None:
        raise self._error


async def join(at: Hub, token: str = TOKEN) -> str:
    """The session that is watched."""
    async with at.watching(token) as watcher:
        return watcher.started.session_id


@pytest.mark.parametrize(
    "error", [StageUnavailable("other front doors do not answer"), CapacityExceeded("64 sessions at once", retry_after_s=2.0)]
)
async def test_a_session_that_may_run_is_not_told_to_be_unknown(error: HeadraceError) -> None:
    clock = ManualClock()
    others = Unsure(clock)
    others.error = error
    here = hub(clock, others)
    joining = asyncio.create_task(join(here))
    await clock.advance(5.0)
    with pytest.raises(type(error), match=str(error)):
        await joining
    assert here.watchers == 0
    others.error = None
    joining = asyncio.create_task(join(here))
    await clock.advance(5.0)
    with pytest.raises(SessionNotFound, match="no session that runs"):
        await joining


async def test_time_in_which_nobody_can_say_where_the_session_is_counts_twice_at_most() -> None:
    clock = ManualClock()
    there = hub(clock)
    others = Unsure(clock, there)
    here = hub(clock, others)
    async with AsyncExitStack() as stack:
        with here.showing(TOKEN, "t") as show:
            show(STARTED)
            show(frames(0))
            patient = await stack.enter_async_context(reading(here))
        await clock.advance(LINGER_S + 2.0)
        assert not patient.task.done()
        with there.showing(TOKEN, "t") as show:
            show(STARTED)
            show(frames(1))
            others.error = None
            await clock.advance(3.0)
            assert patient.names == ["Started", "0", "1"]
            others.error = StageUnavailable("other front doors do not answer")
        await clock.advance(WAIT_S + 2 * LINGER_S + 5.0)
        with pytest.raises(StageUnavailable, match="do not answer"):
            await patient.task


async def test_a_session_of_a_front_door_that_is_not_known_yet_is_looked_for_a_while() -> None:
    clock, others, there = ManualClock(), Others(), hub()
    here = hub(clock, others)
    with there.showing(TOKEN, "t") as show:
        show(STARTED)
        joining = asyncio.create_task(join(here))
        await clock.advance(0.5)
        assert not joining.done()
        others.hubs.append(there)
        await clock.advance(0.5)
        await eventually(joining.done)
        assert joining.result() == STARTED.session_id
    joining = asyncio.create_task(join(here, watch_token("another")))
    await clock.advance(5.0)
    with pytest.raises(SessionNotFound, match="no session that runs"):
        await joining


async def test_a_session_of_another_front_door_is_pulled_once_for_all_who_watch_here() -> None:
    clock = ManualClock()
    there = hub(clock)
    others = Others(there)
    here = hub(clock, others)
    with there.showing(TOKEN, "t") as show:
        show(STARTED)
        show(frames(0))
        async with reading(here) as one, reading(here) as two:
            await settled()
            for index in (1, 2):
                show(frames(index))
                await settled()
            show(ENDED)
            await asyncio.gather(one.task, two.task)
            assert one.names == two.names == ["Started", "0", "1", "2", "Ended"]
            assert others.asked == 1
    await settled()
    assert (here.watchers, there.watchers) == (0, 0)


async def test_another_front_door_hears_of_an_end_that_came_between_two_of_its_questions() -> None:
    clock = ManualClock()
    there = hub(clock)
    with there.showing(TOKEN, "t") as show:
        show(STARTED)
        show(frames(0))
        first = await there.after(TOKEN, None)
        assert first is not None
        show(ENDED)
    rest = await there.after(TOKEN, first.place)
    assert rest is not None
    assert names(list(rest.events)) == ["Ended"]


async def test_a_front_door_that_asks_too_rarely_is_told_what_it_missed() -> None:
    clock = ManualClock()
    there = hub(clock)
    with there.showing(TOKEN, "t") as show:
        show(STARTED)
        show(frames(0))
        first = await there.after(TOKEN, None)
        assert first is not None
        await clock.advance(3600.0)
        for index in (1, 2, 3):
            show(frames(index))
        late = await there.after(TOKEN, first.place)
        assert late is not None
        assert late.events[0] == Skipped(16, 24)
        assert isinstance(late.events[1], Frames)


async def test_a_question_is_answered_after_a_while_though_nothing_is_new() -> None:
    clock = ManualClock()
    there = hub(clock)
    with there.showing(TOKEN, "t") as show:
        show(STARTED)
        first = await there.after(TOKEN, None)
        assert first is not None
        asking = asyncio.create_task(there.after(TOKEN, first.place))
        await clock.advance(WAIT_S - 0.1)
        assert not asking.done()
        await clock.advance(0.2)
        again = await asking
        assert again is not None
        assert (again.events, again.place) == ((), first.place)


async def test_no_more_questions_are_taken_at_once_than_the_limit_says() -> None:
    clock = ManualClock()
    there = hub(clock, relays=1)
    with there.showing(TOKEN, "t") as show:
        show(STARTED)
        first = await there.after(TOKEN, None)
        assert first is not None
        asking = asyncio.create_task(there.after(TOKEN, first.place))
        await settled()
        with pytest.raises(CapacityExceeded, match="1 sessions at once"):
            await there.after(TOKEN, first.place)
        show(frames(0))
        assert await asking is not None


async def test_viewers_follow_a_session_to_another_front_door() -> None:
    clock = ManualClock()
    there = hub(clock)
    here = hub(clock, Others(there))
    async with AsyncExitStack() as stack:
        with here.showing(TOKEN, "t") as show:
            show(STARTED)
            show(frames(0))
            reader = await stack.enter_async_context(reading(here))
        await clock.advance(1.0)
        with there.showing(TOKEN, "t") as show:
            show(STARTED)
            show(frames(1))
            await clock.advance(1.0)
            show(frames(2))
            await clock.advance(0.1)
            assert reader.names == ["Started", "0", "1", "2"]
        await clock.advance(1.0)
        with here.showing(TOKEN, "t") as show:  # and back
            show(STARTED)
            show(frames(3))
            show(ENDED)
            await reader.task
        assert reader.names == ["Started", "0", "1", "2", "3", "Ended"]


async def test_viewers_at_another_front_door_outlive_one_that_drains() -> None:
    clock = ManualClock()
    there, third = hub(clock), hub(clock)
    here = hub(clock, Others(there, third))
    async with AsyncExitStack() as stack:
        with there.showing(TOKEN, "t") as show:
            show(STARTED)
            show(frames(0))
            reader = await stack.enter_async_context(reading(here))
            await settled()
            there.hand_over()
            await settled()
        with third.showing(TOKEN, "t") as show:
            show(STARTED)
            show(frames(1))
            await clock.advance(2.0)
            show(ENDED)
            await reader.task
        assert reader.names == ["Started", "0", "1", "Ended"]


async def test_whoever_comes_while_a_front_door_drains_waits_where_its_session_goes_on() -> None:
    clock = ManualClock()
    others = Others()
    leaving, here, third = hub(clock, others), hub(clock, others), hub(clock, others)
    others.hubs += [here, third]
    with leaving.showing(TOKEN, "t") as show:
        show(STARTED)
        leaving.drain()
        await settled()
        joining = asyncio.create_task(join(here))
        await clock.advance(LINGER_S / 2)
        assert not joining.done()
    with third.showing(TOKEN, "t") as show:
        show(STARTED)
        await clock.advance(1.0)
        await eventually(joining.done)
        assert joining.result() == STARTED.session_id


async def test_a_session_that_does_not_come_from_a_front_door_that_drained_is_not_waited_for_without_end() -> None:
    clock = ManualClock()
    here = hub(clock, Others())
    here.expect([TOKEN])
    joining = asyncio.create_task(join(here))
    await clock.advance(LINGER_S + 1.0)
    with pytest.raises(SessionNotFound, match="did not come back"):
        await joining
    joining = asyncio.create_task(join(here))
    await clock.advance(5.0)
    with pytest.raises(SessionNotFound, match="no session that runs"):
        await joining


async def test_of_sessions_that_move_the_oldest_are_forgotten() -> None:
    moving = Moving(ManualClock(), 10.0)
    moving.expect(str(n) for n in range(5000))
    moving.expect(["904"])
    assert ("903" in moving, "904" in moving, "4999" in moving) == (False, True, True)
    assert len(moving._until) == 4096  # noqa: SLF001 - the bound
    moving.arrived("4999")
    assert "4999" not in moving


async def test_a_defect_on_the_way_to_other_front_doors_leaves_nobody_waiting() -> None:
    class Broken:
        async def find(self, token: str) -> Source | None:
            raise RuntimeError("a defect")

        async def leaving(self, tokens: Sequence[str]) -> None:
            return None

    here = Hub(WatchLimits(), ManualClock(), Broken())
    with pytest.raises(RuntimeError, match="a defect"):
        async with here.watching(TOKEN):
            pass
    assert here.watchers == 0


async def test_not_all_tokens_in_the_world_are_looked_for_at_once() -> None:
    class Slow:
        async def find(self, token: str) -> Source | None:
            await asyncio.Event().wait()
            return None

        async def leaving(self, tokens: Sequence[str]) -> None:
            return None

    here = Hub(WatchLimits(), ManualClock(), Slow())

    async def watch(n: int) -> None:
        async with here.watching(watch_token(str(n))):
            pass

    tasks = [asyncio.create_task(watch(n)) for n in range(40)]
    await settled()
    refused = [task for task in tasks if task.done()]
    assert len(refused) == 8
    assert all(isinstance(task.exception(), CapacityExceeded) for task in refused)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await eventually(lambda: here.watchers == 0)
