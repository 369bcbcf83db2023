"""The denoise engine: sessions at mixed timesteps share each forward. One thread owns it; it starts none.

    open     rebuild a session's cache from its suffix, or start empty
    step     schedule → forward → update
    close    free the slot

Frames never depend on who else is in the batch: rows do not mix, and the graphs round a row the same way in every bucket
(a test asserts it on the machine it runs on).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from model_core.config import EngineConfig, MillraceConfig
from model_core.diffusion.flow_match import euler_step
from model_core.engine.batch import StepBatch, step_batch
from model_core.engine.kv_cache import KVCache
from model_core.engine.session import EngineSession, prepare
from model_core.engine.step_scheduler import StepCosts, bucket_for, schedule
from model_core.nn.causal_dit import CausalDiT, KeyValue
from model_core.types import LatentChunk, SessionContext, TextEmbedding

_WARM_RUNS = 5  # other processes of the machine start at the same time
_NEW_EVIDENCE = 0.1  # weight of the newest step in a bucket's time

Emit = Callable[[EngineSession, LatentChunk], None]


@dataclass(frozen=True, slots=True)
class ForwardProfile:
    """Seconds of a denoise step and of a commit in each of `buckets`, measured once; all empty before that."""

    buckets: tuple[int, ...] = ()
    step_s: tuple[float, ...] = ()
    commit_s: tuple[float, ...] = ()


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

    def __init__(self, model: CausalDiT, config: MillraceConfig, engine: EngineConfig, clock: Callable[[], float] = time.perf_counter) -> None:
        self.config, self.engine = config, engine
        self._model = model
        self._clock = clock
        self._cache = KVCache(config.dit, engine.slots)
        self._sessions: dict[int, EngineSession] = {}
        self._step_s = dict.fromkeys(engine.batch_buckets, 0.0)
        self._commit_s = dict.fromkeys(engine.batch_buckets, 0.0)
        self._turns = self._steps = self._rows = self._chunks = 0
        self._busy_s = self._expected_s = 0.0
        self._profile = ForwardProfile()

    def step(self, emit: Emit) -> bool:
        """One forward for as many ready sessions as fit the largest bucket; `emit` gets each chunk that it finishes.

        Returns:
            False if no session was ready, and nothing was done.
        """
        views = [session.view() for session in self._sessions.values()]
        slots = schedule(views, self.costs(), self.engine.max_lead_chunks, self.engine.comfort_s, self._clock())
        if not slots:
            return False
        rows = [self._sessions[slot] for slot in slots]

        started = self._clock()
        with torch.inference_mode():
            x_next = self._forward(step_batch(rows, self._cache, self.engine.batch_buckets))
        self._account(rows, self._step_s, self._profile.step_s, self._clock() - started)

        done = []
        for row, x in zip(rows, x_next.split(1), strict=False):
            self._turns += 1
            row.x_t, row.step_index, row.last_turn = x, row.step_index + 1, self._turns
            if row.step_index == row.context.num_steps:
                self._finish_chunk(row, emit)
                done.append(row)
        self._commit([row for row in done if not row.finished])
        return True

    def open(self, context: SessionContext) -> EngineSession:
        """Take a slot and rebuild the cache from `context.suffix`; ask `free_slots` first."""
        asked = self._clock()
        with torch.inference_mode():
            conditioning = prepare(self._model, self.config, context)
            slot = self._cache.acquire()
            try:
                for chunk in self._run_commit([torch.tensor(latents)[None] for latents in context.suffix]):
                    self._cache.append(slot, chunk)
                end = context.end_chunk(self.config.grid)
                session = EngineSession(
                    context, slot, conditioning, end, self._latent_shape(),
                    opened_at=asked, chunk_s=self.config.chunk_seconds, patience_s=self.engine.job_patience_s,
                )  # fmt: skip
                session.start_chunk(context.next_chunk, self._clock())
            except BaseException:
                self._cache.release(slot)
                raise
        self._sessions[slot] = session
        return session

    def taken(self, session: EngineSession) -> None:
        """The reader took one finished chunk; a session that was held back by it may go on."""
        if session.waiting_chunks == self.engine.max_lead_chunks and session.step_index == 0:
            session.ready_since = self._clock()
        session.waiting_chunks -= 1

    def close(self, session: EngineSession) -> None:
        """Free the session's slot; closing twice is harmless."""
        if self._sessions.get(session.slot) is session:
            del self._sessions[session.slot]
            self._cache.release(session.slot)

    def warm_up(self) -> None:
        """Run every graph in each of its shapes, so that no request pays for the first time, and measure what each takes at best."""
        g, text = self.config.dit, self.config.text
        blank = TextEmbedding("", np.zeros((text.max_tokens, g.text_width), np.float32), np.ones(text.max_tokens, np.bool_))
        session = self.open(SessionContext("warm-up", seed=0, num_steps=1, embedding=blank))
        try:
            with torch.inference_mode():
                for bucket in self.engine.batch_buckets:
                    rows = [session] * bucket
                    self._forward(step_batch(rows, self._cache, self.engine.batch_buckets))
                    self._run_commit([row.x_t for row in rows])
                    measured = []
                    for _ in range(_WARM_RUNS):
                        started = self._clock()
                        self._forward(step_batch(rows, self._cache, self.engine.batch_buckets))
                        stepped = self._clock()
                        self._run_commit([row.x_t for row in rows])
                        measured.append((stepped - started, self._clock() - stepped))
                    self._step_s[bucket], self._commit_s[bucket] = (min(times) for times in zip(*measured, strict=True))
        finally:
            self.close(session)
        self._profile = ForwardProfile(self.engine.batch_buckets, tuple(self._step_s.values()), tuple(self._commit_s.values()))

    def costs(self) -> StepCosts:
        """What a step takes in each bucket: measured in `warm_up`, then followed as it changes. A larger bucket never counts as faster."""
        times = accumulate((self._step_s[bucket] for bucket in self.engine.batch_buckets), max)
        return StepCosts(self.engine.batch_buckets, tuple(times))

    @property
    def free_slots(self) -> int:
        return self._cache.free

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(
            len(self._sessions), self._cache.free, self._steps, self._rows, self._chunks, self._busy_s, self._expected_s, self._profile
        )

    def check_integrity(self) -> None:
        """Every slot is free or held by exactly one open session.

        Raises:
            RuntimeError: one was lost.
        """
        self._cache.check_integrity()
        if self._cache.in_use != len(self._sessions):
            raise RuntimeError(f"{self._cache.in_use} slots in use for {len(self._sessions)} sessions")

    def _forward(self, batch: StepBatch) -> Tensor:
        x0 = self._model.denoise(batch.x_t, batch.step, batch.text, batch.cache, batch.cache_mask)
        return euler_step(batch.x_t, x0, batch.t, batch.t_next)

    def _finish_chunk(self, row: EngineSession, emit: Emit) -> None:
        now = self._clock()
        row.waiting_chunks += 1
        self._chunks += 1
        emit(row, LatentChunk(row.chunk_index, row.x_t[0].numpy().copy(), (row.timing(now),)))
        row.chunk_index += 1

    def _commit(self, rows: Sequence[EngineSession]) -> None:
        """Write the finished chunks of `rows` into their caches and start their next ones."""
        if not rows:
            return
        started = self._clock()
        with torch.inference_mode():
            chunks = self._run_commit([row.x_t for row in rows])
            for row, chunk in zip(rows, chunks, strict=True):
                self._cache.append(row.slot, chunk)
                row.start_chunk(row.chunk_index, started)
        self._account(rows, self._commit_s, self._profile.commit_s, self._clock() - started)

    def _run_commit(self, latents: Sequence[Tensor]) -> list[list[KeyValue]]:
        """The commit graph on chunks `[1, C, F, H, W]`, padded to a bucket; for each chunk its keys and values a layer."""
        if not latents:
            return []
        largest = self.engine.batch_buckets[-1]
        out: list[list[KeyValue]] = []
        for start in range(0, len(latents), largest):
            part = latents[start : start + largest]
            filled = [*part, *[part[0]] * (bucket_for(len(part), self.engine.batch_buckets) - len(part))]
            layers = self._model.commit(torch.cat(filled))
            # Cloned, so that a slot does not keep the whole batch's memory alive.
            out += [[KeyValue(k[i : i + 1].clone(), v[i : i + 1].clone()) for k, v in layers] for i in range(len(part))]
        return out

    def _account(self, rows: Sequence[EngineSession], table: dict[int, float], profile: tuple[float, ...], seconds: float) -> None:
        bucket = bucket_for(len(rows), self.engine.batch_buckets)
        self._expected_s += profile[self.engine.batch_buckets.index(bucket)] if profile else seconds
        table[bucket] += _NEW_EVIDENCE * (seconds - table[bucket]) if table[bucket] else seconds
        self._steps += 1
        self._rows += len(rows)
        self._busy_s += seconds
        for row in rows:
            row.charge(seconds, len(rows))

    def _latent_shape(self) -> tuple[int, ...]:
        g = self.config.dit
        return (g.latent_channels, g.latent_frames, g.latent_height, g.latent_width)
