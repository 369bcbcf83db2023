"""One worker's work on one job: from its checkpoint, or its beginning, to the finished files.

What is lost with a worker is at most what it made since the last checkpoint. The next one makes the same frames again, and the same bytes.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from model_core.config import ModelConfig
from model_core.errors import CapacityExceeded, HeadraceError, InvalidRequest, StageUnavailable
from model_core.file_parts import Placement
from model_core.quality.values import Quality
from model_core.session_log import SessionRecord
from model_core.tasks import cancel_and_wait, run_in_thread, unless
from model_core.types import Codec, FrameChunk
from service.call import Call
from service.clock import Clock
from service.events import Usage
from service.intake import Intake
from service.jobs.files.artifacts import ArtifactMissing, Artifacts, result_key, working_key
from service.jobs.files.destinations import DestinationRefused, Destinations
from service.jobs.files.presentation import placement
from service.jobs.files.render import RenderedFile, Rendering
from service.jobs.job import Variant
from service.jobs.work import Checkpoint, ClaimedJob, Finished
from service.jobs.worker.checkpoint import Point
from service.jobs.worker.quality import JobQuality
from service.jobs.worker.queue import JobQueue
from service.jobs.worker.variants import spritesheet, thumbnail
from service.orders import Order
from service.records.store import SessionMismatch
from service.sessions.file import room_for_files
from service.sessions.runner import SessionRunner

T = TypeVar("T")

log = logging.getLogger(__name__)


class HandedBack(HeadraceError):
    """This worker stops, and another one is to go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkPolicy:
    """Seconds, and how often a job is tried.

    Attributes:
        lease_s: after so long without a word of its worker, a job is another one's.
        beat_s: from one word to the next; a cancel is noticed within that.
        look_s: from one look at the queue to the next.
        most_jobs: at once.
        checkpoint_s, checkpoint_bytes: what a worker may lose.
        piece_bytes: of one file of a checkpoint, which is in memory while it is written and read.
        tries: one after the other that bring nothing, after which a job fails.
        first_pause_s, longest_pause_s: between tries.
        give_back_s: how long a claimed job waits for a slot that another session took.
    """

    lease_s: float = 30.0
    beat_s: float = 0.5
    look_s: float = 1.0
    most_jobs: int = 64
    checkpoint_s: float = 5.0
    checkpoint_bytes: int = 16 * 1024 * 1024
    piece_bytes: int = 32 * 1024 * 1024
    tries: int = 8
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    give_back_s: float = 10.0


class JobAttempt:
    """One claim of a job. Nothing of it is seen before the table says that the job is completed.

    Args:
        claimed: the job.
        intake, runner: of this front door.
        artifacts: where files are kept.
        queue: where checkpoints are written.
        destinations: callers' buckets; None: there are none.
        policy: see there.
        clock: time.
        encoding: bounds how many threads encode at once, beside live sessions.
        quality: measures the finished video; None: nobody does.
    """

    def __init__(
        self,
        claimed: ClaimedJob,
        intake: Intake,
        runner: SessionRunner,
        artifacts: Artifacts,
        queue: JobQueue,
        destinations: Destinations | None,
        policy: WorkPolicy,
        clock: Clock,
        encoding: asyncio.Semaphore,
        quality: JobQuality | None = None,
    ) -> None:
        self.claimed = claimed
        self._in_slot = False  # its session runs, and admission counts it
        self._intake = intake
        self._runner = runner
        self._artifacts = artifacts
        self._queue = queue
        self._destinations = destinations
        self._policy = policy
        self._clock = clock
        self._encoding = encoding
        self._quality = quality
        self._made = False  # all frames are there
        self._call = Call(tenant=claimed.job.tenant, door=claimed.job.door)
        self._handed_back = asyncio.Event()
        self._upload: bytes | None = None
        self._record: SessionRecord | None = None  # as of `_next_frame`
        self._frames = 0  # that the job has
        self._next_frame = 0
        self._usage: Usage | None = None
        self._saved: Checkpoint | None = claimed.checkpoint
        self._saved_at = clock.now()
        self._loose: set[str] = set()  # files that no row can name

    @property
    def frames_done(self) -> int:
        return self._next_frame

    @property
    def wants_slot(self) -> bool:
        """It will ask admission for a slot, or ask again."""
        return not self._in_slot and not self._made

    def hand_back(self) -> None:
        """Stop after the chunk that is being made, with a checkpoint. A job whose frames are all there is finished first."""
        self._handed_back.set()

    async def run(self, folder: Path) -> Finished:
        """Make the job's files, in `folder` and then in the store.

        Raises:
            InvalidRequest: the request is at fault.
            DestinationRefused: the caller's bucket takes no files.
            StageUnavailable: `policy.tries` in a row brought nothing.
            HandedBack, LeaseLost: another worker has the job, or is to have it.
        """
        if self.claimed.job.model not in self._intake.catalogue.models:  # which other front doors of this database may serve
            raise HandedBack(f"model {self.claimed.job.model} is not served here")
        upload = self.claimed.upload
        if upload is not None:
            self._upload = await self._patiently(partial(self._artifacts.read, upload.key))
        order = self._order()
        frames = order.request.num_frames
        if frames is None:
            raise RuntimeError("a job must have an end")
        placed = placement(self.claimed.presentation, order.config)
        rendering = await self._patiently(partial(_in_room, partial(Rendering, folder, order.config.fps, placed)))
        self._usage = Usage.of(order.config)
        await self._restore(order, rendering)
        self._frames = frames
        await self._make(rendering)
        self._made = True
        file = await self._patiently(partial(_in_room, rendering.finish))
        quality = await self._deliver_measured(file, placed, order.config)
        return Finished(size_bytes=file.size_bytes, sha256=file.sha256, usage=self._usage, quality=quality)

    async def discard(self) -> None:
        """Remove what only this attempt knows of."""
        with suppress(StageUnavailable):
            await self._artifacts.delete(sorted(self._loose))

    def _order(self) -> Order:
        """From the beginning. An upload is let go of when it is decoded, so each try has an order of its own."""
        claimed, request = self.claimed, self.claimed.request
        if claimed.upload is not None and self._upload is not None:
            request = replace(request, footage=(claimed.upload.kind, self._upload))
        order = self._intake.order(request, claimed.doorway)
        made = replace(order.request, session_id=claimed.job.id, codec=Codec.RAW_RGB)
        return replace(order, request=made, max_lead_s=0.0, token="", holder="")

    async def _restore(self, order: Order, rendering: Rendering) -> None:
        """Go on from the checkpoint; from the beginning where it is of no use any more."""
        checkpoint = self.claimed.checkpoint
        if checkpoint is None:
            return
        try:
            data = await self._patiently(partial(self._artifacts.read, checkpoint.record))
            point = await run_in_thread(Point.from_bytes, data)
            self._intake.go_on(order, point.record, checkpoint.next_frame)
            for key in checkpoint.parts:
                parts = await self._patiently(partial(self._artifacts.read, key))
                await self._patiently(partial(_in_room, partial(rendering.restore, parts)))
        except (ArtifactMissing, InvalidRequest, SessionMismatch, ValueError) as error:
            log.warning("job %s begins anew, since its checkpoint is of no use: %s", self.claimed.job.id, error)
            rendering.clear()
            self._saved = None
            return
        self._record, self._usage, self._next_frame = point.record, point.usage, checkpoint.next_frame

    async def _make(self, rendering: Rendering) -> None:
        fruitless, waits_since = 0, math.inf
        while self._next_frame < self._frames:
            if self._handed_back.is_set():
                await self._save(rendering)
                raise HandedBack("the worker stops")
            before, pause_s = self._next_frame, 0.0
            order = self._order()
            if self._record is not None:
                order = self._intake.go_on(order, self._record, self._next_frame)
            self._in_slot = True
            try:
                await self._runner.make_job(order, self._call, partial(self._take, rendering), self._opened)
            except CapacityExceeded:
                waits_since = min(waits_since, self._clock.now())
                if self._clock.now() - waits_since >= self._policy.give_back_s:
                    raise HandedBack("there is no slot for the job here") from None
                pause_s = self._policy.look_s
            except StageUnavailable as error:
                waits_since = math.inf
                fruitless = 0 if self._next_frame > before else fruitless + 1
                if fruitless >= self._policy.tries:
                    raise
                log.warning("job %s waits at frame %d: %s", self.claimed.job.id, self._next_frame, error)
                pause_s = self._pause_s(fruitless)
            finally:
                self._in_slot = False
            if pause_s:
                await self._pause(pause_s)

    def _opened(self, text_s: float) -> None:
        """A job that goes on had its prompts embedded before, and is not billed for it again."""
        if self._record is None and self._usage is not None:
            self._usage = replace(self._usage, text_s=text_s)

    async def _take(self, rendering: Rendering, chunk: FrameChunk, record: SessionRecord) -> None:
        if chunk.first_frame != self._next_frame or self._usage is None:
            raise RuntimeError(f"got frame {chunk.first_frame}, the file needs frame {self._next_frame}")
        async with self._encoding:
            await _in_room(lambda: rendering.add(chunk.pixels(), chunk.first_frame))
        self._usage, self._record, self._next_frame = self._usage.plus(chunk), record, chunk.first_frame + chunk.num_frames
        if self._handed_back.is_set() and self._next_frame < self._frames:
            await self._save(rendering)
            raise HandedBack("the worker stops")
        due = self._clock.now() - self._saved_at >= self._policy.checkpoint_s
        if due or rendering.unsaved_bytes >= self._policy.checkpoint_bytes:
            await self._save(rendering)

    async def _save(self, rendering: Rendering) -> None:
        """Write a checkpoint, if anything is new. One that cannot be written is made up for by the next one.

        Raises:
            LeaseLost: the job is another worker's.
        """
        saved, record, usage = self._saved, self._record, self._usage
        first, end = 0 if saved is None else saved.next_frame, self._next_frame
        self._saved_at = self._clock.now()
        if record is None or usage is None or end == first:
            return
        job_id, fence = self.claimed.job.id, self.claimed.fence
        # A file of one name always has the same frames: the row may name it even where the answer to that got lost.
        # What could not be saved for long is larger than memory should hold, so it is cut, wherever that may be.
        size, piece = rendering.unsaved_bytes, self._policy.piece_bytes
        parts = {working_key(job_id, fence, f"part-{first:08d}-{end:08d}-{begin:010d}"): begin for begin in range(0, size, piece)}
        point = working_key(job_id, fence, f"point-{end:08d}")
        checkpoint = Checkpoint((*(() if saved is None else saved.parts), *parts), point, end)
        try:
            self._loose |= {*parts, point}
            for part, begin in parts.items():
                await self._artifacts.put(part, await run_in_thread(rendering.unsaved, begin, piece))
            await self._artifacts.put(point, await run_in_thread(Point(record, usage).to_bytes))
        except (StageUnavailable, OSError) as error:
            log.warning("job %s goes on without a checkpoint at frame %d: %s", job_id, end, error)
            return
        try:
            await self._queue.checkpoint(job_id, fence, checkpoint)
        except StageUnavailable as error:
            log.warning("job %s goes on without a checkpoint at frame %d: %s", job_id, end, error)
            self._loose -= {*parts, point}
            return
        self._loose -= {*parts, point}
        rendering.mark_saved(size)
        self._saved = checkpoint
        if saved is not None and saved.record != point:
            with suppress(StageUnavailable):
                await self._artifacts.delete([saved.record])

    async def _deliver_measured(self, file: RenderedFile, placed: Placement, config: ModelConfig) -> Quality | None:
        """Deliver, and measure meanwhile; a worker that stops does not wait for the numbers."""
        if self._quality is None:
            await self._deliver(file)
            return None
        measure = self._quality.of(self.claimed, file.path, placed, config)
        measuring = asyncio.create_task(unless(self._handed_back, measure))
        try:
            await self._deliver(file)
            return await measuring
        finally:
            await cancel_and_wait(measuring)

    async def _deliver(self, file: RenderedFile) -> None:
        """To the store, and to the caller's bucket."""
        job = self.claimed.job
        files: dict[Variant, bytes | Path] = {
            Variant.THUMBNAIL: await run_in_thread(thumbnail, file.path),
            Variant.SPRITESHEET: await run_in_thread(spritesheet, file.path),
            Variant.VIDEO: file.path,
        }
        for variant, data in files.items():
            await self._patiently(partial(self._artifacts.put, result_key(job.id, file.sha256, variant), data))
        if job.destination is not None:
            if self._destinations is None:
                raise DestinationRefused("this server writes into no buckets")
            await self._patiently(partial(self._destinations.deliver, job, job.destination, file))

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` comes to. It is tried again while something is away, in bounds; no slot is held meanwhile."""
        for fruitless in range(1, self._policy.tries):
            try:
                return await work()
            except StageUnavailable as error:
                if self._handed_back.is_set():
                    raise HandedBack(str(error)) from error
                log.warning("job %s waits: %s", self.claimed.job.id, error)
                await self._pause(self._pause_s(fruitless))
        return await work()

    def _pause_s(self, fruitless: int) -> float:
        return min(self._policy.longest_pause_s, self._policy.first_pause_s * 2.0**fruitless)

    async def _pause(self, seconds: float) -> None:
        """Cut short when the worker stops."""
        await unless(self._handed_back, self._clock.sleep(seconds))


async def _in_room(work: Callable[[], T]) -> T:
    """Run `work` in a thread; a full disk is StageUnavailable."""
    with room_for_files():
        return await run_in_thread(work)
