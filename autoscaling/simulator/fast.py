"""The data plane for scale: `kernel` on arrays. Its oracle is `fine`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoscaling.simulator import kernel
from autoscaling.simulator.arrays import DECODER, ENGINE, ROW, SESSION, Engines, Floats, Ints, Places, Records, Taken, Tally, records
from autoscaling.simulator.plane import Played, StageTimes

_NO_ORDERS = np.zeros((0, 6))


def _zeros(n: int) -> Ints:
    return np.zeros(n, np.int64)


def _places(n: int) -> Places:
    return np.zeros(n, np.uint32)


def _sessions(chunks: Ints, steps: int) -> Records:
    s = np.zeros(chunks.size, SESSION)
    s["engine"], s["row"], s["origin"], s["ended_at"] = -1, -1, np.inf, np.inf
    s["steps"], s["end"] = steps, chunks
    return s


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
        self._e = Engines(records(engines, ENGINE), records(engines * times.slots, ROW), _places(times.slots), np.zeros(times.slots))
        self._d = np.zeros(decoders, DECODER)
        room = engines * times.slots * (times.max_lead_chunks + times.ahead_chunks + 1)
        row, decoder, order = (_places(room) for _ in range(3))
        self._out = Taken(
            at=np.zeros(room),
            row=row,
            chunk=_zeros(room),
            decoder=decoder,
            filled=_zeros(1),
            order=order,
            begin=_zeros(decoders),
            end=_zeros(decoders),
        )
        self._tally = Tally(_zeros(bins), _zeros(bins), _zeros(bins), _zeros(max(1, chunks.size)), _zeros(1), _zeros(3))
        self._ended_at = self._s["ended_at"]
        self._busy_s, self._expected_s = self._e.of["busy_s"], self._e.of["expected_s"]
        self._decoded, self._decoding_s = self._d["chunks"], self._d["busy_s"]
        # Calls into compiled code cost more than what they do here: orders wait for the next one.
        self._orders: list[tuple[int, int, int, int, float, float]] = []  # see `kernel.obey`
        self._ordered: set[int] = set()  # their sessions
        self._free_engines = list(range(engines))[::-1]
        self._engine_of: dict[int, int] = {}
        self._held = [0] * engines
        self._engines = self._decoders = 0  # places ever used
        self._used = self._e._replace(of=self._e.of[:0])

    def add_engine(self, key: int, now: float) -> int:
        if not self._free_engines:
            raise ValueError(f"at most {self._e.of.size} denoise replicas at once")
        r = self._free_engines.pop()
        self._engines = max(self._engines, r + 1)
        self._used = self._e._replace(of=self._e.of[: self._engines])
        self._e.of[r] = np.zeros((), ENGINE)
        self._e.of["key"][r], self._e.of["free_at"][r] = key, now
        self._e.rows["session"][r * self._times.slots : (r + 1) * self._times.slots] = -1
        return r

    def remove_engine(self, engine: int) -> None:
        self._obey()
        self._free_engines.append(engine)

    def add_decoder(self, key: int, now: float) -> int:
        k = self._decoders
        if k >= self._d.size:
            raise ValueError(f"at most {k} decode replicas in a run")
        self._decoders += 1
        self._d["key"][k], self._d["free_at"][k] = key, now
        return k

    def open(self, session: int, engine: int, decoder: int, steps: int, now: float, ready_at: float) -> None:
        self._leave(session)
        if self._held[engine] == self._times.slots:
            raise ValueError(f"engine {engine} has no free slot")
        self._held[engine] += 1
        self._engine_of[session] = engine
        self._orders.append((session, engine, decoder, steps, now, ready_at))
        self._ordered.add(session)

    def close(self, session: int, now: float) -> None:
        if self._leave(session):
            self._orders.append((session, -1, -1, 0, now, now))
            self._ordered.add(session)

    def advance(self, until: float) -> list[tuple[float, int]]:
        tally = self._tally
        tally.ended_count[0] = 0
        kernel.advance(self._p, self._s, self._used, self._d[: self._decoders], self._take_orders(), until, self._out, tally)
        ended = tally.ended[: tally.ended_count[0]]
        return sorted(zip(self._ended_at[ended].tolist(), ended.tolist(), strict=True)) if ended.size else []

    def finished(self, session: int, now: float) -> bool:
        if session in self._ordered:
            self._obey()
        return bool(self._ended_at.item(session) <= now)

    def first_frames(self) -> Floats:
        self._obey()
        return np.asarray(self._s["origin"])

    def work(self, engines: Sequence[int]) -> tuple[list[float], list[float]]:
        of = np.array(engines, np.int64)
        return self._busy_s[of].tolist(), self._expected_s[of].tolist()

    def decoding(self, decoders: Sequence[int]) -> tuple[list[float], list[float]]:
        of = np.array(decoders, np.int64)
        return self._decoded[of].tolist(), self._decoding_s[of].tolist()

    def played(self) -> Played:
        self._obey()
        t = self._tally
        return Played(t.on_time.copy(), t.late.copy(), t.degraded.copy(), int(t.events.sum()))

    def _leave(self, session: int) -> bool:
        """Free its slot, if it has one."""
        engine = self._engine_of.pop(session, None)
        if engine is None:
            return False
        self._held[engine] -= 1
        return True

    def _take_orders(self) -> Floats:
        if not self._orders:
            return _NO_ORDERS
        orders = np.array(self._orders, np.float64)
        self._orders.clear()
        self._ordered.clear()
        return orders

    def _obey(self) -> None:
        if self._orders:
            kernel.obey(self._p, self._s, self._e, self._take_orders(), self._tally)
