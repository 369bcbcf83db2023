"""Sessions on replicas: which encoder, denoiser and decoder a leg gets, and where it goes when one of them goes away.

As the serving layer does: the less busy replica, and on to another one at a chunk boundary, from the session's log.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from autoscaling.scaling import Stage
from autoscaling.simulator.cluster import Cluster, Phase, Replica
from autoscaling.simulator.plane import DataPlane, StageTimes

# A session that finds no replica for so long is given up.
_PATIENCE_S = 30.0


@dataclass(slots=True, eq=False)
class Leg:
    """One session; without replicas while it looks for some."""

    steps: int
    since: float
    engine: Replica | None = None
    decoder: Replica | None = None


@dataclass(slots=True)
class _Encoder:
    free_at: float = 0.0
    prompts: int = 0
    busy_s: float = 0.0


class _Board:
    """Sessions by replica of one stage, for the choice of the least busy; the oldest of several, so that the newest empty by themselves."""

    def __init__(self, slots: float) -> None:
        self._slots = slots
        self._load = np.full(64, np.inf)
        self._places: dict[int, int] = {}
        self._replicas: dict[int, Replica] = {}
        self._next = 0

    def add(self, replica: Replica) -> None:
        """Places ascend with age; they are given out anew when they run out."""
        if self._next == self._load.size:
            self._renumber()
        self._places[replica.key], self._replicas[self._next] = self._next, replica
        self._load[self._next] = len(replica.sessions)
        self._next += 1

    def remove(self, replica: Replica) -> None:
        if (place := self._places.pop(replica.key, None)) is not None:
            self._load[place] = np.inf
            del self._replicas[place]

    def update(self, replica: Replica) -> None:
        """Its number of sessions changed."""
        if (place := self._places.get(replica.key)) is not None:
            self._load[place] = len(replica.sessions)

    def best(self) -> Replica | None:
        place = int(self._load.argmin())
        return self._replicas[place] if self._load[place] < self._slots else None

    def _renumber(self) -> None:
        kept = list(self._replicas.values())
        self._load = np.full(max(64, 2 * len(kept)), np.inf)
        self._places, self._replicas, self._next = {}, {}, 0
        for replica in kept:
            self.add(replica)


@dataclass(slots=True)
class Legs:
    """All sessions that were admitted and have not ended; one owner, the simulation."""

    times: StageTimes
    plane: DataPlane
    cluster: Cluster
    sessions: dict[int, Leg] = field(default_factory=dict)
    _lost: dict[int, float] = field(default_factory=dict)  # since when they look for a replica
    _encoders: dict[int, _Encoder] = field(default_factory=dict)
    _boards: dict[Stage, _Board] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._boards = {Stage.DENOISER: _Board(self.times.slots), Stage.DECODER: _Board(math.inf)}

    def add(self, replica: Replica, now: float) -> None:
        """It runs from now on."""
        if replica.stage is Stage.TEXT_ENCODER:
            self._encoders[replica.key] = _Encoder(now)
            return
        add = self.plane.add_engine if replica.stage is Stage.DENOISER else self.plane.add_decoder
        replica.plane = add(replica.key, now)
        self._boards[replica.stage].add(replica)

    def remove(self, replica: Replica) -> None:
        """It is gone; it holds no session."""
        self._hold(replica)
        if replica.stage is Stage.DENOISER and replica.plane >= 0:
            self.plane.remove_engine(replica.plane)
            replica.plane = -1

    def start(self, i: int, steps: int, now: float) -> None:
        """Session `i` was admitted."""
        self.sessions[i] = Leg(steps, now)
        self._open(i, now, self._encode(now) + self.times.open_s)

    def reopen(self, i: int, now: float, *, encode: bool = False, delay_s: float = 0.0) -> None:
        """Another leg from the log, on whatever replicas are best now."""
        self._leave(i, self.sessions[i])
        self._open(i, now, (self._encode(now) if encode else now) + delay_s + self.times.reopen_s)

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
        if hand_over and replica.sessions and self._boards[replica.stage].best() is not None:
            for i in list(replica.sessions):
                self.reopen(i, now)
        return list(replica.sessions)

    def retry(self, now: float) -> list[int]:
        """Look for replicas for those that have none; who has looked for too long."""
        for i in list(self._lost):
            since = self._lost[i]
            self._open(i, now, now + (self.times.reopen_s if self.plane.first_frames()[i] < now else self.times.open_s))
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

    def _encode(self, now: float) -> float:
        """When a prompt that comes now has its features."""
        if not self._encoders:
            return now + 1.0
        encoder = min(self._encoders.values(), key=lambda e: e.free_at)
        encoder.free_at = max(encoder.free_at, now) + self.times.encode_s
        encoder.prompts += 1
        encoder.busy_s += self.times.encode_s
        return encoder.free_at

    def _hold(self, replica: Replica) -> None:
        """No more sessions for it."""
        self._encoders.pop(replica.key, None)
        if replica.stage in self._boards:
            self._boards[replica.stage].remove(replica)

    def _open(self, i: int, now: float, ready_at: float) -> None:
        leg, engine, decoder = self.sessions[i], *(self._boards[stage].best() for stage in (Stage.DENOISER, Stage.DECODER))
        if engine is None or decoder is None:
            self.plane.close(i, now)
            self._lost[i] = now
            return
        self._lost.pop(i, None)
        leg.engine, leg.decoder = engine, decoder
        for replica in (engine, decoder):
            replica.sessions[i] = None
            self._boards[replica.stage].update(replica)
        self.plane.open(i, engine.plane, decoder.plane, leg.steps, now, ready_at)

    def _leave(self, i: int, leg: Leg) -> None:
        for replica in (leg.engine, leg.decoder):
            if replica is not None:
                replica.sessions.pop(i, None)
                self._boards[replica.stage].update(replica)
        leg.engine = leg.decoder = None
