"""Threads that parse what callers send. They are few, and nobody else's: a session that starts does not stand in line behind uploads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from model_core.tasks import finished

T = TypeVar("T")

THREADS = 2


class Workers:
    """Starts its threads when they are first needed."""

    def __init__(self, threads: int = THREADS) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="http-body")

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """What `function` returns. It is never left running behind a caller that was cancelled."""

        async def work() -> T:
            return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*args))

        return await finished(work())

    def close(self) -> None:
        """Take no more work. What runs is let be."""
        self._pool.shutdown(wait=False, cancel_futures=True)
