"""Room for so many sessions at once. A slot is a number; what a session keeps on the device is its leg's, and goes with it."""

from __future__ import annotations


class Slots:
    """`count` slots. Not thread-safe: the engine's thread owns it."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = list(range(count))[::-1]
        self._held: set[int] = set()

    @property
    def in_use(self) -> int:
        return len(self._held)

    @property
    def free(self) -> int:
        return len(self._free)

    def acquire(self) -> int:
        """Take a free slot.

        Raises:
            IndexError: none is free; ask `free` first.
        """
        slot = self._free.pop()
        self._held.add(slot)
        return slot

    def release(self, slot: int) -> None:
        """Give a slot back.

        Raises:
            KeyError: the slot is not in use.
        """
        self._held.remove(slot)
        self._free.append(slot)

    def check_integrity(self) -> None:
        """Every slot is either free or in use, once.

        Raises:
            RuntimeError: a slot was lost or doubled.
        """
        if sorted([*self._free, *self._held]) != list(range(self._count)):
            raise RuntimeError(f"slots are inconsistent: free {sorted(self._free)}, in use {sorted(self._held)}, of {self._count}")
