"""The source of a session that restyles one, between its caller and the pipeline: decoded, taken or dropped, and counted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from model_core.errors import FieldViolation, InvalidRequest
from model_core.source import Dropped, Fitting, SourceFeed
from model_core.types import Codec
from model_core.uploads.decoders import UploadDecoders
from model_core.uploads.upload import Upload
from service.call import ReaderStalled
from service.checks import Limits
from service.clock import Clock
from service.controls import GiveSource
from service.events import SourceDropped, SourceTaken, Usage
from service.orders import Order
from service.sessions.pacing import Pacer

_FIELD = "source_frames"
_MESSAGES_WAIT = 2  # for a decoder, of the largest that may come; of smaller ones more
_JPEG = b"\xff\xd8\xff"


@dataclass(frozen=True, slots=True)
class SourceTerms:
    """`decoders` decode pictures on the account of `caller`, within `limits`. They are not those of uploads, which take long."""

    decoders: UploadDecoders
    limits: Limits
    caller: str


@dataclass(frozen=True, slots=True)
class _Pictures:
    """Frames that were taken. `first_item`: what place the first has in its message."""

    codec: Codec
    data: tuple[bytes, ...]
    first_item: int

    @property
    def size(self) -> int:
        return sum(map(len, self.data))


class Sourcing:
    """See the module's docstring. One task takes what the caller sends, one decodes it, and the one that serves the session asks the rest.

    So no other control of the caller waits for a decoder, unless more bytes wait for it than two messages may hold.

    Args:
        feed: the session's source.
        order: what the session makes.
        terms: how what comes is decoded.
        pacer: is told when a chunk of the source is complete, since the chunk is due after that.
        clock: time.
    """

    def __init__(self, feed: SourceFeed, order: Order, terms: SourceTerms, pacer: Pacer, clock: Clock) -> None:
        self._feed = feed
        self._config, self._grid = order.config, order.config.grid
        self._decoders, self._limits, self._caller = terms.decoders, terms.limits, terms.caller
        self._pacer, self._clock = pacer, clock
        self._complete_at: dict[int, float] = {}  # for the chunks that came and are not made: a few
        self._next_complete = feed.first_chunk
        self._opened = self._ends = False
        self._waiting: asyncio.Queue[_Pictures | None] = asyncio.Queue()  # all of them fit: a few chunks at most; None: the end
        self._coming = self._waiting_bytes = 0  # frames that were taken and are not decoded, and their bytes
        self._decoded_some = asyncio.Event()
        self._waits_for, self._waited_s = feed.first_chunk, 0.0
        self._taken = self._dropped = 0
        self._delay_s = 0.0

    async def take(self, control: GiveSource) -> tuple[SourceDropped, ...]:
        """Take frames, for `decode`. Returns those that were dropped: all of them before `opening`, since a session in line holds none.

        Raises:
            InvalidRequest: they are too large.
        """
        self._check(control)
        fitting = self._fitting(control.first_frame, len(control.data))
        if fitting.taken:
            wanted = _Pictures(control.codec, control.data[fitting.skipped : fitting.skipped + fitting.taken], fitting.skipped)
            await self._room_for(wanted.size)
            self._coming += fitting.taken
            self._waiting_bytes += wanted.size
            self._waiting.put_nowait(wanted)
        self._dropped += sum(dropped.frames for dropped in fitting.dropped)
        return tuple(SourceDropped(dropped, self._expected) for dropped in fitting.dropped)

    def end(self) -> None:
        """No more frames come."""
        self._ends = True
        self._waiting.put_nowait(None)

    async def decode(self) -> None:
        """Decode what was taken, in order and without end. An error is the session's end.

        Raises:
            InvalidRequest: what came are no pictures.
            StageUnavailable: they cannot be decoded just now.
        """
        while True:
            pictures = await self._waiting.get()
            if pictures is None:
                self._feed.finish()
            else:
                await self._decode(pictures)
            self._waiting.task_done()

    async def decoded(self) -> None:
        """Wait until nothing waits for `decode`."""
        await self._waiting.join()

    def opening(self) -> SourceTaken:
        """What the caller has to know at the start. Frames may come from now on."""
        self._opened = True
        return SourceTaken(self._expected, self._feed.until_frame)

    def made(self, chunk: int) -> SourceTaken:
        """`chunk` was sent. Returns what may come now."""
        arrived = self._complete_at.pop(chunk, None)
        self._delay_s = self._delay_s if arrived is None else self._clock.now() - arrived
        return SourceTaken(self._expected, self._feed.until_frame)

    def played(self, seconds: float) -> None:
        """The session was not paused for `seconds` more. A chunk of which frames lack is waited for no longer than a stalled reader is.

        Raises:
            ReaderStalled: the caller has left the session waiting for so long.
        """
        if self._coming:  # decoding is the server's time
            return
        lacks, most_s = self._feed.lacks, self._limits.stall_timeout_seconds
        self._waited_s = self._waited_s + seconds if lacks and self._waits_for == self._next_complete else 0.0
        self._waits_for = self._next_complete
        if self._waited_s >= most_s:
            until, there = self._grid.first_frame(self._next_complete + 1), self._feed.next_frame
            raise ReaderStalled(f"{_FIELD}: frames before {until} must come within {most_s:g} s of play; got those before {there}")

    def counted(self, usage: Usage) -> Usage:
        return replace(usage, source_frames=self._taken, source_dropped=self._dropped, source_delay_s=self._delay_s)

    @property
    def _expected(self) -> int:
        """The frame that has to come next."""
        return self._feed.next_frame + self._coming

    def _fitting(self, first_frame: int, count: int) -> Fitting:
        if count and not self._opened:
            return Fitting(0, 0, (Dropped(first_frame, count, "full"),))
        if self._ends:
            return Fitting(0, 0, (Dropped(first_frame, count, "ended"),))
        return self._feed.fitting(first_frame, count, self._coming)

    async def _room_for(self, size: int) -> None:
        """Wait until that many bytes more may wait to be decoded."""
        while self._waiting_bytes and self._waiting_bytes + size > _MESSAGES_WAIT * self._limits.max_source_bytes:
            self._decoded_some.clear()
            await self._decoded_some.wait()

    async def _decode(self, pictures: _Pictures) -> None:
        frames = [await self._picture(pictures.codec, data, number) for number, data in enumerate(pictures.data, pictures.first_item)]
        self._feed.take(np.stack(frames))
        self._completed()
        self._coming -= len(frames)
        self._taken += len(frames)
        self._waiting_bytes -= pictures.size
        self._decoded_some.set()

    def _check(self, control: GiveSource) -> None:
        """Raises InvalidRequest."""
        size, most = sum(map(len, control.data)), self._limits.max_source_bytes
        if size > most:
            raise _wrong("data", f"must be at most {most} bytes in one message; got {size}")
        if control.codec not in (Codec.RAW_RGB, Codec.JPEG):
            raise _wrong("codec", f"must be raw or jpeg; got {control.codec.value}")

    async def _picture(self, codec: Codec, data: bytes, number: int) -> NDArray[np.uint8]:
        height, width, field = self._config.height, self._config.width, f"data[{number}]"
        if codec is Codec.RAW_RGB:
            if len(data) != height * width * 3:
                raise _wrong(field, f"must be {height * width * 3} bytes, a raw frame of {width}x{height}; got {len(data)}")
            return np.frombuffer(data, np.uint8).reshape(height, width, 3)
        if not data.startswith(_JPEG):
            raise _wrong(field, f"must be a JPEG picture; got {len(data)} bytes that begin with {data[:8]!a}")
        upload = Upload("image", data, f"{_FIELD}.{field}", self._limits.uploads)
        footage = await self._decoders.footage(upload, self._config, self._caller)
        return cast("NDArray[np.uint8]", footage.frames[0])

    def _completed(self) -> None:
        """Note the chunks of which the last frame has come. Each is due a chunk's time later, and what comes after it then follows."""
        while (after := self._grid.first_frame(self._next_complete + 1)) <= self._feed.next_frame:
            self._complete_at[self._next_complete] = self._clock.now()
            self._pacer.asked(2 * self._grid.first_frame(self._next_complete) - after)
            self._next_complete += 1


def _wrong(field: str, description: str) -> InvalidRequest:
    return InvalidRequest((FieldViolation(f"{_FIELD}.{field}", description),))
