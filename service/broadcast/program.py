"""One session on its way out to any number of receivers: its events in, groups of coded pictures out when they are due.

program = Program(clock)
running = asyncio.create_task(program.run())    # beside whoever calls `program.see(event)` for each event of the session
header = await program.begun()
with program.receiving() as queue:
    while (group := await queue.get()) is not None:
        ...
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from model_core.access_units import Group, Header, group_of
from model_core.errors import FieldViolation, InvalidRequest
from model_core.tasks import unless
from model_core.types import Codec
from service.broadcast.playout import Playout
from service.broadcast.queue import GroupQueue
from service.clock import Clock
from service.events import Ended, Frames, Paused, PromptApplied, Shown, Started

# What a session may be late, or replace, before a receiver notices.
HOLD_S = 1.0
_MOST_RECEIVERS = 1024


class Program:
    """See the module. One task sees events, and one runs.

    Args:
        clock: for waits.
        hold_s: see `Playout`.
    """

    def __init__(self, clock: Clock, hold_s: float = HOLD_S) -> None:
        self._clock = clock
        self._hold_s = hold_s
        self._playout: Playout | None = None
        self._receivers: set[GroupQueue] = set()
        self._news = asyncio.Event()
        self._begun = asyncio.Event()
        self._ended = self.over = False
        self.header: Header | None = None

    @property
    def stalled_s(self) -> float:
        """How long nothing went out because the session was late."""
        return 0.0 if self._playout is None else self._playout.stalled_s

    @property
    def next_frame(self) -> int:
        """Frames before it have gone out."""
        return 0 if self._playout is None else self._playout.next_frame

    async def begun(self) -> Header | None:
        """Once the session has started; None where it ended before."""
        await self._begun.wait()
        return self.header

    def see(self, event: Shown) -> None:
        """An event of the session, as those who watch are shown it.

        Raises:
            InvalidRequest: its frames are of a codec that cannot go out.
            NotOurs: its bytes are no fragments of ours.
        """
        match event:
            case Started():
                if event.codec is not Codec.FMP4_H264:
                    sentence = f"must be {Codec.FMP4_H264.value} for a session that is broadcast; got {event.codec.value}"
                    raise InvalidRequest((FieldViolation("codec", sentence),))
                self.begin(Header.of(event.codec_header, event.width, event.height, event.fps, event.frames_per_chunk))
            case Frames(chunk=chunk):
                self.arrived(group_of(b"".join(chunk.data), chunk.first_frame, chunk.num_frames))
            case PromptApplied(first_frame=first_frame):
                self.superseded(first_frame)
            case Paused():
                self.paused()
            case Ended():
                self.end()

    def begin(self, header: Header) -> None:
        """The session starts. On a later connection the same header comes again, and nothing changes."""
        if self._playout is None:
            self._playout = Playout(header.fps, self._hold_s)
            self.header = header
        self._begun.set()

    def arrived(self, group: Group) -> None:
        if self._playout is not None:
            self._playout.arrived(group, self._clock.now())
            self._news.set()

    def superseded(self, first_frame: int) -> None:
        if self._playout is not None:
            self._playout.superseded(first_frame)

    def paused(self) -> None:
        if self._playout is not None:
            self._playout.paused()

    def replaceable(self, guard_s: float) -> int | None:
        """See `Playout`: for whoever steers the session."""
        return None if self._playout is None else self._playout.replaceable(self._clock.now(), guard_s)

    def end(self) -> None:
        """What waits still goes out, when it is due."""
        self._ended = True
        self._begun.set()
        self._news.set()

    @contextmanager
    def receiving(self, queue: GroupQueue | None = None) -> Iterator[GroupQueue]:
        """A queue that gets every group from now on. It is closed at the end of the program.

        Raises:
            ValueError: there are too many.
        """
        if len(self._receivers) >= _MOST_RECEIVERS:
            raise ValueError(f"receivers of a program must be at most {_MOST_RECEIVERS}; got one more")
        queue = GroupQueue() if queue is None else queue
        if self.over:
            queue.close()
        self._receivers.add(queue)
        try:
            yield queue
        finally:
            self._receivers.discard(queue)

    async def run(self) -> None:
        """Hand out groups until the end."""
        try:
            while await self._wait():
                if self._playout is not None:
                    for group in self._playout.due(self._clock.now()):
                        for queue in self._receivers:
                            queue.put(group)
        finally:
            self.over = True
            for queue in self._receivers:
                queue.close()

    async def _wait(self) -> bool:
        """Until something is due; False at the end."""
        while True:
            self._news.clear()
            wait_s = None if self._playout is None else self._playout.wait_s(self._clock.now())
            if wait_s == 0.0:
                return True
            if wait_s is None:
                if self._ended:
                    return False
                await self._news.wait()
            else:
                await unless(self._news, self._sleep(wait_s))

    async def _sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
