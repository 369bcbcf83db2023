"""The denoise engine: sessions at mixed timesteps share each forward. One thread owns it; it starts none.

    open     rebuild a session's cache from its suffix, or start empty
    step     schedule → forward → update
    close    free the slot

The forwards are a `Sampler`'s, of whatever family. On the CPU frames do not depend on who else is in the batch, bit for bit; on other
devices as far as the runtime says so.

Nor does what goes wrong. A forward that raises is run again for each of its rows alone, from where they stood before it; a session that
fails alone, or whose chunk is not finite, ends, and the others go on with the frames they would have had. Whether it is the session or the
device, a `Probe` tells: from a device that is broken, the error goes to the engine's owner.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import numpy as np
import torch

from model_core.buckets import bucket_for
from model_core.config import EngineConfig, ModelConfig
from model_core.engine.session import EngineSession, SourceQueue
from model_core.engine.slots import Slots
from model_core.engine.step_scheduler import StepCosts, schedule
from model_core.errors import DeviceBroken
from model_core.events import Forward, Observer
from model_core.families.interface import Leg, RestylingSampler, Sampler
from model_core.probe import Probe
from model_core.statistics import ForwardProfile
from model_core.types import Guidance, LatentChunk, Latents, SessionContext

_WARM_RUNS = 5  # other processes of the machine start at the same time
_NEW_EVIDENCE = 0.1  # weight of the newest step in a bucket's time
_UNEXPLAINED = 3  # shared forwards in a row that raised although each of their rows can be run alone

Emit = Callable[[EngineSession, LatentChunk], None]
Fail = Callable[[EngineSession, Exception], None]
Shared = Callable[[Sequence[Leg]], None]
Work = Literal["step", "commit"]


def _raise(_: EngineSession, error: Exception) -> None:
    raise error


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """Sessions open, slots free, and since the start: steps, rows in them, chunks made, seconds in forwards.

    `expected_s` is what those forwards would have taken by `profile`, which `warm_up` measured.
    """

    sessions: int
    free_slots: int
    steps: int
    rows: int
    chunks: int
    busy_s: float
    expected_s: float
    profile: ForwardProfile


class Engine:
    """See the module's docstring."""

    def __init__(self, sampler: Sampler, config: ModelConfig, engine: EngineConfig, clock: Callable[[], float] = time.perf_counter) -> None:
        self.config, self.engine = config, engine
        self._sampler = sampler
        self._restyler = sampler if isinstance(sampler, RestylingSampler) else None
        self._clock = clock
        self._slots = Slots(engine.slots)
        self._sessions: dict[int, EngineSession] = {}
        self._step_s = dict.fromkeys(engine.batch_buckets, 0.0)
        self._commit_s = dict.fromkeys(engine.batch_buckets, 0.0)
        self._turns = self._steps = self._rows = self._chunks = 0
        self._busy_s = self._expected_s = 0.0
        self._profile = ForwardProfile()
        self._probe = Probe(self._known_chunk)
        self.numerics = ""  # see `Numerics`; known once the device is warm
        self._unexplained: dict[Work, int] = {"step": 0, "commit": 0}
        self.observer: Observer | None = None

    def step(self, emit: Emit, fail: Fail = _raise) -> bool:
        """One forward for as many ready sessions as fit the largest bucket; `emit` gets each chunk that it finishes.

        A session that cannot go on is closed, and `fail` is told why.

        Returns:
            False if no session was ready, and nothing was done.

        Raises:
            DeviceBroken: the device is at fault.
        """
        self._begin_fed(fail)
        views = [session.view(self._sampler.group(session.leg)) for session in self._sessions.values() if not session.finished]
        slots = schedule(views, self.costs(), self.engine.max_lead_chunks, self.engine.comfort_s, self._clock())
        if not slots:
            return False
        rows = [self._sessions[slot] for slot in slots]

        done = []
        for row in self._together("step", self._sampler.step, rows, fail):
            self._turns += 1
            row.step_index, row.last_turn = row.step_index + 1, self._turns
            row.steps_at.append(self._clock())
            if row.step_index == row.forwards and self._finish_chunk(row, emit, fail):
                done.append(row)
        self._commit([row for row in done if not row.finished], fail)
        return True

    def open(self, context: SessionContext, waiting_since: float | None = None, source: SourceQueue | None = None) -> EngineSession:
        """Take a slot and rebuild the cache from `context.suffix`; ask `free_slots` first. `source`: of a session that restyles one.

        Its deadlines and its first chunk's queue time count from `waiting_since`, and what is done here belongs to its service time.

        Raises:
            DeviceBroken: the device is at fault; what the session is at fault for is raised as it is.
        """
        asked = self._clock()
        since = asked if waiting_since is None else waiting_since
        with torch.inference_mode():
            slot = self._slots.acquire()
            try:
                end = context.end_chunk(self.config.grid)
                session = EngineSession(
                    context, slot, self._sampler.open(context), self.config.forwards(context.num_steps), end,
                    opened_at=since, chunk_s=self.config.chunk_seconds, patience_s=self.engine.job_patience_s, source=source,
                )  # fmt: skip
                session.start_chunk(context.next_chunk, since)
                session.charge(self._clock() - asked, 1)
                self._begin(session)
            except BaseException as error:
                self._slots.release(slot)
                if isinstance(error, Exception):
                    self._probe.check(error)
                raise
        self._sessions[slot] = session
        return session

    def taken(self, session: EngineSession) -> None:
        """The reader took one finished chunk; a session that was held back by it may go on."""
        session.taken(self.engine.max_lead_chunks, self._clock())

    def close(self, session: EngineSession) -> None:
        """Free the session's slot; closing twice is harmless."""
        if self._sessions.get(session.slot) is session:
            del self._sessions[session.slot]
            self._slots.release(session.slot)

    def warm_up(self) -> None:
        """Run every graph in each of its shapes, so that no request pays for the first time, and measure what each takes at best.

        It is measured on a chunk with as much before it as there can be, and one after it.
        """
        with torch.inference_mode():
            self._sampler.warm()
        config = self.config
        past = min(config.context_chunks, max(0, config.grid.chunks - 2)) if config.grid.chunks else config.context_chunks
        suffix = tuple(np.zeros(config.latent_shape(chunk), np.float32) for chunk in range(past))
        blank = self._sampler.blank()
        for scale in dict.fromkeys((1.0, config.guidance)):  # the default is measured, and nobody else waits for the first time either
            guidance = Guidance(scale, blank if scale > 1 else None)
            session = self.open(SessionContext("warm-up", 0, config.num_steps, blank, next_chunk=past, suffix=suffix, guidance=guidance))
            try:
                with torch.inference_mode():
                    for bucket in self.engine.batch_buckets:
                        self._step_and_commit(session, bucket)
                        measured = [self._step_and_commit(session, bucket) for _ in range(_WARM_RUNS if scale == config.guidance else 0)]
                        if measured:
                            self._step_s[bucket], self._commit_s[bucket] = (min(times) for times in zip(*measured, strict=True))
            finally:
                self.close(session)
        self._probe.learn()
        self.numerics = self._probe.numerics
        self._profile = ForwardProfile(self.engine.batch_buckets, tuple(self._step_s.values()), tuple(self._commit_s.values()))

    def costs(self) -> StepCosts:
        """What a step takes in each bucket: measured in `warm_up`, then followed as it changes. A larger bucket never counts as faster."""
        times = accumulate((self._step_s[bucket] for bucket in self.engine.batch_buckets), max)
        return StepCosts(self.engine.batch_buckets, tuple(times))

    @property
    def free_slots(self) -> int:
        return self._slots.free

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(
            len(self._sessions), self._slots.free, self._steps, self._rows, self._chunks, self._busy_s, self._expected_s, self._profile
        )

    def check_integrity(self) -> None:
        """Every slot is free or held by exactly one open session.

        Raises:
            RuntimeError: one was lost.
        """
        self._slots.check_integrity()
        if self._slots.in_use != len(self._sessions):
            raise RuntimeError(f"{self._slots.in_use} slots in use for {len(self._sessions)} sessions")

    def _known_chunk(self) -> Latents:
        """A chunk after its first step, of a session made up for the probe."""
        with torch.inference_mode():
            leg = self._sampler.open(SessionContext("probe", 0, self.config.num_steps, self._sampler.blank()))
            self._sampler.start(leg, 0)
            self._sampler.step([leg])
            made = self._sampler.latents(leg)
            if self.config.grid.chunks != 1:  # as in `_step_and_commit`
                self._sampler.commit([leg])
        return made

    def _step_and_commit(self, session: EngineSession, rows: int) -> tuple[float, float]:
        """Seconds of both, for a chunk in its first step."""
        self._sampler.start(session.leg, session.chunk_index)
        started = self._clock()
        self._sampler.step([session.leg] * rows)
        stepped = self._clock()
        if self.config.grid.chunks != 1:  # a session of one chunk has nothing to remember, and a family no graph for it
            self._sampler.commit([session.leg] * rows)
        return stepped - started, self._clock() - stepped

    def _begin(self, session: EngineSession) -> None:
        """Begin its current chunk, if what that begins as is here."""
        if session.source is None:
            self._sampler.start(session.leg, session.chunk_index)
        elif self._restyler is None or not session.fed:
            return
        else:
            latents = session.source.chunks.pop(session.chunk_index)
            skipped = self._restyler.start_from(session.leg, session.chunk_index, latents, session.source.strength)
            session.forwards = self.config.forwards(session.context.num_steps) - skipped
        session.begun = True

    def _begin_fed(self, fail: Fail) -> None:
        """Begin the chunks whose source has come meanwhile."""
        now = self._clock()
        for row in [session for session in self._sessions.values() if session.fed]:
            try:
                with torch.inference_mode():
                    self._begin(row)
            except Exception as error:  # noqa: BLE001 - as in `_finish_chunk`
                self._broke({row: error}, error, fail)
            else:
                row.waited_for_source(now)

    def _finish_chunk(self, row: EngineSession, emit: Emit, fail: Fail) -> bool:
        """Hand out the chunk of a row, if it may be shown. Returns whether it was."""
        now = self._clock()
        try:
            latents = self._sampler.latents(row.leg)
            if not np.isfinite(latents).all():
                raise FloatingPointError(f"chunk {row.chunk_index} is not finite")
        except Exception as error:  # noqa: BLE001 - whatever a family's code raises for one leg ends that leg
            self._broke({row: error}, error, fail)
            return False
        row.waiting_chunks += 1
        self._chunks += 1
        emit(row, LatentChunk(row.chunk_index, latents, (row.timing(now),), self.numerics))
        row.chunk_index += 1
        return True

    def _commit(self, rows: Sequence[EngineSession], fail: Fail) -> None:
        """Write the finished chunks of `rows` into their caches and start their next ones."""
        if not rows:
            return
        started = self._clock()
        for row in self._together("commit", self._sampler.commit, rows, fail):
            try:
                row.start_chunk(row.chunk_index, started)
                with torch.inference_mode():
                    self._begin(row)
            except Exception as error:  # noqa: BLE001 - as in `_finish_chunk`
                self._broke({row: error}, error, fail)

    def _together(self, work: Work, shared: Shared, rows: Sequence[EngineSession], fail: Fail) -> list[EngineSession]:
        """Run `shared` for all rows at once; if it raises, for each row alone. Returns the rows for which it was done."""
        started = self._clock()
        broken: dict[EngineSession, Exception] = {}
        with torch.inference_mode():
            try:
                shared([row.leg for row in rows])
            except Exception as error:  # noqa: BLE001 - whatever a device or a family's code raises
                broken = self._alone(work, shared, rows, error)
                self._broke(broken, error, fail)
            else:
                self._unexplained[work] = 0 if len(rows) > 1 else self._unexplained[work]
                self._account(work, rows, self._clock() - started, started)
        return [row for row in rows if row not in broken]

    def _alone(self, work: Work, shared: Shared, rows: Sequence[EngineSession], error: Exception) -> dict[EngineSession, Exception]:
        """Run what raised `error` for all of `rows` again, for each row alone. Returns those for which it raises again, with the error.

        Raises:
            DeviceBroken: it raises for none, again and again.
        """
        if len(rows) == 1:
            return {rows[0]: error}
        broken: dict[EngineSession, Exception] = {}
        for row in rows:
            try:
                shared([row.leg])
            except Exception as own:  # noqa: BLE001 - as in `_together`
                broken[row] = own
        self._unexplained[work] = 0 if broken else self._unexplained[work] + 1
        if self._unexplained[work] >= _UNEXPLAINED:
            raise DeviceBroken(f"{_UNEXPLAINED} forwards in a row failed for several sessions at once and for none alone") from error
        return broken

    def _broke(self, broken: Mapping[EngineSession, Exception], error: Exception, fail: Fail) -> None:
        """Close the sessions that are at fault, unless it is the device; `error` is what was raised first."""
        if broken:
            self._probe.check(error)
        for row, own in broken.items():
            self.close(row)
            fail(row, own)

    def _account(self, work: Work, rows: Sequence[EngineSession], seconds: float, started: float) -> None:
        """Rows are as they were when the forward `started`."""
        table, profile = (self._step_s, self._profile.step_s) if work == "step" else (self._commit_s, self._profile.commit_s)
        bucket = bucket_for(len(rows), self.engine.batch_buckets)
        if self.observer is not None:
            begun = [row for row in rows if row.step_index == 0 and row.context.due_s is not None] if work == "step" else []
            slack_s = tuple(row.due - started - row.forwards * self._step_s[self.engine.batch_buckets[0]] for row in begun)
            self.observer(Forward(work, bucket, len(rows), seconds, slack_s))
        self._expected_s += profile[self.engine.batch_buckets.index(bucket)] if profile else seconds
        table[bucket] += _NEW_EVIDENCE * (seconds - table[bucket]) if table[bucket] else seconds
        self._steps += 1
        self._rows += len(rows)
        self._busy_s += seconds
        for row in rows:
            row.charge(seconds, len(rows))
