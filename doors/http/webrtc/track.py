"""Pictures that are coded already, as a track of aiortc's: paced as they play, and never coded again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from fractions import Fraction

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av.packet import Packet
from av.stream import Stream

_CLOCK = 90_000
_TIME_BASE = Fraction(1, _CLOCK)
# Of a track that lags behind by a chunk: it plays so much faster until it does not.
_CATCHING_UP = 1.25
_MOST_CHUNKS = 2


class UnitTrack(MediaStreamTrack):
    """What is put in comes out, a picture at a time, when it is due. It holds two chunks at most. Use it from one event loop.

    Times are those at which pictures are sent. So a pause is one for the player too, and no time ever goes back: pictures that are
    superseded before they are sent are dropped, and later ones follow those that were.

    Args:
        fps: pictures a second.
    """

    kind = "video"

    def __init__(self, fps: int) -> None:
        super().__init__()
        self._fps = fps
        self._pictures: deque[tuple[int, bytes]] = deque()
        self._chunk = 1
        self._asked = False
        self._over = False
        self._changed = asyncio.Event()
        self._began: float | None = None
        self._due = 0.0

    @property
    def waiting(self) -> int:
        """Pictures that are still to be sent."""
        return len(self._pictures)

    async def put(self, first_frame: int, units: Sequence[bytes]) -> None:
        """Take a chunk: access units of its pictures, the first of which is number `first_frame` and a key picture.

        Returns when there was room, which there always is before somebody plays: then the newest chunk is all that is kept.
        """
        if not units:
            return
        if not self._asked:
            self._pictures.clear()
        while self._pictures and self._pictures[-1][0] >= first_frame:
            self._pictures.pop()  # superseded, and not sent
        while self._asked and not self._over and len(self._pictures) > (_MOST_CHUNKS - 1) * len(units):
            await self._change()
        if self._over:
            return
        self._chunk = len(units)
        self._pictures.extend(enumerate(units, first_frame))
        self._wake()

    async def recv(self) -> Packet[Stream]:
        """The next picture, when it is due. Raises MediaStreamError: there is none any more."""
        self._asked = True
        while not self._pictures and not self._over:
            await self._change()
        if self._over:
            raise MediaStreamError
        _, unit = self._pictures.popleft()
        self._wake()
        now = asyncio.get_running_loop().time()
        faster = _CATCHING_UP if len(self._pictures) >= self._chunk else 1.0
        self._due = max(now, self._due + 1 / (self._fps * faster))
        if self._began is None:
            self._began = self._due
        await asyncio.sleep(self._due - now)
        packet = Packet(unit)
        packet.pts, packet.time_base = round((self._due - self._began) * _CLOCK), _TIME_BASE
        return packet

    async def played(self) -> None:
        """Wait until all that was put in was sent, or nothing is any more."""
        while self._pictures and self._asked and not self._over:
            await self._change()

    def stop(self) -> None:
        self._over = True
        self._pictures.clear()
        self._wake()
        super().stop()

    async def _change(self) -> None:
        changed = self._changed
        await changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
