from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.engine.slots import Slots


def test_using_what_one_does_not_hold_is_an_error() -> None:
    slots = Slots(1)
    slot = slots.acquire()
    with pytest.raises(IndexError):
        slots.acquire()
    slots.release(slot)
    with pytest.raises(KeyError):
        slots.release(slot)
    slots.check_integrity()


@settings(max_examples=50)
@given(st.lists(st.integers(0, 5), max_size=60))
def test_slots_are_neither_lost_nor_doubled(actions: list[int]) -> None:
    """An action below the number of held slots gives that one back; any other takes one if it can."""
    slots = Slots(4)
    held: list[int] = []
    for action in actions:
        if action < len(held):
            slots.release(held.pop(action))
        elif slots.free:
            held.append(slots.acquire())
        slots.check_integrity()
        assert len(set(held)) == len(held) == slots.in_use == 4 - slots.free


def test_a_lost_slot_is_noticed() -> None:
    class Forgetful(Slots):
        def release(self, slot: int) -> None:
            self._held.remove(slot)

    slots = Forgetful(2)
    slots.release(slots.acquire())
    with pytest.raises(RuntimeError, match=r"free \[1\], in use \[\], of 2"):
        slots.check_integrity()
