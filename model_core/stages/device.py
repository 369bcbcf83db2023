"""The thread of a stage's device. It makes one call after the other, and a call that hangs is noticed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from model_core.errors import DeviceBroken, StageUnavailable
from model_core.stages.watchdog import Watchdog

Result = TypeVar("Result")


class DeviceThread:
    """Calls may come from any event loop. A call that raises `DeviceBroken` is the last one.

    It does not keep the process alive: a call that never returns must not.

    Args:
        stage: what it is a part of, in errors.
        watchdog: of its calls.
        name: of the thread.
    """

    def __init__(self, stage: str, watchdog: Watchdog, name: str) -> None:
        self._stage, self._watchdog = stage, watchdog
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any], int] | None] = SimpleQueue()
        self._closed = False
        self._broken = ""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Callable[..., Result], *args: object, units: int = 1) -> asyncio.Future[Result]:
        """Queue `work`, to be awaited by `finished`. Cancelling it takes it out of the queue.

        Args:
            units: see `Watchdog.working`.

        Raises:
            StageUnavailable: see `check_health`.
        """
        self.check_health()
        future: Future[Result] = Future()
        self._calls.put((future, partial(work, *args), units))
        return asyncio.wrap_future(future)

    async def finished(self, call: asyncio.Future[Result]) -> Result:
        """What a call came to.

        Raises:
            StageUnavailable: the thread is stuck, or has ended.
        """
        return await self._watchdog.until(call, self._check_works)

    def check_health(self) -> None:
        """Raise if the stage must be replaced.

        Raises:
            StageUnavailable: it is closed, its device is broken, or its thread is stuck.
        """
        if self._closed:
            raise StageUnavailable(f"the {self._stage} is closed")
        self._check_works()

    async def aclose(self) -> None:
        """Refuse new calls, finish those that are queued, end the thread; one that is stuck is left behind. Safe to call twice."""
        self._closed = True
        self._calls.put(None)
        await self._watchdog.join(self._thread)

    def _check_works(self) -> None:
        if self._broken:
            raise StageUnavailable(f"the device of the {self._stage} is broken: {self._broken}")
        if not self._thread.is_alive():
            raise StageUnavailable(f"the {self._stage} is closed")
        self._watchdog.check()

    def _run(self) -> None:
        while not self._broken and (call := self._calls.get()) is not None:
            future, work, units = call
            if not future.set_running_or_notify_cancel():
                continue
            try:
                with self._watchdog.working(units):
                    result = work()
            except DeviceBroken as error:
                self._broken = str(error)
                future.set_exception(StageUnavailable(f"the device of the {self._stage} is broken: {error}"))
            except BaseException as error:  # noqa: BLE001 - belongs to whoever waits for it
                future.set_exception(error)
            else:
                future.set_result(result)
            del call, future, work  # nothing of a session stays here until the next call
