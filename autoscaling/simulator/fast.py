"""The data plane for scale: `kernel` on arrays. Its oracle is `fine`."""

from __future__ import annotations

import numpy as np

from autoscaling.simulator import kernel
from autoscaling.simulator.kernel import RING, Decoders, Engines, Floats, Ints, Sessions, Taken, Tally
from autoscaling.simulator.plane import Played, StageTimes


def _zeros(n: int) -> Ints:
    return np.zeros(n, np.int64)


def _sessions(chunks: Ints, steps: int) -> Sessions:
    n = chunks.size
    return Sessions(
        engine=np.full(n, -1), decoder=np.full(n, -1), steps=np.full(n, steps), asked=np.full(n, steps), end=chunks.astype(np.int64),
        base=_zeros(n), made=_zeros(n), taken=_zeros(n),
        sent=_zeros(n), step=_zeros(n), turn=np.full(n, -1), due=np.zeros(n), ready_at=np.zeros(n),
        origin=np.full(n, np.inf), made_at=np.zeros((n, RING)), sent_at=np.zeros((n, RING)),
    )  # fmt: skip


def _engines(n: int, slots: int) -> Engines:
    return Engines(
        rows=np.full((n, slots), -1), held=_zeros(n), key=_zeros(n), turns=_zeros(n),
        forwards=_zeros(n), free_at=np.zeros(n), owed_s=np.zeros(n), busy_s=np.zeros(n), expected_s=np.zeros(n),
    )  # fmt: skip


class FastPlane:
    """A `DataPlane`.

    Args:
        times: the physics.
        chunks: by session, how many it plays.
        seed: of the noise.
        bins, bin_s: the tally's.
        engines, decoders: at most so many at once.
    """

    def __init__(self, times: StageTimes, chunks: Ints, seed: int, bins: int, bin_s: float, engines: int, decoders: int) -> None:
        self._times = times
        self._p = times.params(seed, bin_s)
        self._s = _sessions(chunks, times.steps)
        self._e = _engines(engines, times.slots)
        self._d = Decoders(_zeros(decoders), _zeros(decoders), np.zeros(decoders), np.zeros(decoders))
        room = engines * times.slots * (times.max_lead_chunks + times.ahead_chunks + 1)
        self._out = Taken(np.zeros(room), _zeros(room), _zeros(room), _zeros(1))
        self._tally = Tally(_zeros(bins), _zeros(bins), _zeros(bins), _zeros(max(1, chunks.size)), _zeros(1), _zeros(3))
        self._free_engines = list(range(engines))[::-1]
        self._slots: dict[int, int] = {}
        self._decoders = 0

    def add_engine(self, key: int, now: float) -> int:
        if not self._free_engines:
            raise ValueError(f"at most {self._e.held.size} denoise replicas at once")
        r, e = self._free_engines.pop(), self._e
        e.key[r], e.free_at[r], e.owed_s[r], e.busy_s[r], e.expected_s[r], e.turns[r], e.forwards[r] = key, now, 0, 0, 0, 0, 0
        return r

    def remove_engine(self, engine: int) -> None:
        self._free_engines.append(engine)

    def add_decoder(self, key: int, now: float) -> int:
        k = self._decoders
        if k >= self._d.key.size:
            raise ValueError(f"at most {k} decode replicas in a run")
        self._decoders += 1
        self._d.key[k], self._d.free_at[k] = key, now
        return k

    def open(self, session: int, engine: int, decoder: int, steps: int, now: float, ready_at: float) -> None:
        i, s, e = session, self._s, self._e
        next_chunk = self._leave(i, now) if s.engine[i] >= 0 else int(s.sent[i])
        slot = int(e.rows[engine].argmin())
        if e.rows[engine, slot] >= 0:
            raise ValueError(f"engine {engine} has no free slot")
        e.rows[engine, slot] = i
        self._slots[i] = slot
        e.held[engine] += 1
        s.engine[i], s.decoder[i], s.steps[i], s.turn[i], s.step[i] = engine, decoder, steps, -1, 0
        s.base[i] = s.made[i] = s.taken[i] = next_chunk
        s.ready_at[i] = ready_at
        s.due[i] = ready_at if s.origin[i] == np.inf else s.origin[i] + next_chunk * self._times.chunk_s
        if next_chunk:
            e.owed_s[engine] += self._times.suffix_commit_s(next_chunk)

    def close(self, session: int, now: float) -> None:
        if self._s.engine[session] >= 0:
            self._leave(session, now)
            self._s.engine[session] = -1

    def advance(self, until: float) -> list[tuple[float, int]]:
        tally = self._tally
        tally.ended_count[0] = 0
        kernel.advance(self._p, self._s, self._e, self._d, until, self._out, tally)
        ended = tally.ended[: tally.ended_count[0]].tolist()
        return [(float(self._s.sent_at[i, (self._s.end[i] - 1) % RING]), i) for i in ended]

    def finished(self, session: int) -> bool:
        return bool(self._s.sent[session] >= self._s.end[session])

    def first_frames(self) -> Floats:
        return self._s.origin

    def work(self, engine: int) -> tuple[float, float]:
        return float(self._e.busy_s[engine]), float(self._e.expected_s[engine])

    def decoding(self, decoder: int) -> tuple[float, float]:
        return float(self._d.chunks[decoder]), float(self._d.busy_s[decoder])

    def played(self) -> Played:
        t = self._tally
        return Played(t.on_time.copy(), t.late.copy(), t.degraded.copy(), int(t.events.sum()))

    def _leave(self, i: int, now: float) -> int:
        """Free its slot; the next chunk that its viewer lacks."""
        e, r = self._e, self._s.engine[i]
        e.rows[r, self._slots.pop(i)] = -1
        e.held[r] -= 1
        return int(kernel.sent_by(self._p, self._s, i, now, self._tally))
