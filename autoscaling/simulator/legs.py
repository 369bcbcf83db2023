"""Sessions on replicas: which encoder, denoiser and decoder a leg gets, and where it goes when one of them goes away.

As the serving layer does: the less busy replica, and on to another one at a chunk boundary, from the session's log.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field

from autoscaling.simulator.cluster import Cluster, Phase, Replica
from autoscaling.simulator.plane import DataPlane, StageTimes
from model_core.stage import Stage

# A session that finds no replica for so long is given up.
_PATIENCE_S = 30.0


@dataclass(slots=True, eq=False)
class Leg:
    """One session; without replicas while it looks for some."""

    steps: int
    since: float
    engine: Replica | None = None
    decoder: Replica | None = None


@dataclass(slots=True, eq=False)
class _Encoder:
    free_at: float
    prompts: int = 0
    busy_s: float = 0.0


@dataclass(slots=True, eq=False)
class _Seat:
    bit: int
    load: int = 0


class Board:
    """Replicas of one stage by their number of sessions, for the choice of the least busy; the oldest of several, so that the newest empty.

    Each has a bit, the higher the younger it is; a set of them is an integer, whose lowest bit is found at once.
    """

    def __init__(self, slots: float) -> None:
        self._slots = slots
        self._replicas: list[Replica] = []  # by the place of the bit
        self._seats: dict[int, _Seat] = {}  # by key
        self._holding: list[int] = [0]  # by number of sessions
        self._least = 0  # nobody holds fewer

    def add(self, replica: Replica) -> None:
        """Bits are given out anew when most are of those that went."""
        if len(self._replicas) >= 64 + 2 * len(self._seats):
            kept = [self._replicas[seat.bit.bit_length() - 1] for seat in self._seats.values()]
            self._replicas, self._seats, self._holding = [], {}, [0]
            for other in kept:
                self.add(other)
        seat = self._seats[replica.key] = _Seat(1 << len(self._replicas))
        self._replicas.append(replica)
        self._holding[0] |= seat.bit
        self._least = 0
        self._update(replica)

    def remove(self, replica: Replica) -> None:
        if (seat := self._seats.pop(replica.key, None)) is not None:
            self._holding[seat.load] ^= seat.bit

    def enter(self, replica: Replica, i: int) -> None:
        """Session `i` is on it now."""
        replica.sessions[i] = None
        self._update(replica)

    def leave(self, replica: Replica, i: int) -> None:
        """Session `i` is not on it any more."""
        del replica.sessions[i]
        self._update(replica)

    def _update(self, replica: Replica) -> None:
        if (seat := self._seats.get(replica.key)) is None:
            return
        holding, load = self._holding, len(replica.sessions)
        holding[seat.load] ^= seat.bit
        while load >= len(holding):
            holding.append(0)
        holding[load] |= seat.bit
        seat.load = load
        self._least = min(self._least, load)

    def best(self) -> Replica | None:
        holding = self._holding
        while not holding[self._least]:
            if self._least == len(holding) - 1:
                return None
            self._least += 1
        if self._least >= self._slots:
            return None
        bits = holding[self._least]
        return self._replicas[(bits & -bits).bit_length() - 1]


@dataclass(slots=True)
class Legs:
    """All sessions that were admitted and have not ended; one owner, the simulation."""

    times: StageTimes
    plane: DataPlane
    cluster: Cluster
    sessions: dict[int, Leg] = field(default_factory=dict)
    _lost: dict[int, float] = field(default_factory=dict)  # since when they look for a replica
    _encoders: dict[int, _Encoder] = field(default_factory=dict)
    _queue: list[tuple[float, int, _Encoder]] = field(default_factory=list)  # a heap: when each is free
    _denoisers: Board = field(init=False)
    _decoders: Board = field(init=False)

    def __post_init__(self) -> None:
        self._denoisers, self._decoders = Board(self.times.slots), Board(math.inf)

    def add(self, replica: Replica, now: float) -> None:
        """It runs from now on."""
        if replica.stage is Stage.TEXT_ENCODER:
            self._encoders[replica.key] = encoder = _Encoder(now)
            heapq.heappush(self._queue, (now, replica.key, encoder))
            return
        add = self.plane.add_engine if replica.stage is Stage.DENOISER else self.plane.add_decoder
        replica.plane = add(replica.key, now)
        self._board(replica).add(replica)

    def remove(self, replica: Replica) -> None:
        """It is gone; it holds no session."""
        self._hold(replica)
        if replica.stage is Stage.DENOISER and replica.plane >= 0:
            self.plane.remove_engine(replica.plane)
            replica.plane = -1

    def start(self, i: int, steps: int, now: float) -> None:
        """Session `i` was admitted."""
        leg = self.sessions[i] = Leg(steps, now)
        self._open(i, leg, now, self._encode(now) + self.times.open_s)

    def reopen(self, i: int, now: float, *, encode: bool = False, delay_s: float = 0.0) -> None:
        """Another leg from the log, on whatever replicas are best now."""
        leg = self.sessions[i]
        self._leave(i, leg)
        self._open(i, leg, now, (self._encode(now) if encode else now) + delay_s + self.times.reopen_s)

    def set_steps(self, i: int, steps: int, now: float) -> None:
        """Brown-out, or recovery from it: the session goes on where it is, in a new leg with another number of steps."""
        leg = self.sessions[i]
        leg.steps = steps
        if leg.engine is not None and leg.decoder is not None and leg.engine.phase is Phase.RUNNING:
            self.plane.open(i, leg.engine.plane, leg.decoder.plane, steps, now, now + self.times.reopen_s)
        elif i not in self._lost:
            self.reopen(i, now)

    def close(self, i: int, now: float) -> None:
        """It ended."""
        self._leave(i, self.sessions.pop(i))
        self._lost.pop(i, None)
        self.plane.close(i, now)

    def empty(self, replica: Replica, now: float, *, hand_over: bool) -> list[int]:
        """Move sessions away from a draining replica, if they may; those that stay."""
        self._hold(replica)
        if hand_over and replica.sessions and self._board(replica).best() is not None:
            for i in list(replica.sessions):
                self.reopen(i, now)
        return list(replica.sessions)

    def retry(self, now: float) -> list[int]:
        """Look for replicas for those that have none; who has looked for too long."""
        for i in list(self._lost):
            since = self._lost[i]
            self._open(i, self.sessions[i], now, now + (self.times.reopen_s if self.plane.first_frames()[i] < now else self.times.open_s))
            if i in self._lost:
                self._lost[i] = since
        return [i for i, since in self._lost.items() if now - since > _PATIENCE_S]

    def encoded(self, replica: Replica) -> tuple[float, float]:
        """Prompts and seconds."""
        encoder = self._encoders[replica.key]
        return float(encoder.prompts), encoder.busy_s

    def ongoing(self, now: float, waiting: int) -> dict[Stage, float]:
        """Requests in hand by stage, as Serve's handles count them: a stream is one for as long as it lasts. `waiting` ones are not yet."""
        encoding = sum(max(0.0, e.free_at - now) / self.times.encode_s for e in self._encoders.values())
        live = float(len(self.sessions))
        return {Stage.TEXT_ENCODER: encoding, Stage.DENOISER: live, Stage.DECODER: live}

    def _board(self, replica: Replica) -> Board:
        return self._denoisers if replica.stage is Stage.DENOISER else self._decoders

    def _encode(self, now: float) -> float:
        """When a prompt that comes now has its features: the encoder that is free first takes it."""
        if not self._queue:
            return now + 1.0
        free_at, key, encoder = self._queue[0]
        encoder.free_at = max(free_at, now) + self.times.encode_s
        encoder.prompts += 1
        encoder.busy_s += self.times.encode_s
        heapq.heapreplace(self._queue, (encoder.free_at, key, encoder))
        return encoder.free_at

    def _hold(self, replica: Replica) -> None:
        """No more sessions for it."""
        if replica.stage is not Stage.TEXT_ENCODER:
            self._board(replica).remove(replica)
        elif self._encoders.pop(replica.key, None) is not None:
            self._queue = [entry for entry in self._queue if entry[1] != replica.key]
            heapq.heapify(self._queue)

    def _open(self, i: int, leg: Leg, now: float, ready_at: float) -> None:
        engine, decoder = self._denoisers.best(), self._decoders.best()
        if engine is None or decoder is None:
            self.plane.close(i, now)
            self._lost[i] = now
            return
        self._lost.pop(i, None)
        leg.engine, leg.decoder = engine, decoder
        self._denoisers.enter(engine, i)
        self._decoders.enter(decoder, i)
        self.plane.open(i, engine.plane, decoder.plane, leg.steps, now, ready_at)

    def _leave(self, i: int, leg: Leg) -> None:
        if leg.engine is not None:
            self._denoisers.leave(leg.engine, i)
        if leg.decoder is not None:
            self._decoders.leave(leg.decoder, i)
        leg.engine = leg.decoder = None
