"""Decodes uploads in processes beside this one, so that a file costs its sender and nobody else.

Each process may have so much memory and so much processor time for one file, and is killed when the caller has gone, when the file takes
too long by the clock, or when it has gone wrong in any way; the next file gets a new one. Processes are few, start with the first upload,
and are used again. They are executed, not forked, and get no descriptors and no environment of this process but where its modules are.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from model_core.config import Media, ModelConfig
from model_core.errors import FieldViolation, InvalidRequest, StageUnavailable
from model_core.tasks import run_in_thread
from model_core.types import Footage
from model_core.uploads import worker
from model_core.uploads.places import FairPlaces
from model_core.uploads.upload import Refused, Upload, Wanted

_PROCESSES = 2
# By the clock, waiting for a process included: some times what a file may take of a processor that others use as well.
_WITHIN_S = 90.0
# A decoder may lose a little memory with each file.
_FILES_EACH = 200
# From its last word to its end, on a machine that is busy: how it ended says whose fault that was.
_ENDS_WITHIN_S = 10.0
_KEPT_VARIABLES = ("LD_LIBRARY_PATH", "PATH")
# One that the machine ended is decoded once more, and not again: the file may be why the machine ran out of memory.
_TRIES = 2
_NOT_NOW = "uploads cannot be decoded just now"
_COMMAND = (sys.executable, "-m", worker.__name__)

log = logging.getLogger(__name__)


class UploadDecoders:
    """A pool of decoding processes. Use it from one event loop.

    Args:
        processes: files that are decoded at once.
        within_s: how long an upload may wait and be decoded.
        command: what to start; it speaks the protocol of `worker`.
    """

    def __init__(self, processes: int = _PROCESSES, within_s: float = _WITHIN_S, command: Sequence[str] = _COMMAND) -> None:
        self._within_s = within_s
        self._command = tuple(command)
        self._places = FairPlaces(processes)
        self._idle: list[_Process] = []
        self._closed = False

    async def footage(self, upload: Upload, config: ModelConfig, caller: str = "") -> Footage:
        """Its frames at the size of `config`. When more wait than can be decoded, those of the `caller` that has fewest go first.

        Raises:
            InvalidRequest: it cannot be decoded, or not within the limits.
            StageUnavailable: it was not decoded in time, or cannot be just now.
        """
        wanted = Wanted.of(upload, config)
        try:
            async with asyncio.timeout(self._within_s), self._places.place(caller):
                frames = await self._frames(upload, wanted)
                return await run_in_thread(as_footage, frames, upload.kind, config)
        except Refused as refused:
            raise InvalidRequest((FieldViolation(upload.field, str(refused)),)) from None
        except TimeoutError:
            raise StageUnavailable(f"{upload.field} was not decoded within {self._within_s:g} s: the server is busy") from None

    def close(self) -> None:
        """Kill all processes."""
        self._closed = True
        while self._idle:
            self._idle.pop().end()

    async def _frames(self, upload: Upload, wanted: Wanted) -> NDArray[np.uint8]:
        tries = 0
        while True:
            tries += 1
            try:
                async with self._process() as process:
                    return await run_in_thread(process.frames, upload, wanted, abort=process.kill)
            except StageUnavailable:
                if self._closed or tries == _TRIES:
                    raise

    @asynccontextmanager
    async def _process(self) -> AsyncGenerator[_Process, None]:
        process = _Process(self._command)
        while self._idle:
            waiting = self._idle.pop()
            if waiting.usable:
                process = waiting
                break
            waiting.end()  # it died while nobody wanted anything of it
        try:
            yield process
        finally:
            if process.usable and not self._closed:
                self._idle.append(process)
            else:
                await run_in_thread(process.end)


class _Process:
    """One process, started with its first file. `kill` may be called from any thread, at any moment."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._popen: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._killed = False
        self._busy = False
        self._files = 0

    @property
    def usable(self) -> bool:
        """It runs, has answered everything that it was asked, and may be asked more."""
        return self._popen is not None and not self._busy and self._files < _FILES_EACH and self._popen.poll() is None

    def frames(self, upload: Upload, wanted: Wanted) -> NDArray[np.uint8]:
        """`[N, H, W, 3]`. Blocks; `kill` ends it.

        Raises:
            Refused: it cannot be decoded, or not within the limits.
            StageUnavailable: the process does not start, or somebody killed it.
        """
        self._busy = True
        popen = self._popen or self._start()
        self._files += 1
        source, target = cast("BinaryIO", popen.stdout), cast("BinaryIO", popen.stdin)
        limits, seconds = upload.limits, upload.limits.max_seconds(upload.kind)
        job = {"bytes": len(upload.data), "wanted": asdict(wanted), "memory_bytes": limits.max_decode_bytes, "seconds": seconds}
        frames = np.empty((0,), np.uint8)
        try:
            worker.write(target, job, (upload.data,))
            answer = worker.read_json(source)
            if "frames" in answer:
                frames = _read_frames(source, int(answer["frames"]), wanted)
        except (worker.Ended, OSError):
            status = self._status(popen)
            self.end()
            raise _died(status, upload, seconds) from None
        except ValueError:
            self.end()
            raise _died(None, upload, seconds) from None
        if "memory" in answer:  # it stays busy: what it could not do without, it may not have given back
            raise Refused(f"must be decodable within {limits.max_decode_bytes} bytes of memory; got one that takes more")
        self._busy = False
        if "refused" in answer:
            raise Refused(str(answer["refused"]))
        return frames

    def kill(self) -> None:
        """End it soon, and `frames` with it."""
        with self._lock:
            self._killed = True
            if self._popen is not None:
                self._popen.kill()

    def end(self) -> None:
        """End it, and wait until it has."""
        self.kill()
        if self._popen is not None:
            with self._popen:  # closes the pipes, waits
                pass

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        # One thread: those of BLAS would count as memory. Modules are looked for where this process finds them.
        environment |= {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        try:
            with self._lock:
                if self._killed:
                    raise StageUnavailable(_NOT_NOW)
                # A session of its own: a signal to this process's group, Ctrl-C among them, is no reason to refuse an upload.
                popen = self._popen = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment, start_new_session=True
                )
            worker.read_json(cast("BinaryIO", popen.stdout))
        except (worker.Ended, OSError, ValueError) as error:
            if not self._killed:
                log.exception("a process to decode uploads did not start")
            raise StageUnavailable(_NOT_NOW) from error
        return popen

    def _status(self, popen: subprocess.Popen[bytes]) -> int | None:
        """How it ended by itself; None if it did not."""
        try:
            return -signal.SIGKILL if self._killed else popen.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            return None


def _died(status: int | None, upload: Upload, seconds: int) -> Refused | StageUnavailable:
    if status == -signal.SIGXCPU:
        return Refused(f"must be decodable within {seconds} s of processor time; got one that takes longer")
    if status in {-signal.SIGKILL, -signal.SIGTERM}:  # by us, or by the machine
        return StageUnavailable(_NOT_NOW)
    log.warning("decoding %s ended its process, or put it out of step: status %s", upload.field, status)
    return Refused(f"must be {'an image' if upload.kind == 'image' else 'a video'} that can be decoded; got one that ends the decoder")


def _read_frames(source: BinaryIO, count: int, wanted: Wanted) -> NDArray[np.uint8]:
    """What a decoder says is not believed: a file may have talked it into anything. Raises ValueError."""
    if not wanted.least <= count <= wanted.most:
        raise ValueError(f"{count} frames")
    frames = np.empty((count, wanted.height, wanted.width, 3), np.uint8)
    worker.read_exactly(source, frames.data.cast("B"))
    return frames


def as_footage(frames: NDArray[np.uint8], kind: Media, config: ModelConfig) -> Footage:
    """Of a video as many frames of its end as fill whole chunks, because a session goes on from there. Takes the digest of all pixels."""
    if kind == "image":
        return Footage(frames)
    grid = config.grid
    whole = grid.first_frame(grid.chunk_of(len(frames)))
    return Footage(frames[len(frames) - whole :])
