"""Keys and values of the sessions a replica holds: one slot a session, each a window of committed chunks.

A slot is a list of chunks, oldest first; a commit appends one and drops the oldest, which replaces references and copies nothing.
`gather` lays the slots of a batch side by side in the fixed shape that the denoise graph reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from model_core.config import DiTConfig
from model_core.nn.causal_dit import MASKED, KeyValue

ChunkKeyValues = list[KeyValue]  # a layer each, `[1, N, D]`


class KVCache:
    """`slots` windows. Not thread-safe: the engine's thread owns it."""

    def __init__(self, config: DiTConfig, slots: int) -> None:
        self._config = config
        self._free = list(range(slots))[::-1]
        self._windows: dict[int, deque[ChunkKeyValues]] = {}
        self._slots = slots
        self._empty = torch.zeros(1, config.tokens_per_chunk, config.width)

    @property
    def in_use(self) -> int:
        return len(self._windows)

    @property
    def free(self) -> int:
        return len(self._free)

    def acquire(self) -> int:
        """Take a free slot, empty.

        Raises:
            IndexError: none is free; ask `free` first.
        """
        slot = self._free.pop()
        self._windows[slot] = deque(maxlen=self._config.window)
        return slot

    def release(self, slot: int) -> None:
        """Give a slot back; its tensors are dropped.

        Raises:
            KeyError: the slot is not in use.
        """
        del self._windows[slot]
        self._free.append(slot)

    def append(self, slot: int, chunk: ChunkKeyValues) -> None:
        """Write one committed chunk, dropping the oldest of a full window."""
        self._windows[slot].append(chunk)

    def gather(self, slots: Sequence[int]) -> tuple[list[KeyValue], Tensor]:
        """Windows of `slots` as B rows: a layer each `[B, M, D]`, and the additive mask `[B, M]`. Missing chunks lead, zero and masked."""
        windows = [self._windows[slot] for slot in slots]
        span, tokens = self._config.window, self._config.tokens_per_chunk
        mask = torch.zeros(len(slots), span * tokens)
        for row, window in enumerate(windows):
            mask[row, : (span - len(window)) * tokens] = MASKED
        layers = []
        for layer in range(self._config.depth):
            key, value = (
                torch.cat([self._row(window, layer, part) for window in windows], 0) for part in (0, 1)
            )  # fmt: skip
            layers.append(KeyValue(key, value))
        return layers, mask

    def check_integrity(self) -> None:
        """Every slot is either free or in use, once.

        Raises:
            RuntimeError: a slot was lost or doubled.
        """
        seen = sorted([*self._free, *self._windows])
        if seen != list(range(self._slots)):
            raise RuntimeError(f"cache slots are inconsistent: free {sorted(self._free)}, in use {sorted(self._windows)}, of {self._slots}")

    def _row(self, window: deque[ChunkKeyValues], layer: int, part: int) -> Tensor:
        missing = [self._empty] * (self._config.window - len(window))
        return torch.cat([*missing, *(chunk[layer][part] for chunk in window)], 1)
