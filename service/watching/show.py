"""What one session shows to those who watch it: its newest events, in one ring that all of them read.

A viewer has a place in the ring and nothing else, so it costs a copy of what it is sent. Whoever falls behind the ring goes on at the
newest chunk, and is told how many frames were left out. Every chunk begins with a key picture, so a player can begin with any.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from model_core.messages import Message
from model_core.tasks import run_in_thread
from model_core.types import FrameChunk, Numerics
from service.events import (
    Ended,
    EndReason,
    Event,
    Frames,
    Paused,
    PromptApplied,
    QualityChanged,
    Resumed,
    Shown,
    Skipped,
    Started,
)

# How far behind the newest chunk somebody may be.
RING_CHUNKS = 4
_RING_BYTES = 32 * 1024 * 1024
_RING_EVENTS = 64
# Of the newest chunk that is kept while nobody watches, so that whoever comes sees a picture at once.
_KEPT_BYTES = 1024 * 1024
_NO_LATENTS = np.empty((0, 0, 0, 0), np.float32)
_FINAL = (EndReason.COMPLETED, EndReason.STOPPED, EndReason.DRAINING)


class Item:
    """An event on its way to many. What a door makes of it is made once for all of them."""

    __slots__ = ("_made", "_making", "event")

    def __init__(self, event: Shown) -> None:
        self.event = event
        self._made: dict[Hashable, Sequence[bytes]] = {}
        self._making: dict[Hashable, asyncio.Task[Sequence[bytes]]] = {}

    def once(self, form: Hashable, make: Callable[[Shown], Sequence[bytes]]) -> Sequence[bytes]:
        """What `make` makes of the event. There must be few values of `form`: all of them are kept."""
        made = self._made.get(form)
        if made is None:
            made = self._made[form] = make(self.event)
        return made

    async def making(self, form: Hashable, make: Callable[[Shown], Sequence[bytes]]) -> Sequence[bytes]:
        """As `once`, of what takes long: in a thread. Whoever comes first starts it, and takes it from nobody by leaving."""
        if form in self._made:
            return self._made[form]
        if (task := self._making.get(form)) is None:
            task = self._making[form] = asyncio.create_task(self._make(form, make))
        return await asyncio.shield(task)

    async def _make(self, form: Hashable, make: Callable[[Shown], Sequence[bytes]]) -> Sequence[bytes]:
        try:
            made = self._made[form] = await run_in_thread(make, self.event)
        finally:
            del self._making[form]
        return made


@dataclass(frozen=True, slots=True)
class Place(Message):
    """How far somebody is: the next event that it is to see, and how many frames came before it.

    Attributes:
        show: number of the show. Another one begins anew.
    """

    show: int
    next: int
    frames: int


@dataclass(frozen=True, slots=True)
class _Entry:
    number: int
    frames: int  # that came before it
    item: Item


class Show:
    """One session, as others see it. One task publishes; any number read.

    Attributes:
        number: tells it from others of this process.
        tenant: whose session it is.
        started: None until it has.
        watched: whether anybody reads, so that more than the newest chunk is kept.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.tenant = ""
        self.started: Started | None = None
        self.watched = False
        self._error: Exception | None = None
        self._over = False
        self._ring: deque[_Entry] = deque()
        # The newest of each kind: what somebody must know who was not there before.
        self._newest: dict[type, _Entry] = {}
        self._count = 0
        self._frames = 0
        self._next_frame = 0
        self._news = asyncio.Event()

    @property
    def over(self) -> bool:
        return self._over

    def publish(self, event: Event | Skipped) -> None:
        """What the session sent to its own viewer, or is about to. Others are not shown all of it, and nothing twice."""
        if self._over or (shown := self._shown(event)) is None:
            return
        entry = _Entry(self._count, self._frames, Item(shown))
        self._count += 1
        if isinstance(shown, Frames):
            self._frames += shown.chunk.num_frames
        if isinstance(shown, Ended):
            self._over = True
        self._ring.append(entry)
        if not isinstance(shown, Skipped):
            self._newest[Paused if isinstance(shown, Resumed) else type(shown)] = entry
        self._trim()
        self._wake()

    def end(self, error: Exception) -> None:
        """It is over, for those who watch: they are told by `error`."""
        if not self._over:
            self._over, self._error = True, error
            self._wake()

    async def begun(self) -> Started | None:
        """Wait until it has started; None where it ended before. Raises what `end` was told."""
        while self.started is None and not self._over:
            await self._news.wait()
        if self.started is None and self._error is not None:
            raise self._error
        return self.started

    async def after(self, place: Place | None) -> tuple[list[Item], Place]:
        """What comes after `place`, and the place behind that. Waits for it. Nothing where the show is over.

        Raises:
            Exception: what `end` was told, behind the last event.
        """
        while True:
            items, then = self.now(place)
            if items:
                return items, then
            if self._over:
                if self._error is not None:
                    raise self._error
                return [], then
            await self._news.wait()

    def now(self, place: Place | None) -> tuple[list[Item], Place]:
        """As `after`, without waiting. One event, or all that somebody must know who was not there, or has fallen behind."""
        if self.started is None:
            return [], Place(self.number, 0, 0)
        if place is None or place.show != self.number:
            return [Item(replace(self.started, next_frame=self._first_to_come())), *self._missed(0)], self._end
        behind = self._count - place.next
        if behind <= len(self._ring):
            if behind <= 0:
                return [], place
            entry = self._ring[-behind]
            frames = entry.item.event.chunk.num_frames if isinstance(entry.item.event, Frames) else 0
            return [entry.item], Place(self.number, place.next + 1, entry.frames + frames)
        return list(self._missed(place.next, place.frames)), self._end

    @property
    def _end(self) -> Place:
        return Place(self.number, self._count, self._frames)

    def _first_to_come(self) -> int:
        newest = self._newest.get(Frames)
        return newest.item.event.chunk.first_frame if newest is not None and isinstance(newest.item.event, Frames) else self._next_frame

    def _missed(self, since: int, frames: int | None = None) -> Iterator[Item]:
        """The newest of each kind from event number `since` on, in order. `frames`: so many came before; None for somebody new."""
        for entry in sorted(self._newest.values(), key=lambda entry: entry.number):
            event = entry.item.event
            if entry.number < since or (frames is None and isinstance(event, Resumed)):
                continue
            if isinstance(event, Frames) and frames is not None and entry.frames > frames:
                yield Item(Skipped(entry.frames - frames, event.chunk.first_frame))
            yield entry.item

    def _shown(self, event: Event | Skipped) -> Shown | None:
        """What others see of `event`; None for nothing. Of a session that was resumed, they have seen some of it already."""
        match event:
            case Started():
                self._start(event)
            case Frames(chunk=chunk) if chunk.first_frame + chunk.num_frames > self._next_frame:
                self._next_frame = chunk.first_frame + chunk.num_frames
                return Frames(_plain(chunk))
            case PromptApplied() | Paused() | Resumed() | QualityChanged() if not self._is_known(event):
                if isinstance(event, PromptApplied):  # later ones are superseded, and come again
                    self._next_frame = min(self._next_frame, event.first_frame)
                return event
            case Skipped():
                return event
            case Ended(reason=reason, usage=usage) if reason in _FINAL:
                return Ended(reason, replace(usage, denoise_s=0.0, decode_s=0.0, steps=0))  # not what it cost
        return None

    def _start(self, event: Started) -> None:
        self.started = replace(event, resume_token="", source=None)
        self._newest.pop(QualityChanged, None)
        self._next_frame = max(self._next_frame, event.next_frame)
        self._wake()

    def _is_known(self, event: Shown) -> bool:
        entry = self._newest.get(Paused if isinstance(event, Resumed) else type(event))
        return entry is not None and entry.item.event == event

    def _trim(self) -> None:
        if not self.watched:
            self._ring.clear()
            newest = self._newest.get(Frames)
            if newest is not None and _size(newest) > _KEPT_BYTES:
                del self._newest[Frames]
            return
        sizes = [_size(entry) for entry in self._ring]
        chunks, held = sum(size > 0 for size in sizes), sum(sizes)
        while len(self._ring) > 1 and (chunks > RING_CHUNKS or held > _RING_BYTES or len(self._ring) > _RING_EVENTS):
            size = _size(self._ring.popleft())
            chunks, held = chunks - (size > 0), held - size

    def _wake(self) -> None:
        """Everybody who waits. Whoever waits next waits for the next event."""
        self._news.set()
        self._news = asyncio.Event()


class Watcher:
    """Somebody who watches a show that has started. `started` is what it is told first."""

    def __init__(self, show: Show, started: Started) -> None:
        self._show = show
        self._first, self._place = show.now(None)
        first = self._first[0].event
        self.started = first if isinstance(first, Started) else started

    async def items(self) -> AsyncGenerator[Item, None]:
        """From the newest chunk on. Whoever reads slowly is shown less, and slows nobody.

        Raises:
            SessionNotFound: the session was lost.
        """
        items, place = self._first, self._place
        while items:
            for item in items:
                yield item
                if isinstance(item.event, Ended):
                    return
            items, place = await self._show.after(place)


def _size(entry: _Entry) -> int:
    event = entry.item.event
    return sum(map(len, event.chunk.data)) if isinstance(event, Frames) else 0


def _plain(chunk: FrameChunk) -> FrameChunk:
    """Without what is the session's own affair."""
    return replace(chunk, latents=_NO_LATENTS, timings=(), numerics=Numerics())
