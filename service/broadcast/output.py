"""One receiver of a broadcast, for as long as the broadcast lasts: opened, fed, and opened again whenever it is lost.

Whatever happens to a receiver, the session and other receivers do not notice. Each has a queue of its own, which drops what is too old.
A receiver that comes back begins with the newest key picture. Times go on, because they are those of the session.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from model_core.access_units import Group, Header
from model_core.tasks import cancel_and_wait
from service.broadcast.backoff import Backoff
from service.broadcast.program import Program
from service.broadcast.queue import GroupQueue
from service.clock import Clock

log = logging.getLogger(__name__)
T = TypeVar("T")


class SinkFailed(Exception):
    """A receiver was lost, or was never there. A sentence that says why, without secrets."""


class Sink(Protocol):
    """One connection to a receiver."""

    async def send(self, group: Group) -> None:
        """Returns when it has been handed over. Raises SinkFailed."""
        ...

    async def close(self) -> None:
        """End in order. Raises SinkFailed."""
        ...

    async def abort(self) -> None:
        """Let go of it at once, whatever it does. Raises nothing."""
        ...


@dataclass(slots=True)
class OutputCounts:
    """How an output has done so far.

    Attributes:
        connections: how often it was opened.
        failures: how often it was lost, or could not be opened.
        frames: that were handed over.
        dropped: frames that it was too slow for, or away for.
    """

    connections: int = 0
    failures: int = 0
    frames: int = 0
    dropped: int = 0


class Output:
    """See the module.

    Args:
        name: for logs; without secrets.
        open_sink: connects. Raises SinkFailed.
        clock: for waits.
        chance: from 0 to 1, for the waits between tries.
        report: is told of each change, in a sentence.
        backoff: how long it waits before another try.
        stall_s: a receiver that takes nothing for so long is lost.
        open_s: so is one that has not answered by then.
        wants_all: begin with what waits, and not with what is newest; for receivers that are fast, as a disk is.
    """

    def __init__(
        self, name: str, open_sink: Callable[[Header], Awaitable[Sink]], clock: Clock, chance: Callable[[], float],
        report: Callable[[str], None] = log.info, backoff: Backoff | None = None, stall_s: float = 10.0, open_s: float = 30.0,
        wants_all: bool = False,
    ) -> None:  # fmt: skip
        self.name = name
        self.counts = OutputCounts()
        self._open_sink = open_sink
        self._clock = clock
        self._chance = chance
        self._report = report
        self._backoff = backoff or Backoff()
        self._stall_s, self._open_s = stall_s, open_s
        self._wants_all = wants_all

    async def run(self, program: Program, queue: GroupQueue) -> None:
        """Until the program ends. `queue` is where it puts what goes out."""
        header = await program.begun()
        if header is None:
            return
        failures = 0
        while not queue.ended:
            began = self._clock.now()
            try:
                await self._connection(header, queue)
            except SinkFailed as error:
                self.counts.failures += 1
                self.counts.dropped = queue.dropped
                if queue.closing:  # nobody waits for a receiver once the program is over
                    self._report(f"{self.name}: {error}")
                    return
                failures = 1 if self._clock.now() - began >= self._backoff.steady_s else failures + 1
                delay_s = self._backoff.delay(failures, self._chance())
                self._report(f"{self.name}: {error}; tried again in {delay_s:.1f} s")
                await self._waited(queue, delay_s)

    async def _connection(self, header: Header, queue: GroupQueue) -> None:
        """From an opening to the end of the program. Raises SinkFailed."""
        sink: Sink | None = None
        try:
            sink = await self._within(self._open(header), self._open_s, "did not answer")
            self.counts.connections += 1
            self._report(f"{self.name}: connected")
            if not self._wants_all:
                queue.skip()
            while (group := await queue.get()) is not None:
                await self._within(sink.send(group), self._stall_s, "took nothing")
                self.counts.frames += len(group.units)
                self.counts.dropped = queue.dropped
            await self._within(sink.close(), self._stall_s, "did not end")
        finally:
            if sink is not None:
                await sink.abort()

    async def _open(self, header: Header) -> Sink:
        return await self._open_sink(header)

    async def _within(self, work: Coroutine[Any, Any, T], seconds: float, otherwise: str) -> T:
        """Raises SinkFailed: it took longer than so many `seconds`."""
        task = asyncio.create_task(work)
        alarm = asyncio.create_task(self._sleep(seconds))
        try:
            await asyncio.wait({task, alarm}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise SinkFailed(f"{otherwise} for {seconds:g} s")
            return task.result()
        finally:
            await cancel_and_wait(task, alarm)

    async def _waited(self, queue: GroupQueue, seconds: float) -> None:
        """Before another try, or until the program is over."""
        sleeping, ending = asyncio.create_task(self._sleep(seconds)), asyncio.create_task(queue.closed())
        try:
            await asyncio.wait({sleeping, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(sleeping, ending)

    async def _sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)


async def run_outputs(program: Program, outputs: list[Output]) -> None:
    """All of them beside each other, with everything that goes out once this has begun to run.

    An output that fails in a way that nobody foresaw is reported, and ends alone.
    """

    async def guarded(output: Output, queue: GroupQueue) -> None:
        try:
            await output.run(program, queue)
        except Exception:
            log.exception("the output %s has failed", output.name)

    with ExitStack() as stack:
        queues = [stack.enter_context(program.receiving()) for _ in outputs]
        tasks = [asyncio.create_task(guarded(output, queue)) for output, queue in zip(outputs, queues, strict=True)]
        try:
            if tasks:
                await asyncio.wait(tasks)
        finally:
            await cancel_and_wait(*tasks)
