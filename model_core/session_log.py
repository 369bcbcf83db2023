"""The latent log of one session: its tail of clean latents, and which prompt and how many steps are in force from which chunk on.

`SessionLog` is what a running session appends to. `SessionRecord` is a frozen copy, with the session's constants, that can be written
down, read in another process and continued there. Neither needs torch.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from model_core.config import ModelConfig
from model_core.types import Codec, Latents, TextEmbedding

_MAGIC = b"HRL1"
_HEADER = struct.Struct("<4sI")
_FLOAT = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class PromptEntry:
    """`prompt` is in force from `chunk` on, until the next entry."""

    chunk: int
    prompt: str


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """Everything that is needed to go on with a session in another process.

    Attributes:
        model: name of the model.
        fingerprint: `model_fingerprint` of what made the latents.
        session_id, seed, num_frames, codec: as in `SessionContext`.
        num_steps: what the session asked for.
        first_chunk: index of the chunk that `latents` begins with.
        latents: clean latents `[C, F, H, W]` of consecutive chunks, oldest first.
        timeline: ascending by chunk; the first entry is in force at `first_chunk`. Entries may lie beyond the last chunk.
        steps: (chunk, denoise steps from that chunk on), in the same manner.
    """

    model: str
    fingerprint: str
    session_id: str
    seed: int
    num_steps: int
    num_frames: int | None
    codec: Codec
    first_chunk: int
    latents: tuple[Latents, ...]
    timeline: tuple[PromptEntry, ...]
    steps: tuple[tuple[int, int], ...]

    @property
    def next_chunk(self) -> int:
        """The first chunk that the record does not hold."""
        return self.first_chunk + len(self.latents)

    def first_restorable(self, window: int) -> int:
        """The first chunk that can be made anew from the latents here."""
        return self.first_chunk + window if self.first_chunk else 0

    def to_bytes(self) -> bytes:
        """A JSON header and the raw latents."""
        header = {
            "model": self.model, "fingerprint": self.fingerprint, "session_id": self.session_id, "seed": self.seed,
            "num_steps": self.num_steps, "num_frames": self.num_frames, "codec": self.codec.value, "first_chunk": self.first_chunk,
            "chunks": len(self.latents), "shape": self.latents[0].shape if self.latents else [],
            "timeline": [[entry.chunk, entry.prompt] for entry in self.timeline], "steps": self.steps,
        }  # fmt: skip
        text = json.dumps(header).encode()
        return b"".join(
            [_HEADER.pack(_MAGIC, len(text)), text, *(latents.astype(_FLOAT, copy=False).tobytes() for latents in self.latents)]
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> SessionRecord:
        """The inverse of `to_bytes`.

        Raises:
            ValueError: `data` is no record of this version, or is cut.
        """
        try:
            magic, size = _HEADER.unpack_from(data)
            if magic != _MAGIC:
                raise ValueError(f"begins with {magic!r}")
            header = json.loads(data[_HEADER.size : _HEADER.size + size])
            chunks = int(header["chunks"])
            values = np.frombuffer(data, _FLOAT, offset=_HEADER.size + size).astype(np.float32)
            latents = tuple(values.reshape(chunks, *map(int, header["shape"]))) if chunks else ()
            return cls(
                model=header["model"], fingerprint=header["fingerprint"], session_id=header["session_id"], seed=int(header["seed"]),
                num_steps=int(header["num_steps"]), num_frames=None if header["num_frames"] is None else int(header["num_frames"]),
                codec=Codec(header["codec"]), first_chunk=int(header["first_chunk"]), latents=latents,
                timeline=tuple(PromptEntry(int(chunk), prompt) for chunk, prompt in header["timeline"]),
                steps=tuple((int(chunk), int(steps)) for chunk, steps in header["steps"]),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, struct.error) as error:
            raise ValueError(f"no session record: {error}") from error


def model_fingerprint(config: ModelConfig) -> str:
    """Equal for configurations, weights included, that make equal frames."""
    return hashlib.sha256(repr(config).encode()).hexdigest()


class SessionLog:
    """The tail of a session, bounded.

    Args:
        embedding: of the first prompt.
        steps: of the first chunks.
        window: chunks that the next one is made from.
        keep: further chunks to hold behind those.
    """

    def __init__(self, embedding: TextEmbedding, steps: int, window: int, keep: int = 0) -> None:
        self._window = window
        self._latents: deque[Latents] = deque(maxlen=window + keep)
        self._next_chunk = 0
        # At most one entry for each chunk held, one in force before them, and what `restore` was given beyond.
        self._timeline: list[tuple[int, TextEmbedding]] = [(0, embedding)]
        self._steps: list[tuple[int, int]] = [(0, steps)]

    @property
    def next_chunk(self) -> int:
        return self._next_chunk

    @property
    def prompt(self) -> TextEmbedding:
        """In force for the next chunk."""
        return next(embedding for chunk, embedding in reversed(self._timeline) if chunk <= self._next_chunk)

    @property
    def steps(self) -> int:
        """Denoise steps in force for the next chunk."""
        return next(steps for chunk, steps in reversed(self._steps) if chunk <= self._next_chunk)

    @property
    def last_steps(self) -> int:
        """Denoise steps in force in the end, as far as that is settled."""
        return self._steps[-1][1]

    @property
    def next_switch(self) -> int | None:
        """The first chunk after the next one from which another prompt, or number of steps, is in force, if that is settled already."""
        return min((chunk for chunk, _ in (*self._timeline, *self._steps) if chunk > self._next_chunk), default=None)

    def append(self, latents: Latents) -> None:
        """The next chunk is made."""
        self._latents.append(latents)
        self._next_chunk += 1
        first = self._next_chunk - len(self._latents)
        while len(self._timeline) > 1 and self._timeline[1][0] <= first:
            del self._timeline[0]
        while len(self._steps) > 1 and self._steps[1][0] <= first:
            del self._steps[0]

    def change_prompt(self, embedding: TextEmbedding, chunk: int) -> None:
        """From `chunk`, the next one or later, on; what was settled for it or for later ones is dropped."""
        self._timeline = [entry for entry in self._timeline if entry[0] < chunk] + [(chunk, embedding)]

    def change_steps(self, steps: int, chunk: int) -> None:
        """As `change_prompt`."""
        self._steps = [entry for entry in self._steps if entry[0] < chunk] + [(chunk, steps)]

    def suffix(self) -> tuple[Latents, ...]:
        """Latents of the last `window` chunks, oldest first."""
        return tuple(self._latents)[-self._window :]

    def tail(self) -> tuple[int, tuple[Latents, ...], tuple[PromptEntry, ...], tuple[tuple[int, int], ...]]:
        """All that is held: the first chunk, latents, and the prompts and steps in force since then."""
        prompts = tuple(PromptEntry(c, e.prompt) for c, e in self._timeline)
        return self._next_chunk - len(self._latents), tuple(self._latents), prompts, tuple(self._steps)

    @classmethod
    def restore(
        cls, record: SessionRecord, next_chunk: int, prompts: Iterable[tuple[int, TextEmbedding]], window: int, keep: int
    ) -> SessionLog:
        """The log as it stood before `next_chunk` was made, at most `record.next_chunk`; `prompts` is the timeline, embedded."""
        timeline = list(prompts)
        log = cls(timeline[0][1], record.num_steps, window, keep)
        log._latents.extend(record.latents[: next_chunk - record.first_chunk])
        log._next_chunk = next_chunk
        log._timeline = timeline
        log._steps = list(record.steps)
        return log
