"""Measures files beside what serves: each in a process of its own, one at a time, within a time."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from subprocess import PIPE

from model_core.errors import HeadraceError
from model_core.quality.values import Quality, quality_of
from model_core.quality.wish import Wish
from model_core.tasks import run_in_thread

# By its name: what it imports, this process needs none of.
_COMMAND = (sys.executable, "-m", "model_core.quality.child")
_KEPT_VARIABLES = ("LD_LIBRARY_PATH", "PATH", "HOME", "TMPDIR")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_MOST_SAID = 500  # bytes of what went wrong


class Unmeasured(HeadraceError):
    """A file was not measured; says why."""


class Late(Unmeasured):
    """It took too long."""


class Aside:
    """Use it from one event loop.

    Args:
        within_s: for one file, from the call on: waiting for another file included.
        command: what to start; it speaks the protocol of `child`.
    """

    def __init__(self, within_s: float, command: Sequence[str] = _COMMAND) -> None:
        self._within_s = within_s
        self._command = tuple(command)
        self._one = asyncio.Semaphore(1)

    async def look(self, path: Path, wish: Wish) -> Quality:
        """What `model_core.quality.look.look` finds. No process is left when this returns, or is cancelled.

        Raises:
            Late: it took more than `within_s`.
            Unmeasured: the file is none that can be measured, or the process failed.
        """
        try:
            async with asyncio.timeout(self._within_s), self._one:
                asked = {"path": str(path), "wish": asdict(wish), "seconds": self._within_s}
                process = _Process(self._command)
                said, complaint, code = await run_in_thread(process.ask, json.dumps(asked).encode(), abort=process.kill)
        except TimeoutError:
            raise Late(f"it took more than {self._within_s:g} s") from None
        except OSError as error:
            raise Unmeasured(f"no process started: {error.strerror}") from error
        try:
            told = json.loads(said)
            if "refused" in told:
                raise Unmeasured(str(told["refused"]))
            return quality_of(told["quality"])
        except (ValueError, KeyError, TypeError):
            last = complaint[-_MOST_SAID:].decode(errors="replace").strip().rpartition("\n")[2]
            raise Unmeasured(f"its process ended with code {code}: {last}") from None


class _Process:
    """One process, for one question. `kill` may be called from any thread, at any moment."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._lock = threading.Lock()
        self._popen: subprocess.Popen[bytes] | None = None
        self._killed = False

    def ask(self, asked: bytes) -> tuple[bytes, bytes, int]:
        """What it said on standard output and on standard error, and its exit code. Blocks until it has ended.

        Raises:
            OSError: it did not start.
        """
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        environment |= _ONE_THREAD | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}  # the modules that this process has
        with self._lock:
            if self._killed:
                return b"", b"", -1
            # A session of its own: a signal to this process's group does not reach it.
            popen = self._popen = subprocess.Popen(
                self._command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment, start_new_session=True
            )
        with popen:
            said, error = popen.communicate(asked)
        return said, error, popen.returncode

    def kill(self) -> None:
        """End it soon, and `ask` with it."""
        with self._lock:
            self._killed = True
            if self._popen is not None:
                self._popen.kill()
