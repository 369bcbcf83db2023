"""Who may watch, who is counted, and what becomes of those who watch when a session's connection is lost or moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from model_core.errors import CapacityExceeded, StageUnavailable
from service.events import Ended, EndReason, Usage
from service.failures import NotServed
from service.records.store import SessionNotFound
from service.watch_token import watch_token
from service.watching.elsewhere import Batch, Source
from service.watching.hub import Hub, WatchLimits
from service.watching.show import Place, Watcher
from tests.fakes import ManualClock
from tests.unit.service.test_watching_show import ENDED, FPS, STARTED, frames, names

TOKEN = watch_token("a session")
LINGER_S = 10.0


class Reader:
    """Reads all that comes, in a task."""

    def __init__(self, watcher: Watcher) -> None:
        self.seen: list[Any] = []
        self.task = asyncio.create_task(self._read(watcher))

    async def _read(self, watcher: Watcher) -> None:
        async for item in watcher.items():
            self.seen.append(item.event)

    @property
    def names(self) -> list[str]:
        return names(self.seen)


@asynccontextmanager
async def reading(hub: Hub, token: str = TOKEN) -> AsyncGenerator[Reader, None]:
    async with hub.watching(token) as watcher:
        reader = Reader(watcher)
        await asyncio.sleep(0)
        try:
            yield reader
        finally:
            reader.task.cancel()
            await asyncio.gather(reader.task, return_exceptions=True)


def hub(clock: ManualClock | None = None, elsewhere: Others | None = None, **limits: Any) -> Hub:
    return Hub(WatchLimits(**{"linger_s": LINGER_S, **limits}), clock or ManualClock(), elsewhere)


async def settled() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


class Others:
    """Other front doors: hubs of this process, and ones that do not answer."""

    def __init__(self, *hubs: Hub) -> None:
        self.hubs = list(hubs)
        self.asked = 0

    async def find(self, token: str) -> Source | None:
        self.asked += 1
        return next((_At(hub, token) for hub in self.hubs if hub.has(token)), None)

    async def leaving(self, tokens: Sequence[str]) -> None:
        for each in self.hubs:
            each.expect(tokens)


class _At:
    def __init__(self, at: Hub, token: str) -> None:
        self._at, self._token = at, token

    async def after(self, place: Place | None) -> Batch | None:
        await asyncio.sleep(0)
        return await self._at.after(self._token, place)


async def test_viewers_see_what_is_published_and_are_counted() -> None:
    counts: list[int] = []
    here = Hub(WatchLimits(), ManualClock(), observe=counts.append)
    with here.showing(TOKEN, "t") as show:
        show(STARTED)
        show(frames(0))
        async with reading(here) as one, reading(here) as two:
            assert here.watchers == 2
            show(frames(1))
            show(ENDED)
            await asyncio.gather(one.task, two.task)
            assert one.names == two.names == ["Started", "0", "1", "Ended"]
    assert counts == [1, 2, 1, 0]


async def test_a_token_that_nobody_has_is_not_found() -> None:
    here = hub()
    with pytest.raises(SessionNotFound):
        async with here.watching(TOKEN):
            pass
    with here.showing(TOKEN, "t") as show, here.showing("", "t") as nobody:
        show(STARTED)
        nobody(STARTED)
        for token in ("", TOKEN[:-1], watch_token("another")):
            with pytest.raises(SessionNotFound):
                async with here.watching(token):
                    pass


async def test_where_nobody_may_watch_there_is_no_token_and_nobody_is_told_to_come_back() -> None:
    here = hub(all=0)
    assert here.offered(TOKEN) == ""
    assert hub(all=1).offered(TOKEN) == TOKEN
    with here.showing(TOKEN, "t") as show:
        show(STARTED)
        assert not here.has(TOKEN)
        with pytest.raises(NotServed, match="to nobody but their own viewers"):
            async with here.watching(TOKEN):
                pass


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"session": 1}, "at most 1 may watch one session; 1 do"),
        ({"all": 1}, "at most 1 may watch in all, at this front door; 1 do"),
        ({"tenant": 1}, "at most 1 may watch the sessions of one tenant; 1 do"),
    ],
)
async def test_no_more_may_watch_than_the_limits_say(limits: dict[str, Any], said: str) -> None:
    here = hub(**limits)
    with here.showing(TOKEN, "t") as show:
        show(STARTED)
        async with reading(here):
            with pytest.raises(CapacityExceeded, match=said):
                async with here.watching(TOKEN):
                    pass
        async with reading(here) as after:
            assert after.names == ["Started"], "the place is free again"
    assert here.watchers == 0


async def test_limits_of_a_session_and_a_tenant_are_not_those_of_others() -> None:
    here, other = hub(session=1, tenant=1), watch_token("other")
    with here.showing(TOKEN, "t") as show, here.showing(other, "u") as second:
        show(STARTED)
        second(STARTED)
        async with reading(here), reading(here, other) as fine:
            assert fine.names == ["Started"]


async def test_viewers_wait_for_a_session_that_is_resumed_and_see_no_frame_twice() -> None:
    clock = ManualClock()
    here = hub(clock, Others())
    async with AsyncExitStack() as stack:
        with here.showing(TOKEN, "t") as show:
            show(STARTED)
            show(frames(0))
            reader = await stack.enter_async_context(reading(here))
        await clock.advance(LINGER_S - 1)
        with here.showing(TOKEN, "t") as show:
            show(STARTED)
            show(frames(0))
            show(frames(1))
            show(ENDED)
            await reader.task
        assert reader.names == ["Started", "0", "1", "Ended"]


async def test_viewers_of_a_session_that_does_not_come_back_are_told_after_a_while() -> None:
    clock = ManualClock()
    here = hub(clock)
    async with AsyncExitStack() as stack:
        with here.showing(TOKEN, "t") as show:
            show(STARTED)
            reader = await stack.enter_async_context(reading(here))
        await clock.advance(LINGER_S - 0.1)
        assert not reader.task.done()
        await clock.advance(1.0)
        with pytest.raises(SessionNotFound, match="did not come back"):
            await reader.task
    assert here.watchers == 0
    with pytest.raises(SessionNotFound):
        async with here.watching(TOKEN):
            pass


async def test_a_connection_that_lost_its_session_to_another_shows_nothing_more() -> None:
    here = hub()
    with here.showing(TOKEN, "t") as old:
        old(STARTED)
        old(frames(0))
        async with reading(here) as reader:
            with here.showing(TOKEN, "t") as new:
                new(STARTED)
                old(frames(1))
                old(Ended(EndReason.STOPPED, Usage(fps=FPS)))
                new(frames(2))
                await settled()
                assert reader.names == ["Started", "0", "2"]


async def test_a_front_door_that_drains_takes_nobody_and_sends_on_who_watches() -> None:
    clock = ManualClock()
    there = hub(clock)
    here = hub(clock, Others(there))
    far = watch_token("far")
    with here.showing(TOKEN, "t") as show, there.showing(far, "t") as second:
        show(STARTED)
        second(STARTED)
        async with reading(here) as near_reader, reading(here, far) as far_reader:
            await settled()
            here.drain()
            await far_reader.task
            assert far_reader.seen[-1].reason is EndReason.DRAINING
            show(frames(0))
            await settled()
            assert near_reader.names == ["Started", "0"], "its session plays on"
            with pytest.raises(StageUnavailable, match="shutting down"):
                async with here.watching(TOKEN):
                    pass
            assert not here.has(TOKEN)
            here.hand_over()
            await near_reader.task
            assert near_reader.seen[-1].reason is EndReason.DRAINING
    assert here.watchers == 0
