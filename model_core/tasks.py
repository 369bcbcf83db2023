"""Small asyncio habits: end helper tasks without losing a cancellation, wait for work that cannot be cancelled, stop work on an event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


async def cancel_and_wait(*tasks: asyncio.Task[Any]) -> None:
    """Cancel `tasks` and return when every one has ended, whatever it ended with.

    A cancellation of the caller that arrives meanwhile is passed on, but only then: `await task` under
    `suppress(CancelledError)` would swallow it, and leaving early would abandon a task in its clean-up.
    """
    for task in tasks:
        task.cancel()
    await _wait(*tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # marks it as seen, or asyncio would log it as lost


async def unless(event: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` comes to, or None if `event` is set before; then `work` is cancelled."""
    task, wake = asyncio.create_task(work), asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, wake}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        await cancel_and_wait(task, wake)


async def finished(work: Coroutine[Any, Any, T]) -> T:
    """What `work`, which is short, comes to. It is not cancelled with the caller, whose cancellation is passed on when it has ended."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    finally:
        await _wait(task)
        if not task.cancelled():
            task.exception()  # marks it as seen, where nobody is left to raise it to


async def run_in_thread(
    function: Callable[..., T], *args: object, abort: Callable[[], None] | None = None, threads: Executor | None = None
) -> T:
    """`asyncio.to_thread` that never leaves its thread running behind a cancelled caller, so what `function` uses can be closed next.

    Args:
        abort: is called when the caller is cancelled, and makes `function` return soon.
        threads: for what waits for others; None: the few threads that everybody shares, of the event loop.
    """
    task = asyncio.create_task(_in(threads, partial(function, *args)))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if abort is not None:
            abort()
        raise
    finally:
        await _wait(task)
        if not task.cancelled():
            task.exception()  # marks it as seen, where nobody is left to raise it to


def begun(work: Coroutine[Any, Any, object]) -> _Rest | None:
    """Run `work` until it waits for something, and return the rest of it, to be awaited; None where it did not have to wait.

    Raises what `work` raises until then. It runs in the caller's task, as if the caller had awaited it.
    """
    try:
        return _Rest(work, work.send(None))
    except StopIteration:
        return None


class _Rest:
    """A coroutine that waits for something. It is awaited once."""

    def __init__(self, work: Coroutine[Any, Any, object], waits_for: object) -> None:
        self._work = work
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        while True:
            try:
                sent = yield self._waits_for
            except GeneratorExit:
                self._work.close()
                raise
            except BaseException as error:  # noqa: BLE001 - it is for the coroutine, as a cancellation is
                go_on = partial(self._work.throw, error)
            else:
                go_on = partial(self._work.send, sent)
            try:
                self._waits_for = go_on()
            except StopIteration:
                return


async def _in(threads: Executor | None, work: Callable[[], T]) -> T:
    """With the caller's context, as `asyncio.to_thread` has it."""
    context = copy_context()
    return await asyncio.get_running_loop().run_in_executor(threads, lambda: context.run(work))


async def _wait(*tasks: asyncio.Task[Any]) -> None:
    cancelled: asyncio.CancelledError | None = None
    while pending := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
