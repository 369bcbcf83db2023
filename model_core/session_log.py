"""The latent log of one session: its tail of clean latents, and which prompt and how many steps are in force from which chunk on.

`SessionLog` is what a running session appends to. `SessionRecord` is a frozen copy, with the session's constants, that can be written
down, read in another process and continued there. Neither needs torch.
"""

from __future__ import annotations

import json
import math
import struct
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from model_core.acts import Keys
from model_core.chunk_grid import ChunkGrid
from model_core.enhancement import AS_RENDERED, Enhancement
from model_core.fingerprint import FINGERPRINT_VERSION
from model_core.types import Codec, Conditioning, Latents, Numerics, TextEmbedding

# An earlier version would continue a restyled session without its source, and an enhanced one with other frames.
_MAGIC, _MAGIC_RESTYLED, _MAGIC_ENHANCED = b"HRL2", b"HRL3", b"HRL4"
_HEADER = struct.Struct("<4sI")
_MAX_HEADER_BYTES = 4 * 1024 * 1024  # prompts, mostly; what JSON unpacks to is many times that
_MAX_DIMENSIONS = 8
_FLOAT = np.dtype("<f4")
_VERSION_BEFORE_IT_WAS_WRITTEN = 2  # of the fingerprint, in records that do not say it
_HEAD, _GUIDE = "head", "guide:"


@dataclass(frozen=True, slots=True)
class PromptEntry:
    """`prompt` is in force from `chunk` on, and `keys` are held, until the next entry.

    Attributes:
        change: counts the changes of prompt or keys that the session has had; 0 for what it began with. Of two accounts of a session the
            one with the higher count is the newer one.
        supersedes: chunks from `chunk` on had been handed out for another prompt.
        request_id: to be acknowledged with.
    """

    chunk: int
    prompt: str
    change: int = 0
    supersedes: bool = False
    request_id: int = 0
    keys: Keys = ()


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """Everything that is needed to go on with a session in another process.

    Attributes:
        model: name of the model.
        fingerprint: `model_fingerprint` of what made the latents.
        fingerprint_version: the version of the rules for that fingerprint.
        session_id, seed, num_frames, codec: as in `SessionContext`.
        num_steps: what the session asked for.
        first_chunk: index of the chunk that `latents` begins with.
        latents: clean latents `[C, F, H, W]` of consecutive chunks, oldest first.
        sink: those of the session's first chunks that the model attends to for good, as far as they come before `first_chunk`.
        timeline: ascending by chunk; the first entry is in force at `first_chunk`. Entries may lie beyond the last chunk.
        steps: (chunk, denoise steps from that chunk on), in the same manner.
        given: see `SessionContext`.
        numerics: of the newest chunk.
        guidance, negative_prompt: the scale, and the text that it leads away from; None where the scale is 1.
        tenant: whose it is, in the words of whoever keeps it; None where it says nothing, as those of older versions do.
        strength: of a session that restyles a source, of which the record holds nothing; None for any other.
        enhance: as in `SessionContext`. `num_frames` counts frames as they are shown.
        enhancer: `enhancer_fingerprint` of what enhances them; empty where nothing does.
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
    given: Conditioning | None = None
    sink: tuple[Latents, ...] = ()
    numerics: Numerics = field(default_factory=Numerics)
    guidance: float = 1.0
    negative_prompt: str | None = None
    fingerprint_version: int = FINGERPRINT_VERSION
    tenant: str | None = None
    strength: float | None = None
    enhance: Enhancement = AS_RENDERED
    enhancer: str = ""

    @property
    def next_chunk(self) -> int:
        """The first chunk that the record does not hold."""
        return self.first_chunk + len(self.latents)

    def first_restorable(self, window: int) -> int:
        """The first chunk that can be made anew from the latents here."""
        return self.first_chunk + window if self.first_chunk else 0

    def changed(self, entry: PromptEntry) -> SessionRecord:
        """With a newer prompt in force; chunks that it supersedes are dropped."""
        latents = self.latents[: max(0, entry.chunk - self.first_chunk)]
        timeline = (*(e for e in self.timeline if e.chunk < entry.chunk), entry)
        return replace(self, latents=latents, sink=self.sink[: entry.chunk], timeline=timeline)

    def to_bytes(self) -> bytes:
        """A JSON header and the raw latents, then what was given."""
        arrays = [*self.latents, *self.sink, *_arrays(self.given).values()]
        header = {
            "model": self.model, "fingerprint": self.fingerprint, "fingerprint_version": self.fingerprint_version,
            "session_id": self.session_id, "seed": self.seed,
            "num_steps": self.num_steps, "num_frames": self.num_frames, "codec": self.codec.value, "first_chunk": self.first_chunk,
            "guidance": self.guidance, "negative_prompt": self.negative_prompt, "chunks": len(self.latents), "sink": len(self.sink),
            "given": list(_arrays(self.given)), "shapes": [array.shape for array in arrays],
            "timeline": [[e.chunk, e.prompt, e.change, e.supersedes, e.request_id, *e.keys] for e in self.timeline], "steps": self.steps,
            "numerics": [self.numerics.denoiser, self.numerics.decoder], "text_numerics": self.numerics.text_encoder,
            "tenant": self.tenant,
        } | ({} if self.strength is None else {"strength": self.strength})  # fmt: skip
        magic = _MAGIC if self.strength is None else _MAGIC_RESTYLED
        if self.enhance:
            magic = _MAGIC_ENHANCED
            header["enhance"] = [self.enhance.frames, self.enhance.size, self.enhancer, self.numerics.enhancer, self.enhance.slow]
        text = json.dumps(header).encode()
        return b"".join([_HEADER.pack(magic, len(text)), text, *(array.astype(_FLOAT, copy=False).tobytes() for array in arrays)])

    @classmethod
    def from_bytes(cls, data: bytes) -> SessionRecord:
        """The inverse of `to_bytes`.

        Raises:
            ValueError: `data` is no record of this version, or is cut.
        """
        try:
            magic, size = _HEADER.unpack_from(data)
            if magic not in (_MAGIC, _MAGIC_RESTYLED, _MAGIC_ENHANCED):
                raise ValueError(f"begins with {magic!r}")
            if not 0 < size <= min(_MAX_HEADER_BYTES, len(data) - _HEADER.size):
                raise ValueError(f"a header of {size} bytes in {len(data)}")
            header = json.loads(data[_HEADER.size : _HEADER.size + size])
            chunks, sink = int(header["chunks"]), int(header["sink"])
            more, larger, enhancer, rounds, slow = header.get("enhance", (1, 1, "", "", 1))
            arrays = _read(data, _HEADER.size + size, header["shapes"])
            if not 0 <= chunks <= chunks + sink <= len(arrays) or not header["timeline"] or not header["steps"]:
                raise ValueError(f"{chunks} chunks, {sink} of the beginning, {len(arrays)} arrays, or no prompt or steps")
            return cls(
                model=header["model"], fingerprint=header["fingerprint"],
                fingerprint_version=int(header.get("fingerprint_version", _VERSION_BEFORE_IT_WAS_WRITTEN)),
                session_id=header["session_id"], seed=int(header["seed"]),
                num_steps=int(header["num_steps"]), num_frames=None if header["num_frames"] is None else int(header["num_frames"]),
                codec=Codec(header["codec"]), first_chunk=int(header["first_chunk"]), latents=tuple(arrays[:chunks]),
                timeline=tuple(PromptEntry(int(c), p, int(n), bool(s), int(r), tuple(k)) for c, p, n, s, r, *k in header["timeline"]),
                steps=tuple((int(chunk), int(steps)) for chunk, steps in header["steps"]),
                guidance=float(header["guidance"]), negative_prompt=header["negative_prompt"],
                sink=tuple(arrays[chunks : chunks + sink]), given=_given(dict(zip(header["given"], arrays[chunks + sink :], strict=True))),
                tenant=None if header.get("tenant") is None else str(header["tenant"]),
                numerics=Numerics(*map(str, (*header.get("numerics", ("", "")), header.get("text_numerics", ""), rounds))),
                strength=None if header.get("strength") is None else float(header["strength"]),
                enhance=Enhancement(int(more), int(larger), int(slow)), enhancer=str(enhancer),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
            raise ValueError(f"no session record: {error}") from error


def _arrays(given: Conditioning | None) -> dict[str, NDArray[np.float32]]:
    """By name; `head` is the head, and a guide's name has a prefix."""
    if given is None:
        return {}
    head = {} if given.head is None else {_HEAD: given.head}
    return head | {_GUIDE + name: guide for name, guide in given.guides.items()}


def _given(arrays: dict[str, NDArray[np.float32]]) -> Conditioning | None:
    """The inverse."""
    guides = {name.removeprefix(_GUIDE): array for name, array in arrays.items() if name != _HEAD}
    return Conditioning(arrays.get(_HEAD), guides) if arrays else None


def _read(data: bytes, offset: int, shapes: list[list[int]]) -> list[NDArray[np.float32]]:
    """Raises ValueError: these are no shapes, or there are more bytes than they hold, or fewer. Nothing is allocated before that."""
    for shape in shapes:
        if not len(shape) <= _MAX_DIMENSIONS or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"a shape of {str(shape)[:64]}")
    counts = [math.prod(shape) for shape in shapes]
    if (expected := offset + sum(counts) * _FLOAT.itemsize) != len(data):
        raise ValueError(f"must be {expected} bytes by its header; got {len(data)}")
    arrays = []
    for shape, count in zip(shapes, counts, strict=True):
        arrays.append(np.frombuffer(data, _FLOAT, count, offset).astype(np.float32).reshape(shape))
        offset += count * _FLOAT.itemsize
    return arrays


def with_change(steps: tuple[tuple[int, int], ...], change: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Steps by chunk, with a newer change, which drops what was settled for its chunk and for later ones."""
    return (*(entry for entry in steps if entry[0] < change[0]), change)


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of a session its log holds.

    Attributes:
        grid: where its chunks begin.
        window: chunks that the next one is made from.
        keep: further chunks behind those.
        sink: the session's first chunks, for good.
    """

    grid: ChunkGrid
    window: int
    keep: int = 0
    sink: int = 0


class SessionLog:
    """The tail of a session, bounded.

    Attributes:
        numerics: of the newest chunk; before there is one, of the first prompt.

    Args:
        embedding: of the first prompt.
        steps: of the first chunks.
        extent: how much of the session is held.
        given: what the session was given besides its prompt.
        keys: that are held from the first chunk on.
    """

    def __init__(self, embedding: TextEmbedding, steps: int, extent: Extent, given: Conditioning | None = None, keys: Keys = ()) -> None:
        self._extent = extent
        self._given = given
        self._given_until = None if given is None else given.needed_until(extent.grid)
        self._latents: deque[Latents] = deque(maxlen=extent.window + extent.keep)
        self._sink: list[Latents] = []
        self.numerics = Numerics(text_encoder=embedding.numerics)
        self._next_chunk = 0
        # At most one entry for each chunk held, one in force before them, and what `restore` was given beyond.
        self._timeline: list[tuple[PromptEntry, TextEmbedding]] = [(PromptEntry(0, embedding.prompt, keys=keys), embedding)]
        self._steps: tuple[tuple[int, int], ...] = ((0, steps),)

    @property
    def next_chunk(self) -> int:
        return self._next_chunk

    @property
    def given(self) -> Conditioning | None:
        """What the session was given besides its prompt, as long as a chunk may have to be made anew from it."""
        return self._given

    @property
    def prompt(self) -> TextEmbedding:
        """In force for the next chunk."""
        return self._in_force[1]

    @property
    def keys(self) -> Keys:
        """Held for the next chunk."""
        return self._in_force[0].keys

    @property
    def _in_force(self) -> tuple[PromptEntry, TextEmbedding]:
        return next(each for each in reversed(self._timeline) if each[0].chunk <= self._next_chunk)

    @property
    def embeddings(self) -> tuple[TextEmbedding, ...]:
        """Of the prompts that are held, those to come among them."""
        return tuple(embedding for _, embedding in self._timeline)

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
        switches = (*(entry.chunk for entry, _ in self._timeline), *(chunk for chunk, _ in self._steps))
        return min((chunk for chunk in switches if chunk > self._next_chunk), default=None)

    @property
    def first_rewindable(self) -> int:
        """The earliest chunk that can be made anew from what is held."""
        first = self._next_chunk - len(self._latents)
        return min(self._next_chunk, first + self._extent.window) if first else 0

    def append(self, latents: Latents, numerics: Numerics | None = None) -> None:
        """The next chunk is made, by devices of these `numerics`."""
        self._latents.append(latents)
        self.numerics = (numerics or Numerics()).after(self.numerics)
        if self._next_chunk < self._extent.sink:
            self._sink.append(latents)
        self._next_chunk += 1
        first = self._next_chunk - len(self._latents)
        while len(self._timeline) > 1 and self._timeline[1][0].chunk <= first:
            del self._timeline[0]
        while len(self._steps) > 1 and self._steps[1][0] <= first:
            self._steps = self._steps[1:]
        if self._given_until is not None and self.first_rewindable >= self._given_until:
            self._given = None

    def change_prompt(
        self, embedding: TextEmbedding | None, chunk: int, keys: Keys | None = None, *, supersedes: bool = False, request_id: int = 0
    ) -> PromptEntry:
        """From `chunk` on, which is `first_rewindable` or later; what was settled or made for it or for later ones is dropped.

        Args:
            embedding, keys: None for the prompt, or the keys, that were set last.
            supersedes: chunks from `chunk` on have been handed out.
        """
        last, spoken = self._timeline[-1]
        embedding, keys, change = embedding or spoken, last.keys if keys is None else keys, last.change + 1
        dropped = [entry for entry, _ in self._timeline if entry.chunk >= chunk]
        entry = PromptEntry(chunk, embedding.prompt, change, supersedes or any(e.supersedes for e in dropped), request_id, keys)
        self._timeline = [*(kept for kept in self._timeline if kept[0].chunk < chunk), (entry, embedding)]
        while self._next_chunk > chunk:
            self._latents.pop()
            self._next_chunk -= 1
        del self._sink[self._next_chunk :]
        return entry

    def change_steps(self, steps: int, chunk: int) -> None:
        """From `chunk`, the next one or later, on; what was settled for it or for later ones is dropped."""
        self._steps = with_change(self._steps, (chunk, steps))

    def suffix(self) -> tuple[Latents, ...]:
        """Latents of the last `window` chunks, oldest first."""
        return tuple(self._latents)[-self._extent.window :]

    def sink(self, held: int) -> tuple[Latents, ...]:
        """Latents of the first chunks that are held for good, as far as they are not among the last `held`."""
        return tuple(self._sink[: max(0, self._next_chunk - held)])

    def tail(self) -> tuple[int, tuple[Latents, ...], tuple[PromptEntry, ...], tuple[tuple[int, int], ...]]:
        """All that is held: the first chunk, latents, and the prompts and steps in force since then."""
        prompts = tuple(entry for entry, _ in self._timeline)
        return self._next_chunk - len(self._latents), tuple(self._latents), prompts, self._steps

    @classmethod
    def restore(cls, record: SessionRecord, next_chunk: int, prompts: Iterable[TextEmbedding], extent: Extent) -> SessionLog:
        """The log as it stood before `next_chunk` was made, at most `record.next_chunk`; `prompts` is the timeline, embedded."""
        timeline = list(zip(record.timeline, prompts, strict=True))
        log = cls(timeline[0][1], record.num_steps, extent, record.given)
        kept = record.latents[: next_chunk - record.first_chunk]
        log._latents.extend(kept)
        log._sink = [*record.sink, *kept][: extent.sink] if record.first_chunk < extent.sink else list(record.sink)
        log._next_chunk = next_chunk
        log._timeline = timeline
        log._steps = record.steps
        log.numerics = record.numerics
        return log
