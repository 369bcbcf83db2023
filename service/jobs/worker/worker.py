"""Works on jobs in this front door, while admission has slots that nobody else needs.

It claims jobs from the table and runs an attempt for each. Beside the attempt it says all the time that it is alive, and learns so of
cancels. A job whose worker dies is claimed by another one when its lease ends; `service.jobs.worker.attempt` says where that one goes on.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from pathlib import Path

from model_core.errors import InvalidRequest, StageUnavailable
from model_core.tasks import cancel_and_wait, unless
from service.clock import Clock
from service.jobs.files.artifacts import ArtifactFiles
from service.jobs.files.destinations import DestinationRefused
from service.jobs.job import Job, JobError
from service.jobs.work import Also, ClaimedJob, Finished, LeaseLost
from service.jobs.worker.attempt import HandedBack, JobAttempt, WorkPolicy
from service.jobs.worker.queue import JobQueue
from service.sessions.file import room_for_files

_COMPLAIN_EVERY_S = 30.0
_LAST_WORD_S = 2.0  # what the table may take to hear of a job that is given back as the server stops

log = logging.getLogger(__name__)

Bill = Callable[[ClaimedJob, Finished], Also]
"""What writes a completed job into the ledger."""


class _Told(Enum):
    """What a beat may answer."""

    CANCELLED = auto()
    LOST = auto()


@dataclass(slots=True)
class _Held:
    """A job that this worker has.

    Attributes:
        look: something was asked of it.
        settling: its end is being written. What a beat says then may be about that very end.
    """

    attempt: JobAttempt
    look: asyncio.Event = field(default_factory=asyncio.Event)
    settling: bool = False
    task: asyncio.Task[None] | None = None


class JobWorker:
    """One front door's.

    Args:
        name: for people who look into the table.
        queue: the table.
        has_room: whether admission has a slot for one more job, beside so many that are not in a slot yet.
        attempt: makes an attempt of a claim.
        files: of jobs; what is left of a job that is over is removed.
        bill: see there.
        policy: how long everything takes.
        clock: time.
        now: Unix time.
        begun: told of each job that is claimed.
    """

    def __init__(
        self,
        name: str,
        queue: JobQueue,
        has_room: Callable[[int], bool],
        attempt: Callable[[ClaimedJob], JobAttempt],
        files: ArtifactFiles,
        bill: Bill,
        policy: WorkPolicy,
        clock: Clock,
        now: Callable[[], float],
        begun: Callable[[Job], None] = lambda _: None,
    ) -> None:
        self._name = name
        self._queue = queue
        self._has_room = has_room
        self._attempt = attempt
        self._files = files
        self._bill = bill
        self._policy = policy
        self._clock = clock
        self._now = now
        self._begun = begun
        self._held: dict[str, _Held] = {}
        self._woken = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._draining = False
        self._complained_at: float | None = None

    @property
    def working(self) -> int:
        """Jobs that it has."""
        return len(self._held)

    def wake(self) -> None:
        """There may be a job in the queue."""
        self._woken.set()

    def look_at(self, job_id: str) -> None:
        """Something was asked of this job, such as its end. It may be another worker's."""
        if (held := self._held.get(job_id)) is not None:
            held.look.set()

    async def run(self) -> None:
        """Claim and work, until `drain`."""
        while not self._draining:
            self._woken.clear()
            if not await self._claim():
                await unless(self._woken, self._clock.sleep(self._policy.look_s))

    async def _claim(self) -> bool:
        """Begin jobs that there is room for. Returns whether there were any."""
        async with self._claiming:
            try:
                room = 0 if self._draining else self._room()
                claimed = await self._queue.claim(self._name, self._now(), self._policy.lease_s, room) if room else []
            except StageUnavailable as error:
                self._complain(error)
                return False
            except Exception:
                log.exception("jobs cannot be claimed")  # and yet the server must not stop to try
                return False
            for each in claimed:
                self._begin(each)
            return bool(claimed)

    async def drain(self, grace_s: float) -> None:
        """Claim no more, and give back what it has, with a checkpoint; after `grace_s` without one."""
        self._draining = True
        self._woken.set()
        for held in self._held.values():
            held.attempt.hand_back()
        async with self._claiming:  # what is being claimed has begun by then
            tasks = {held.task for held in self._held.values() if held.task is not None}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace_s)
            await cancel_and_wait(*late)

    def _room(self) -> int:
        """How many jobs more may be claimed: those that have no slot yet will take theirs first."""
        to_come = sum(held.attempt.wants_slot for held in self._held.values())
        room = 0
        while len(self._held) + room < self._policy.most_jobs and self._has_room(to_come + room):
            room += 1
        return room

    def _begin(self, claimed: ClaimedJob) -> None:
        self._begun(claimed.job)
        held = self._held[claimed.job.id] = _Held(self._attempt(claimed))
        if self._draining:
            held.attempt.hand_back()
        held.task = asyncio.create_task(self._serve(held))

    async def _serve(self, held: _Held) -> None:
        claimed = held.attempt.claimed
        try:
            with room_for_files(), tempfile.TemporaryDirectory(prefix="headrace-job-") as folder:
                await self._work_on(held, Path(folder))
        except asyncio.CancelledError:
            await self._last_word(claimed)
            raise
        except StageUnavailable as error:
            self._complain(error)
            await self._last_word(claimed)
        except Exception:
            log.exception("job %s: its worker failed; another one begins it again when the lease ends", claimed.job.id)
        finally:
            if self._held.get(claimed.job.id) is held:
                del self._held[claimed.job.id]
            self._woken.set()

    async def _last_word(self, claimed: ClaimedJob) -> None:
        """Give the job back, if the table answers soon; else its lease ends by itself."""
        with suppress(StageUnavailable, LeaseLost, TimeoutError):
            async with asyncio.timeout(_LAST_WORD_S):
                await self._queue.release(claimed.job.id, claimed.fence, 0.0 if self._draining else self._policy.give_back_s)

    async def _work_on(self, held: _Held, folder: Path) -> None:
        """Until the job is over, or is another worker's."""
        claimed = held.attempt.claimed
        job_id, fence = claimed.job.id, claimed.fence
        log.info("job %s: attempt %d begins", job_id, claimed.job.attempts)
        work = asyncio.create_task(self._make(held, folder))
        beats = asyncio.create_task(self._beat(held))
        try:
            await asyncio.wait({work, beats}, return_when=asyncio.FIRST_COMPLETED)
            if held.settling:
                await asyncio.wait({work})
        finally:
            await cancel_and_wait(work, beats)
        if not work.cancelled():
            work.result()
            return
        if beats.result() is _Told.CANCELLED:
            try:
                await self._surely(partial(self._queue.cancelled, job_id, fence), self._policy.tries)
            except LeaseLost:
                pass  # it was over before the cancel came
            else:
                log.info("job %s: cancelled at frame %d", job_id, held.attempt.frames_done)
                await self._clean(partial(self._files.remove, job_id))
                return
        log.info("job %s: lost at frame %d", job_id, held.attempt.frames_done)
        await held.attempt.discard()

    async def _make(self, held: _Held, folder: Path) -> None:
        """The attempt and its end, told to the table. It is cancelled from outside where the job is lost or to be cancelled before that."""
        attempt, claimed, queue = held.attempt, held.attempt.claimed, self._queue
        job_id, fence = claimed.job.id, claimed.fence
        try:
            try:
                finished = await attempt.run(folder)
            except HandedBack as error:
                held.settling = True
                log.info("job %s: given back at frame %d: %s", job_id, attempt.frames_done, error)
                await self._surely(partial(queue.release, job_id, fence, 0.0 if self._draining else self._policy.give_back_s))
            except LeaseLost:
                raise
            except Exception as error:
                held.settling = True
                problem = job_error(error, job_id)
                if problem.code == "internal":
                    log.exception("job %s failed at frame %d", job_id, attempt.frames_done)
                await self._surely(partial(queue.fail, job_id, fence, problem))
                log.info("job %s: failed: %s", job_id, problem.code)
                await self._clean(partial(self._files.remove, job_id))
            else:
                held.settling = True
                await self._surely(partial(queue.complete, job_id, fence, finished, self._bill(claimed, finished)))
                log.info("job %s: completed, %d bytes", job_id, finished.size_bytes)
                await self._clean(partial(self._files.keep_only, job_id, finished.sha256))
        except LeaseLost:
            log.info("job %s: lost at frame %d", job_id, attempt.frames_done)
            await attempt.discard()

    async def _beat(self, held: _Held) -> _Told:
        """Say that the worker is alive, until the table says something against it; while the end is being written, that does not count."""
        claimed, policy = held.attempt.claimed, self._policy
        heard = self._clock.now()
        while True:
            await unless(held.look, self._clock.sleep(policy.beat_s))
            held.look.clear()
            try:
                beat = await self._queue.beat(claimed.job.id, claimed.fence, policy.lease_s, held.attempt.frames_done)
            except StageUnavailable as error:
                self._complain(error)
                if self._clock.now() - heard >= policy.lease_s:
                    return _Told.LOST  # most likely somebody else has it, or soon will
                continue
            heard = self._clock.now()
            if beat.lost:
                return _Told.LOST
            if beat.cancelling:
                return _Told.CANCELLED

    async def _surely(self, write: Callable[[], Awaitable[None]], tries: int | None = None) -> None:
        """Write to the table, again and again while it does not answer; without `tries` until it does, or the worker stops.

        Raises:
            LeaseLost: from `write`.
            StageUnavailable: so many tries were in vain.
        """
        tried = 0
        while True:
            try:
                await write()
            except StageUnavailable as error:
                self._complain(error)
                tried += 1
                if tries is not None and tried >= tries:
                    raise
                await self._clock.sleep(self._policy.beat_s)
            else:
                return

    async def _clean(self, remove: Callable[[], Awaitable[None]]) -> None:
        """What stays is found by the sweep."""
        try:
            await remove()
        except StageUnavailable as error:
            self._complain(error)

    def _complain(self, error: StageUnavailable) -> None:
        now = self._clock.now()
        if self._complained_at is None or now - self._complained_at >= _COMPLAIN_EVERY_S:
            self._complained_at = now
            log.warning("jobs: %s", error)


def job_error(error: Exception, job_id: str) -> JobError:
    """What the caller learns of `error`, which ended a job. Of a defect it learns the job's id alone."""
    match error:
        case InvalidRequest():
            return JobError("invalid", str(error), error.violations)
        case DestinationRefused():
            return JobError("destination", str(error))
        case StageUnavailable():
            return JobError("unavailable", str(error))
        case _:
            return JobError("internal", f"internal error; job {job_id}")
