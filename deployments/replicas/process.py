"""What a replica knows of its process, and how it lets others go first while it starts."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from autoscaling.reports import ProcessStatistics

_YIELDING = 10  # steps of niceness: a tenth of the share of CPU time of a process that does not yield, where there is not enough for both
_LOWEST = 19  # nice(2)
_CAP_SYS_NICE = 1 << 23  # capabilities(7)
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # mallopt(3)
_LARGE_BYTES = 1024 * 1024
_ARENAS = 2


def process_statistics() -> ProcessStatistics:
    """Of this process, now. Call it on the event loop."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return ProcessStatistics(os.getpid(), len(asyncio.all_tasks()), files, pages * os.sysconf("SC_PAGE_SIZE"))


def return_freed_memory() -> None:
    """Have the C library return large blocks to the kernel once they are freed.

    By default glibc takes the largest block that was ever freed for the size of a usual one, and from then on keeps such blocks. A front
    door frees uploads: after an hour of them it held 177 MB that nothing used. Other C libraries have no such setting; nothing happens
    there.
    """
    with suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        library.mallopt(_M_ARENA_MAX, _ARENAS)


@contextmanager
def yielding() -> Iterator[None]:
    """Whatever runs in this process meanwhile lets other processes go first: a replica that starts is not to disturb those that serve.

    Linux counts niceness by thread, and a new thread inherits it. Where a process may not take its priority back, nothing is changed.
    """
    own = os.getpriority(os.PRIO_PROCESS, 0)
    if not may_raise_priority():
        yield
        return
    lowered = min(own + _YIELDING, _LOWEST)
    os.setpriority(os.PRIO_PROCESS, 0, lowered)
    try:
        yield
    finally:
        for thread in Path("/proc/self/task").iterdir():
            with suppress(ProcessLookupError):  # it has ended since
                if os.getpriority(os.PRIO_PROCESS, int(thread.name)) == lowered:
                    os.setpriority(os.PRIO_PROCESS, int(thread.name), own)


def may_raise_priority() -> bool:
    """Whether this process may take back a priority that it gave up."""
    capabilities = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    return bool(int(capabilities.split()[1], 16) & _CAP_SYS_NICE)
