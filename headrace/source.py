"""The client's side of a source: frames are sent as the server allows, kept for a while, and sent again after a lost connection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import dataclass

import grpc

from headrace.errors import ClientError
from headrace.v1 import video_pb2 as pb

_AT_ONCE = 16  # frames in a message
_MESSAGE_BYTES = 2 * 1024 * 1024  # half of what a server of the default limits takes

Write = Callable[[pb.LiveRequest], Awaitable[bool]]
"""Sends one message. False: the connection is lost, or there is none."""


@dataclass(frozen=True, slots=True)
class LiveSource:
    """What a session restyles.

    Attributes:
        frames: one item a frame, at the speed at which it is played.
        strength: above 0, at most 1; see `pb.VideoSpec`.
        codec: `CODEC_JPEG`, or `CODEC_RAW_RGB` for frames of the served size.
        drops: what happens when the server takes frames more slowly than they come. False: the iteration waits, as a file can. True: the
            newest frames are dropped, as is right for a camera.
        keep: frames that were sent and can be sent again, when the session goes on at another server.
    """

    frames: AsyncIterable[bytes]
    strength: float
    codec: pb.Codec = pb.CODEC_JPEG
    drops: bool = False
    keep: int = 480


class SourceSender:
    """Sends the frames of a source.

    Attributes:
        dropped: frames that this side has dropped.
    """

    def __init__(self, source: LiveSource, write: Write) -> None:
        self._source, self._write = source, write
        self.dropped = 0
        self._frames: deque[bytes] = deque()
        self._first = 0  # number of the first frame in it
        self._next = 0  # to be sent
        self._until = 0
        self._finished = self._end_sent = False
        self._changed = asyncio.Event()

    def heard(self, event: object) -> None:
        """Note what the server says.

        Raises:
            ClientError: it needs frames that are not kept any more.
        """
        match event:
            case pb.Started() if event.HasField("source"):
                self._next, self._until, self._end_sent = event.source.next_frame, event.source.until_frame, False
                if self._next < self._first:
                    told = f"the server needs the source from frame {self._next} on; frames are kept from {self._first} on"
                    raise ClientError(grpc.StatusCode.OUT_OF_RANGE, told)
            case pb.SourceTaken():
                self._until = max(self._until, event.until_frame)
            case pb.SourceDropped():
                self._next = max(self._first, min(self._next, event.next_frame))
            case _:
                return
        self._changed.set()

    def lost(self) -> None:
        """The connection is gone: nothing is sent before the next Started."""
        self._until = 0

    async def run(self) -> None:
        """Send, until cancelled."""
        reading = asyncio.create_task(self._read())
        try:
            while True:
                if self._next < min(self._until, self._last):
                    await self._send()
                elif self._finished and self._next == self._last and self._until and not self._end_sent:
                    self._end_sent = await self._write(pb.LiveRequest(source_end=pb.SourceEnd()))
                    self._until = self._until if self._end_sent else 0
                elif reading.done() and (error := reading.exception()) is not None:
                    raise error
                else:
                    self._changed.clear()
                    await self._changed.wait()
        finally:
            reading.cancel()

    @property
    def _last(self) -> int:
        """One past the newest frame that is here."""
        return self._first + len(self._frames)

    async def _send(self) -> None:
        first, size, data = self._next, 0, list[bytes]()
        for number in range(first, min(self._until, self._last, first + _AT_ONCE)):
            frame = self._frames[number - self._first]
            size += len(frame)
            if data and size > _MESSAGE_BYTES:
                break
            data.append(frame)
        self._next = first + len(data)
        if not await self._write(pb.LiveRequest(source_frames=pb.SourceFrames(first_frame=first, codec=self._source.codec, data=data))):
            self.lost()
            return
        while self._next - self._first > self._source.keep:
            self._frames.popleft()
            self._first += 1
        self._changed.set()

    async def _read(self) -> None:
        try:
            async for frame in self._source.frames:
                while not self._source.drops and self._is_full:
                    self._changed.clear()
                    await self._changed.wait()
                if self._is_full:
                    self.dropped += 1
                    continue
                self._frames.append(frame)
                self._changed.set()
            self._finished = True
        finally:
            asyncio.get_running_loop().call_soon(self._changed.set)  # once the task is done

    @property
    def _is_full(self) -> bool:
        """No more than one message waits: what is older than that would only be shown late."""
        return self._last - max(self._next, self._first) >= _AT_ONCE
