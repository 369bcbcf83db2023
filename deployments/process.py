"""Numbers that a replica gives about itself, those of its process among them: in these a leak would show."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class ProcessStatistics:
    """Of the process and the event loop that asks: unfinished asyncio `tasks`, open `files` (sockets too), resident memory."""

    pid: int
    tasks: int
    files: int
    resident_bytes: int


def process_statistics() -> ProcessStatistics:
    """Call it on the event loop."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return ProcessStatistics(os.getpid(), len(asyncio.all_tasks()), files, pages * os.sysconf("SC_PAGE_SIZE"))


def numbers(prefix: str, statistics: Any) -> dict[str, float]:
    """The numbers in a statistics dataclass, flat, as Serve's autoscaler takes them; those of a dataclass or tuple within, too."""
    flat: dict[str, float] = {}
    for name, value in _items(statistics):
        if isinstance(value, int | float):
            flat[f"{prefix}_{name}"] = float(value)
        elif isinstance(value, tuple) or dataclasses.is_dataclass(value):
            flat |= numbers(f"{prefix}_{name}", value)
    return flat


def _items(value: Any) -> Iterable[tuple[object, Any]]:
    if isinstance(value, tuple):
        return enumerate(value)
    return ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
