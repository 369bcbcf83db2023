"""What a decoder remembers after some chunks, kept for a while: the leg that opens next often goes on where one has just ended.

A memory is a function of the last clean chunks alone, so it is kept under their digests and can stand in for rebuilding it from a suffix,
whoever's session that is. Losing one costs time and changes nothing.

The empty key stands for nothing before, and nothing is ever kept under it: a session that begins, begins fresh. A decoder that remembers
no chunks, such as one of whole clips, therefore keeps nothing at all.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor

from model_core.families.interface import Memory
from model_core.types import Latents

Key = tuple[bytes, ...]


def digest(latents: Latents) -> bytes:
    """Of one chunk `[C, F, H, W]`: its shape, its type and its values."""
    made = hashlib.blake2b(f"{latents.shape} {latents.dtype} ".encode(), digest_size=16)
    made.update(latents.tobytes())
    return made.digest()


class Memories:
    """Bounded by `max_bytes`; the least recently used go first. For one thread.

    Args:
        chunks: how many of the last chunks a memory is a function of; 0 where nothing is to be kept.
        max_bytes: of all tensors in it.
    """

    def __init__(self, chunks: int, max_bytes: int) -> None:
        self._chunks, self._max_bytes = chunks, max_bytes
        self._held: OrderedDict[Key, tuple[Memory, int]] = OrderedDict()
        self._bytes = 0

    def key(self, suffix: Iterable[Latents]) -> Key:
        """Of the memory after the chunks of `suffix`, all there were or at least as many as matter. Empty for a session that begins."""
        return self._cut(tuple(digest(latents) for latents in suffix))

    def next_key(self, key: Key, latents: Latents) -> Key:
        """Of the memory one chunk later."""
        return self._cut((*key, digest(latents)))

    def get(self, key: Key) -> Memory | None:
        if key not in self._held:
            return None
        self._held.move_to_end(key)
        return self._held[key][0]

    def put(self, key: Key, memory: Memory) -> Memory:
        """Returns it as it is kept; under the empty key nothing is."""
        if not key:
            return memory
        self._bytes -= self._held.pop(key, (None, 0))[1]
        memory = _alone(memory)
        size = _bytes(memory)
        self._held[key] = memory, size
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._bytes -= self._held.popitem(last=False)[1][1]
        return memory

    def _cut(self, key: Key) -> Key:
        return key[max(0, len(key) - self._chunks) :]


def _alone(value: Any) -> Any:
    """The same, without what its tensors are parts of: the last frames of an activation would keep all of it."""
    match value:
        case Tensor():
            return value.clone() if value.untyped_storage().nbytes() > value.nbytes else value
        case list() | tuple():
            return type(value)([_alone(part) for part in value])
        case dict():
            return {name: _alone(part) for name, part in value.items()}
    if not is_dataclass(value) or isinstance(value, type):
        return value
    return replace(value, **{field.name: _alone(getattr(value, field.name)) for field in fields(value)})


def _bytes(value: Any) -> int:
    """Of the tensors in a memory."""
    return sum(tensor.nbytes for tensor in _tensors(value))


def all_finite(value: Any) -> bool:
    """Whether no tensor in a memory holds NaN or infinity."""
    return all(bool(tensor.isfinite().all()) for tensor in _tensors(value))


def _tensors(value: Any) -> Iterator[Tensor]:
    match value:
        case Tensor():
            yield value
        case list() | tuple():
            for part in value:
                yield from _tensors(part)
        case dict():
            yield from _tensors([*value.values()])
        case _ if is_dataclass(value):
            for field in fields(value):
                yield from _tensors(getattr(value, field.name))
