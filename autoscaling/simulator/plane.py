"""What the control plane of the simulator asks of a data plane, and the physics that both data planes share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from autoscaling.capacity.profile import CapacityProfile
from autoscaling.simulator.arrays import RING, Floats, Ints, Params


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTimes:
    """How long things take, in seconds.

    Attributes:
        profile: a denoise step and a commit by batch bucket.
        encode_s, decode_s: a prompt; a chunk.
        hop_s: a message between stages.
        open_s, reopen_s: from the decision until a leg's first chunk can be worked on; a reopened one commits its suffix besides.
        chunk_s: what a chunk plays.
        steps: denoise steps of a chunk at full quality.
        suffix_chunks: at most so many are committed when a leg reopens.
        noise: coefficient of variation of each forward and each decode; at most 0.4.
        slots, max_lead_chunks, comfort_s: of an engine; see `model_core.config.EngineConfig`.
        lead_s: how far ahead of playback a chunk may be sent.
        ahead_chunks: how many the links between the stages take beyond what the front door has asked for.
    """

    profile: CapacityProfile
    encode_s: float = 0.02
    decode_s: float = 0.04
    hop_s: float = 0.003
    open_s: float = 0.02
    reopen_s: float = 0.02
    chunk_s: float = 0.5
    steps: int = 4
    suffix_chunks: int = 3
    noise: float = 0.05
    slots: int = 16
    max_lead_chunks: int = 2
    comfort_s: float = 0.5
    lead_s: float = 1.0
    ahead_chunks: int = 2

    def __post_init__(self) -> None:
        if not 0.0 <= self.noise <= 0.4:
            raise ValueError(f"noise must be from 0 to 0.4; got {self.noise:g}")
        if self.max_lead_chunks + self.ahead_chunks > RING // 2:
            most = RING // 2
            raise ValueError(f"max_lead_chunks + ahead_chunks must be at most {most}; got {self.max_lead_chunks} + {self.ahead_chunks}")

    def params(self, seed: int, bin_s: float) -> Params:
        """These times as the compiled data plane takes them."""
        return Params(
            buckets=np.array(self.profile.buckets),
            step_s=np.array(self.profile.step_s),
            commit_s=np.array(self.profile.commit_s),
            decode_s=self.decode_s,
            hop_s=self.hop_s,
            chunk_s=self.chunk_s,
            lead_s=self.lead_s,
            comfort_s=self.comfort_s,
            steps=self.steps,
            max_lead=self.max_lead_chunks,
            ahead=self.ahead_chunks,
            noise=self.noise,
            seed=seed,
            bin_s=bin_s,
            suffix=self.suffix_chunks,
            slots=self.slots,
        )

    def suffix_commit_s(self, next_chunk: int) -> float:
        """Device seconds that opening a leg at `next_chunk` takes."""
        chunks = min(self.suffix_chunks, next_chunk)
        buckets = self.profile.buckets
        index = next((k for k, b in enumerate(buckets) if b >= chunks), len(buckets) - 1)
        return self.profile.commit_s[index] if chunks else 0.0


@dataclass(frozen=True, slots=True)
class Played:
    """What became of the chunks, by time bin, and events: forwards, chunks taken, chunks decoded."""

    on_time: Ints
    late: Ints
    degraded: Ints
    events: int


class DataPlane(Protocol):
    """Denoisers and decoders at work. Sessions and replicas are small integers; a replica's may be used again once it is removed."""

    def add_engine(self, key: int, now: float) -> int: ...

    def remove_engine(self, engine: int) -> None:
        """Its sessions must be gone."""
        ...

    def add_decoder(self, key: int, now: float) -> int: ...

    def open(self, session: int, engine: int, decoder: int, steps: int, now: float, ready_at: float) -> None:
        """A leg, the session's first or another one in place of it; what was made ahead of the viewer is made anew.

        Raises:
            ValueError: the engine has no free slot.
        """
        ...

    def close(self, session: int, now: float) -> None: ...

    def advance(self, until: float) -> list[tuple[float, int]]:
        """Sessions whose last chunk has a time of sending now, with it; a leg that reopens before then takes it back."""
        ...

    def finished(self, session: int, now: float) -> bool:
        """Whether it has sent its last chunk by `now`; not where a leg that was closed had, and the one in its place has not yet."""
        ...

    def first_frames(self) -> Floats:
        """By session: when its first frame was sent; infinity if it was not."""
        ...

    def work(self, engines: Sequence[int]) -> tuple[list[float], list[float]]:
        """Seconds that each engine was busy, and what its profile says they should have been."""
        ...

    def decoding(self, decoders: Sequence[int]) -> tuple[list[float], list[float]]:
        """Chunks that each decoded and seconds that took."""
        ...

    def played(self) -> Played: ...
