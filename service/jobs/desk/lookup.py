"""Looks jobs up for many callers that ask again and again, a few times a second for all of them together.

The first question is answered at once. Those that come within `spacing_s` after it go together into the next query. So a thousand callers
that poll cost a few dozen queries a second, none waits for longer than the spacing, and each answer is newer than its question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from model_core.errors import StageUnavailable
from model_core.tasks import cancel_and_wait
from service.clock import Clock
from service.jobs.job import Job

_MOST_AT_ONCE = 500  # ids in one query
_MOST_WAITING = 20_000  # questions


class Lookup:
    """For one event loop.

    Args:
        read: the jobs of some ids, those that there are.
        clock: for the spacing.
        spacing_s: between the beginnings of two queries.
    """

    def __init__(self, read: Callable[[Sequence[str]], Awaitable[Mapping[str, Job]]], clock: Clock, spacing_s: float = 0.05) -> None:
        self._read = read
        self._clock = clock
        self._spacing_s = spacing_s
        self._asked: dict[str, list[asyncio.Future[Job | None]]] = {}
        self._waiting = 0
        self._next = clock.now()
        self._reading: asyncio.Task[None] | None = None

    async def get(self, job_id: str) -> Job | None:
        """The job as it is after this call began; None: there is none. Raises what `read` raises, and StageUnavailable: too many ask."""
        if self._waiting >= _MOST_WAITING:
            raise StageUnavailable("too many callers ask for jobs; try again")
        answer: asyncio.Future[Job | None] = asyncio.get_running_loop().create_future()
        self._asked.setdefault(job_id, []).append(answer)
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._answer_all())
        self._waiting += 1
        try:
            return await answer
        finally:
            self._waiting -= 1

    async def aclose(self) -> None:
        """Callers that still wait are cancelled."""
        if self._reading is not None:
            await cancel_and_wait(self._reading)
        for answers in self._asked.values():
            for answer in answers:
                answer.cancel()

    async def _answer_all(self) -> None:
        while self._asked:
            if (early_s := self._next - self._clock.now()) > 0:
                await self._clock.sleep(early_s)
            self._next = self._clock.now() + self._spacing_s
            asked = {job_id: self._asked.pop(job_id) for job_id in list(self._asked)[:_MOST_AT_ONCE]}
            try:
                found = await self._read(list(asked))
            except Exception as error:  # noqa: BLE001 - it is the callers'
                for answer in _open(asked):
                    answer.set_exception(error)
            except BaseException:
                for answer in _open(asked):
                    answer.cancel()
                raise
            else:
                for job_id, answers in asked.items():
                    for answer in _open({job_id: answers}):
                        answer.set_result(found.get(job_id))


def _open(asked: Mapping[str, Sequence[asyncio.Future[Job | None]]]) -> list[asyncio.Future[Job | None]]:
    """Futures whose callers still wait."""
    return [answer for answers in asked.values() for answer in answers if not answer.done()]
