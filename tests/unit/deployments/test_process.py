"""Replicas that start let others go first, and give back what they freed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import pytest

from deployments.replicas import process
from deployments.replicas.process import yielding


@contextmanager
def thread() -> Iterator[int]:
    """A thread that lives meanwhile; its number."""
    done, started, number = threading.Event(), threading.Event(), list[int]()

    def wait() -> None:
        number.append(threading.get_native_id())
        started.set()
        done.wait()

    running = threading.Thread(target=wait)
    running.start()
    started.wait()
    try:
        yield number[0]
    finally:
        done.set()
        running.join()


def niceness(number: int = 0) -> int:
    return os.getpriority(os.PRIO_PROCESS, number)


@pytest.mark.parametrize("own", [0, 15, 19])
def test_what_starts_yields_and_takes_its_priority_back(own: int) -> None:
    if not process.may_raise_priority():
        pytest.skip("this process may not raise its priority (CAP_SYS_NICE), so nothing is changed")

    def start() -> None:  # in a thread, whose niceness is its own
        os.setpriority(os.PRIO_PROCESS, 0, own)
        with ExitStack() as threads:
            before = threads.enter_context(thread())
            with suppress(RuntimeError), yielding():
                within = threads.enter_context(thread())
                assert niceness() > own or own == 19  # the lowest there is
                assert niceness(within) == niceness()
                assert niceness(before) == own
                raise RuntimeError("no weights")
            assert (niceness(), niceness(before), niceness(within)) == (own, own, own)

    with ThreadPoolExecutor(1) as executor:
        executor.submit(start).result()


def test_nothing_changes_where_a_priority_could_not_be_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "may_raise_priority", lambda: False)
    own = niceness()
    with yielding():
        assert niceness() == own


_KEPT_AFTER_UPLOADS = """
import ctypes, sys
from deployments.replicas.process import return_freed_memory

class Statistics(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

library = ctypes.CDLL(None)
if not hasattr(library, "mallinfo2"):
    sys.exit(3)
library.malloc.restype, library.malloc.argtypes, library.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
library.mallinfo2.restype = Statistics
if sys.argv[1] == "returned":
    return_freed_memory()
library.free(library.malloc(8 << 20))
blocks = [(library.malloc(8 << 20), library.malloc(256 << 10)) for _ in range(10)]
for large, _small in blocks:
    library.free(large)
print(library.mallinfo2().fordblks >> 20)
"""


@pytest.mark.parametrize(("setting", "kept"), [("as it is", range(70, 100)), ("returned", range(4))])
def test_large_blocks_that_are_freed_go_back_to_the_kernel(setting: str, kept: range) -> None:
    ran = subprocess.run([sys.executable, "-c", _KEPT_AFTER_UPLOADS, setting], capture_output=True, text=True, timeout=600, check=False)
    if ran.returncode == 3:
        pytest.skip("the C library is no glibc of 2.33 or newer")
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) in kept
