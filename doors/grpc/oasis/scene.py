"""One scene of an Oasis session: a live session of ours, from whose frames the caller takes four at a time.

A model that takes actions makes a chunk only when its frames are asked for, because the actions come with the question.
"""

from __future__ import annotations

import asyncio
from collections import deque

from model_core.acts import Keys
from model_core.tasks import cancel_and_wait
from service.call import Call, ReaderStalled
from service.controls import Act, Control, Stop
from service.events import Event, Frames, Started
from service.orders import Order
from service.sessions.runner import SessionRunner

_ENDING_S = 5.0


class SceneEnded(Exception):
    """The model's videos are no longer than this."""


class Scene:
    """Runs a session until `aclose`. It goes on only as fast as its frames are taken, so those that nobody takes are few.

    Args:
        runner: serves the session.
        order: what to make.
        call: on whose account.
        idle_s: frames that nobody takes for so long end the session.
    """

    def __init__(self, runner: SessionRunner, order: Order, call: Call, idle_s: float) -> None:
        self._runner = runner
        self._order = order
        self._call = call
        self._idle_s = idle_s
        self._frames: deque[bytes] = deque()
        self._started = False
        self._acts = bool(order.config.keys)
        self._keys: Keys = ()
        self._wanted = False
        self._told: asyncio.Queue[Keys] = asyncio.Queue()
        self._applied = asyncio.Event()  # the session knows which keys are held
        self._closing = asyncio.Event()
        self._arrived = asyncio.Event()
        self._took = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(lambda _: self._over())

    async def started(self) -> None:
        """Return when the session has its slot. Raises what refused it."""
        while not self._started:
            self._check()
            await self._arrival()

    def act(self, keys: Keys) -> None:
        """Hold these keys, which the model has, and no others."""
        if keys != self._keys:
            self._keys = keys
            self._applied.clear()
            self._told.put_nowait(keys)

    async def wait_for(self, count: int) -> None:
        """Return when `count` frames are there. Raises what ended the session, or SceneEnded."""
        while len(self._frames) < count:
            self._check()
            await self._applied.wait()
            self._wanted = True
            self._took.set()
            await self._arrival()

    def take(self, count: int) -> list[bytes]:
        """The next `count` frames, which are there."""
        taken = [self._frames.popleft() for _ in range(count)]
        self._took.set()
        return taken

    async def aclose(self) -> None:
        """End the session, and wait for that."""
        self._closing.set()
        _, late = await asyncio.wait({self._task}, timeout=_ENDING_S)
        await cancel_and_wait(*late)
        if not self._task.cancelled():
            self._task.exception()  # marks it as seen

    def _over(self) -> None:
        """Nobody waits for a session that has ended."""
        self._applied.set()
        self._arrived.set()

    def _check(self) -> None:
        """Raise why there will be no more frames."""
        if self._task.done():
            self._task.result()
            raise SceneEnded

    async def _arrival(self) -> None:
        self._arrived.clear()
        await self._arrived.wait()

    async def _run(self) -> None:
        await self._runner.run(self._order, self._send, self._call, self._controls)

    async def _controls(self) -> Control | None:
        """The next control. Whoever asks for one has applied those before it."""
        if self._told.empty():
            self._applied.set()
        acting, closing = asyncio.create_task(self._told.get()), asyncio.create_task(self._closing.wait())
        try:
            await asyncio.wait({acting, closing}, return_when=asyncio.FIRST_COMPLETED)
            return Stop() if self._closing.is_set() else Act(acting.result())
        finally:
            await cancel_and_wait(acting, closing)

    async def _send(self, event: Event) -> None:
        """See `service.events.Send`. A chunk counts as taken when all of its frames are."""
        match event:
            case Started():
                self._started = True
                self._arrived.set()
                await self._until_taken()
            case Frames(chunk=chunk):
                self._wanted = False
                self._frames.extend(chunk.data)
                self._arrived.set()
                await self._until_taken()

    async def _until_taken(self) -> None:
        """Raises ReaderStalled."""
        while (self._frames or (self._acts and not self._wanted)) and not self._closing.is_set():
            self._took.clear()
            waits = [asyncio.create_task(event.wait()) for event in (self._took, self._closing)]
            try:
                done, _ = await asyncio.wait(waits, timeout=self._idle_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await cancel_and_wait(*waits)
            if not done:
                raise ReaderStalled(f"no action came for {self._idle_s:g} s")
