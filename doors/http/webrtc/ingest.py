"""A publisher's video on its way in: access units off the wire, decoded in a process of their own, as frames at the session's rate.

Runs in the event loop of `peers`. Names inside aiortc are used in `receiving`, so a new release needs a look: its own decoder would hold
what comes without a bound, and decode in this process what nobody vouches for.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any, Protocol

from aiortc import RTCPeerConnection, RTCRtpTransceiver

from model_core.access_units import nal_units_of_annex_b
from model_core.tasks import cancel_and_wait
from model_core.uploads.cadence import Cadence, Newest
from model_core.uploads.live import LiveDecoder, decoding

_CLOCK = 90_000
_WRAPS = 1 << 32
_IDR = 5
_MOST_UNITS = 64
_MOST_UNIT_BYTES = 4 * 1024 * 1024

log = logging.getLogger(__name__)


class Taker(Protocol):
    """What stands where aiortc has the queue to its decoder."""

    def put(self, given: Any) -> None:
        """As aiortc's receiver calls it, in its loop: a codec and a frame, or None at the end."""
        ...

    def get(self) -> None:
        """As aiortc's thread to decode calls it. With None, the thread ends."""
        ...


def tapped(transceiver: RTCRtpTransceiver, taker: Taker) -> Any:
    """The receiver of `transceiver`, whose access units go to `taker`, and to no decoder."""
    receiver: Any = transceiver.receiver
    receiver._RTCRtpReceiver__decoder_queue = taker  # noqa: SLF001 - see the module
    return receiver


class Units:
    """A `Taker`. One that is full drops all it has, and begins again with a key picture.

    Attributes:
        dropped: access units that were not taken.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self.lost = False
        self._units: deque[tuple[int, bytes]] = deque()
        self._news = asyncio.Event()
        self._closed = False

    def put(self, given: Any) -> None:
        """See `Taker`."""
        if given is None:
            self._closed = True
            self._news.set()
            return
        _, frame = given
        key = any(unit and unit[0] & 0x1F == _IDR for unit in nal_units_of_annex_b(frame.data))
        if len(self._units) >= _MOST_UNITS:
            self.dropped += len(self._units)
            self._units.clear()
            self.lost = True
        if (self.lost and not key) or len(frame.data) > _MOST_UNIT_BYTES:
            self.dropped += 1
            self.lost = True
            return
        self.lost = False
        self._units.append((frame.timestamp, frame.data))
        self._news.set()

    def get(self) -> None:
        """See `Taker`: nothing is decoded there."""

    async def next(self) -> tuple[int, bytes] | None:
        """The next access unit and its time, in ticks; None at the end."""
        while not self._units and not self._closed:
            self._news.clear()
            await self._news.wait()
        return self._units.popleft() if self._units else None


class Ingest:
    """One publisher's video.

    Args:
        width, height, fps: of the frames that the session takes.
        most: frames that may wait for the session. Beyond them, the oldest are dropped.
    """

    def __init__(self, width: int, height: int, fps: int, most: int) -> None:
        self._size = (width, height)
        self._units = Units()
        self._cadence = Cadence(fps)
        self._frames = Newest(most)
        self._news = asyncio.Event()
        self._over = False
        self._receiver: Any = None

    @property
    def dropped(self) -> int:
        """Frames, and pictures that were never decoded."""
        return self._frames.dropped + self._units.dropped

    def receiving(self, pc: RTCPeerConnection) -> RTCRtpTransceiver:
        """A connection whose video comes here."""
        transceiver = pc.addTransceiver("video", "recvonly")
        self._receiver = tapped(transceiver, self._units)
        return transceiver

    async def run(self) -> None:
        """Decode until the publisher has gone. Raises StageUnavailable: the decoder went wrong."""
        try:
            async with decoding(*self._size) as decoder:
                giving, taking = asyncio.create_task(self._give(decoder)), asyncio.create_task(self._take(decoder))
                try:
                    await asyncio.wait({giving, taking}, return_when=asyncio.FIRST_COMPLETED)
                    (taking if taking.done() else giving).result()
                finally:
                    await cancel_and_wait(giving, taking)
        finally:
            self._over = True
            self._news.set()

    async def next(self, most: int, idle_s: float) -> tuple[bytes, ...]:
        """At least one frame and at most so many, raw RGB; none at the end, or where none came for `idle_s`."""
        try:
            async with asyncio.timeout(idle_s):
                while not len(self._frames) and not self._over:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            log.info("a publisher has sent no picture for %g s", idle_s)
            return ()
        return self._frames.take(most)

    async def _give(self, decoder: LiveDecoder) -> None:
        while (found := await self._units.next()) is not None:
            await decoder.give(*found)

    async def _take(self, decoder: LiveDecoder) -> None:
        before, turns = 0, 0
        while True:
            decoded = await decoder.take()
            if decoded.data is None:
                self._ask_for_key_picture()
                continue
            turns += decoded.ticks < before - _WRAPS // 2
            before = decoded.ticks
            for frame in self._cadence.frames((decoded.ticks + turns * _WRAPS) / _CLOCK, decoded.data):
                self._frames.put(frame)
            self._news.set()

    def _ask_for_key_picture(self) -> None:
        """Aiortc sends a PLI with the next packet, as after an error of its own decoder."""
        if self._receiver is not None:
            self._receiver._RTCRtpReceiver__decoder_error.set()  # noqa: SLF001 - see the module
