"""An event loop of its own, in a thread of its own, so that packets wait for no session, and no session for packets."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

_TRIES = 64


class PortLoop(asyncio.SelectorEventLoop):
    """Takes UDP ports from a range, where somebody asks for any.

    Args:
        ports: the first and the last one; None for whatever the system gives.
        chance: says where in the range to begin.
    """

    def __init__(self, ports: tuple[int, int] | None, chance: random.Random) -> None:
        super().__init__()
        self._ports, self._chance = ports, chance

    async def create_datagram_endpoint(self, protocol_factory: Any, local_addr: Any = None, *args: Any, **named: Any) -> Any:
        """Raises OSError: no port of the range is free, or none was after some tries."""
        make = super().create_datagram_endpoint
        if self._ports is None or local_addr is None or local_addr[1] != 0:
            return await make(protocol_factory, local_addr, *args, **named)
        first, last = self._ports
        count = last - first + 1
        begin, refused = self._chance.randrange(count), OSError("no port was tried")
        for step in range(min(count, _TRIES)):
            try:
                return await make(protocol_factory, (local_addr[0], first + (begin + step) % count), *args, **named)
            except OSError as error:
                refused = error
        raise OSError(f"no UDP port from {first} to {last} is free: {refused}")


class LoopThread:
    """The thread. Everything that runs in it is given by `run`, from one other event loop.

    Args:
        ports: see `PortLoop`.
    """

    def __init__(self, ports: tuple[int, int] | None) -> None:
        self._loop = PortLoop(ports, random.Random())
        self._thread = threading.Thread(target=self._serve, name="webrtc", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` comes to, there. It is cancelled with the caller, who then waits for its end."""
        here = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = here.create_future()
        tasks: list[asyncio.Task[T]] = []

        def begin() -> None:
            tasks.append(self._loop.create_task(work))
            tasks[0].add_done_callback(lambda task: here.call_soon_threadsafe(_settle, outcome, task))

        def cancel() -> None:
            tasks[0].cancel()

        self._loop.call_soon_threadsafe(begin)
        try:
            return await asyncio.shield(outcome)
        except asyncio.CancelledError:
            self._loop.call_soon_threadsafe(cancel)
            while not outcome.done():
                with suppress(asyncio.CancelledError):  # it is passed on below
                    await asyncio.wait([outcome])
            if not outcome.cancelled():
                outcome.exception()  # marks it as seen
            raise

    async def stop(self) -> None:
        """After the last `run`. Tasks that are left are cancelled."""
        await self.run(_cancel_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()


def _settle(outcome: asyncio.Future[T], task: asyncio.Task[T]) -> None:
    """`outcome` becomes what `task` has come to."""
    if task.cancelled():
        outcome.cancel()
    elif (error := task.exception()) is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(task.result())


async def _cancel_all() -> None:
    left = asyncio.all_tasks() - {task for task in [asyncio.current_task()] if task is not None}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=5.0)
