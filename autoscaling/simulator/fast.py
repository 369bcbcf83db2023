"""The data plane for scale: `kernel` on arrays. Its oracle is `fine`."""

from __future__ import annotations

import numpy as np

from autoscaling.simulator import kernel
from autoscaling.simulator.arrays import DECODER, ENGINE, RING, ROW, SESSION, Engines, Floats, Ints, Orders, Records, Taken, Tally
from autoscaling.simulator.plane import Played, StageTimes


def _zeros(n: int) -> Ints:
    return np.zeros(n, np.int64)


def _sessions(chunks: Ints, steps: int) -> Records:
    s = np.zeros(chunks.size, SESSION)
    s["engine"], s["row"], s["decoder"], s["origin"] = -1, -1, -1, np.inf
    s["steps"], s["asked"], s["end"] = steps, steps, chunks
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
        self._e = Engines(np.zeros(engines, ENGINE), np.zeros(engines * times.slots, ROW), _zeros(times.slots), np.zeros(times.slots))
        self._d = np.zeros(decoders, DECODER)
        room = engines * times.slots * (times.max_lead_chunks + times.ahead_chunks + 1)
        session, chunk, decoder, order = (_zeros(room) for _ in range(4))
        self._out = Taken(np.zeros(room), session, chunk, decoder, _zeros(1), order, _zeros(decoders), _zeros(decoders))
        self._tally = Tally(_zeros(bins), _zeros(bins), _zeros(bins), _zeros(max(1, chunks.size)), _zeros(1), _zeros(3))
        self._busy_s, self._expected_s = self._e.of["busy_s"], self._e.of["expected_s"]
        self._decoded, self._decoding_s = self._d["chunks"], self._d["busy_s"]
        # Calls into compiled code cost more than what they do here: orders wait for the next one.
        self._orders: list[tuple[int, int, int, int]] = []
        self._orders_at: list[tuple[float, float]] = []
        self._ordered: set[int] = set()  # their sessions
        self._free_engines = list(range(engines))[::-1]
        self._engine_of: dict[int, int] = {}
        self._held = [0] * engines
        self._decoders = 0

    def add_engine(self, key: int, now: float) -> int:
        if not self._free_engines:
            raise ValueError(f"at most {self._e.of.size} denoise replicas at once")
        r = self._free_engines.pop()
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
        self._order((session, engine, decoder, steps), (now, ready_at))

    def close(self, session: int, now: float) -> None:
        if self._leave(session):
            self._order((session, -1, -1, 0), (now, now))

    def advance(self, until: float) -> list[tuple[float, int]]:
        tally, s = self._tally, self._s
        tally.ended_count[0] = 0
        kernel.advance(self._p, s, self._e, self._d[: self._decoders], self._take_orders(), until, self._out, tally)
        ended = tally.ended[: tally.ended_count[0]]
        at = s["sent_at"][ended, (s["end"][ended] - 1) % RING]
        return sorted(zip(at.tolist(), ended.tolist(), strict=True))

    def finished(self, session: int, now: float) -> bool:
        if session in self._ordered:
            self._obey()
        end = self._s["end"][session]
        return bool(self._s["sent"][session] >= end and self._s["sent_at"][session, (end - 1) % RING] <= now)

    def first_frames(self) -> Floats:
        self._obey()
        return np.asarray(self._s["origin"])

    def work(self, engine: int) -> tuple[float, float]:
        return float(self._busy_s[engine]), float(self._expected_s[engine])

    def decoding(self, decoder: int) -> tuple[float, float]:
        return float(self._decoded[decoder]), float(self._decoding_s[decoder])

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

    def _order(self, what: tuple[int, int, int, int], when: tuple[float, float]) -> None:
        self._orders.append(what)
        self._orders_at.append(when)
        self._ordered.add(what[0])

    def _take_orders(self) -> Orders:
        n = len(self._orders)
        orders = Orders(np.array(self._orders, np.int64).reshape(n, 4), np.array(self._orders_at, np.float64).reshape(n, 2))
        self._orders, self._orders_at, self._ordered = [], [], set()
        return orders

    def _obey(self) -> None:
        if self._ordered:
            kernel.obey(self._p, self._s, self._e, self._take_orders(), self._tally)
