"""Sessions that players fetch in segments, at one front door. A channel is one viewer of its session, however many players it has.

It begins when the first player asks for its token, and ends with the session, or when nobody has asked for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from model_core.errors import CapacityExceeded, HeadraceError, StageUnavailable
from model_core.tasks import cancel_and_wait
from service.broadcast.program import HOLD_S, Program
from service.broadcast.window import Window
from service.call import Call
from service.clock import Clock
from service.events import Ended, EndReason, Started
from service.watching.show import Item
from service.watching.viewers import SendItem, Viewers

MOST_CHANNELS = 64
# Without a request; players ask every few seconds, also while they stand still.
IDLE_S = 20.0
_RETRY_S = 5.0

log = logging.getLogger(__name__)


class Channel:
    """One session.

    Attributes:
        window: what players may fetch now; None before the first part.
    """

    def __init__(self, clock: Clock, wall: Callable[[], float], hold_s: float) -> None:
        self._clock = clock
        self._wall = wall
        self._program = Program(clock, hold_s)
        self._news = asyncio.Event()
        self._over = asyncio.Event()
        self._error: Exception | None = None
        self._asked = clock.now()
        self.window: Window | None = None

    def touch(self) -> None:
        """Somebody asks."""
        self._asked = self._clock.now()

    async def run(self, viewers: Viewers, token: str, call: Call) -> None:
        """Until the session ends, or nobody has asked for `IDLE_S`. Raises nothing of the session: whoever asks is told."""
        viewing = asyncio.create_task(viewers.run(token, self._meet, call))
        filling = asyncio.create_task(self._fill())  # before anything goes out
        releasing = asyncio.create_task(self._program.run())
        idling = asyncio.create_task(self._idle())
        try:
            await asyncio.wait({viewing, idling}, return_when=asyncio.FIRST_COMPLETED)
            if viewing.done():
                self._program.end()  # what waits still goes out
                await asyncio.wait({filling, idling}, return_when=asyncio.FIRST_COMPLETED)
                viewing.result()
                if filling.done():
                    filling.result()
                self._end()
                await idling
        except Exception as error:
            if not isinstance(error, HeadraceError):
                log.exception("a session that is fetched in segments has failed")
            self._error = error
        finally:
            await cancel_and_wait(viewing, releasing, filling, idling)
            self._over.set()
            self._wake()

    async def until(self, ready: Callable[[Window], bool], seconds: float) -> Window:
        """The window once it is `ready`, or as it is after so many seconds.

        Raises:
            HeadraceError: as `Viewers.run`; or the session was lost before its first part.
        """
        waiting = asyncio.create_task(self._sleep(seconds))
        try:
            while True:
                if self._error is not None:
                    raise self._error
                if self.window is not None and (self.window.over or ready(self.window) or waiting.done()):
                    return self.window
                if waiting.done() or self._over.is_set():
                    raise StageUnavailable("the session has shown nothing yet; ask again")
                news = self._news
                listening = asyncio.create_task(news.wait())
                try:
                    await asyncio.wait({waiting, listening}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    await cancel_and_wait(listening)
        finally:
            await cancel_and_wait(waiting)

    def _meet(self, started: Started) -> SendItem:
        self._program.see(started)
        return self._send

    async def _send(self, item: Item) -> None:
        if isinstance(item.event, Ended) and item.event.reason is EndReason.DRAINING:
            raise StageUnavailable("this front door shuts down; ask again")  # the session goes on at another one
        if not isinstance(item.event, Ended):
            self._program.see(item.event)

    async def _fill(self) -> None:
        with self._program.receiving() as queue:
            while (group := await queue.get()) is not None:
                if self.window is None and self._program.header is not None:
                    self.window = Window(self._program.header)
                if self.window is not None:
                    self.window.add(group, self._wall())
                    self._wake()

    async def _idle(self) -> None:
        while (left_s := self._asked + IDLE_S - self._clock.now()) > 0:
            await self._clock.sleep(left_s)

    async def _sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)

    def _end(self) -> None:
        if self.window is not None:
            self.window.end()
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Channels:
    """All of one front door.

    Args:
        viewers: shows sessions.
        clock: for waits.
        wall: seconds since 1970, for the times in playlists.
        most: channels at once.
        hold_s: see `Playout`.
    """

    def __init__(
        self, viewers: Viewers, clock: Clock, wall: Callable[[], float], most: int = MOST_CHANNELS, hold_s: float = HOLD_S
    ) -> None:
        self._viewers, self._clock, self._wall = viewers, clock, wall
        self._most, self._hold_s = most, hold_s
        self._channels: dict[str, tuple[Channel, asyncio.Task[None]]] = {}

    def __len__(self) -> int:
        return len(self._channels)

    def channel(self, token: str, call: Call) -> Channel:
        """The channel of a session that somebody asks for; `call` is theirs. Raises CapacityExceeded: there are too many."""
        found = self._channels.get(token)
        if found is None:
            if len(self._channels) >= self._most:
                sentence = f"at most {self._most} sessions may be fetched in segments at once, at this front door; {self._most} are"
                raise CapacityExceeded(sentence, retry_after_s=_RETRY_S)
            channel = Channel(self._clock, self._wall, self._hold_s)
            task = asyncio.create_task(channel.run(self._viewers, token, call.again()))
            task.add_done_callback(lambda _: self._channels.pop(token, None))
            found = self._channels[token] = (channel, task)
        found[0].touch()
        return found[0]
