"""All WebRTC of one front door: peers, within their number, each with an address to end it by. Imports no aiortc until it starts."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from doors.http.webrtc.loop import LoopThread
from doors.http.webrtc.options import WebRtcOptions
from model_core.errors import CapacityExceeded, HeadraceError, StageUnavailable
from model_core.tasks import cancel_and_wait, finished
from service.failures import NotFound

if TYPE_CHECKING:
    from doors.http.webrtc.connection import Connection

T = TypeVar("T")

_RETRY_S = 5.0
_DRAINING = "the server is shutting down; connect to another one"
_SOURCES = ("doors.http.webrtc.connection", "doors.http.webrtc.track")

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Peer:
    """One connection, as its owner, a task of the front door's own loop, has it.

    Attributes:
        id: names it in addresses. Whoever has it may end it.
        kind: `whep` or `whip`.
        ufrag: by which ICE knows the other side.
        task: owns it.
    """

    id: str
    kind: str
    ufrag: str
    connection: Connection
    loop: LoopThread
    task: asyncio.Task[None] | None = None

    @property
    def etag(self) -> str:
        """Of its ICE session, which does not change."""
        return f'"{self.id[:16]}"'

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """In the loop of its connection."""
        return await self.loop.run(work)


class WebRtc:
    """See `service.doors.Door`. It has no port: peers come by HTTP, and packets go where the answers say.

    Args:
        options: the bounds.
        new_id: of a peer, which nobody can guess.
    """

    def __init__(self, options: WebRtcOptions, new_id: Callable[[], str]) -> None:
        self.options = options
        self._new_id = new_id
        self._loop: LoopThread | None = None
        self._peers: dict[str, Peer] = {}
        self._taken = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving = False

    @property
    def peers(self) -> int:
        """Those that there are, or that are being made."""
        return self._taken

    async def start(self) -> int:
        """See `Door`. Raises RuntimeError: aiortc is not installed."""
        try:
            await asyncio.to_thread(lambda: [importlib.import_module(name) for name in _SOURCES])  # which takes a while
        except ImportError as error:
            raise RuntimeError(f"front_door.webrtc.enabled needs the package aiortc: {error}") from None
        self._loop = LoopThread(self.options.ports)
        self._loop.start()
        return 0

    async def stop_serving(self) -> None:
        """See `Door`."""
        self._leaving = True

    async def stop(self, grace_s: float) -> None:
        """See `Door`."""
        self._leaving = True
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=grace_s)
        await cancel_and_wait(*self._tasks)
        if self._loop is not None:
            loop, self._loop = self._loop, None
            await loop.stop()

    def own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that owns a peer, and ends by itself or with the server."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, HeadraceError):
            log.error("a peer's task failed", exc_info=error)

    @asynccontextmanager
    async def peer(self, kind: str, ufrag: str, make: Callable[[], Connection]) -> AsyncGenerator[Peer]:
        """A connection, made by `make` in the loop of connections. It is closed at the end.

        Raises:
            CapacityExceeded: there are too many.
            StageUnavailable: the server shuts down.
        """
        loop, most = self._loop, self.options.max_peers
        if self._leaving or loop is None:
            raise StageUnavailable(_DRAINING)
        if self._taken >= most:
            raise CapacityExceeded(f"at most {most} peers may be connected by WebRTC; {self._taken} are", retry_after_s=_RETRY_S)
        self._taken += 1
        try:
            peer = Peer(self._new_id(), kind, ufrag, await loop.run(_made(make)), loop, asyncio.current_task())
            self._peers[peer.id] = peer
            try:
                yield peer
            finally:
                del self._peers[peer.id]
                await finished(loop.run(peer.connection.close()))
        finally:
            self._taken -= 1

    def find(self, kind: str, peer_id: str) -> Peer:
        """Raises NotFound."""
        peer = self._peers.get(peer_id)
        if peer is None or peer.kind != kind:
            raise NotFound("id: no peer that is connected here has it; it is unknown, or it has ended")
        return peer

    async def end(self, peer: Peer) -> None:
        """Returns when everything of it is free."""
        if peer.task is not None:
            await cancel_and_wait(peer.task)

    async def add(self, peer: Peer, candidates: Sequence[tuple[str, str]]) -> None:
        """Candidates of the other side, if they are of use."""
        if self.options.takes_candidates and candidates:
            await peer.run(peer.connection.add(candidates))


async def _made(make: Callable[[], Connection]) -> Connection:
    return make()
