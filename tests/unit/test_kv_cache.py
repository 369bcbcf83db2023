from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.engine.kv_cache import KVCache
from model_core.nn.causal_dit import MASKED, KeyValue
from tests.models import SMALL_DIT

TOKENS, WIDTH, WINDOW = SMALL_DIT.tokens_per_chunk, SMALL_DIT.width, SMALL_DIT.window


def chunk(value: float) -> list[KeyValue]:
    """Keys are `value` + layer, values the negative of that."""
    return [
        KeyValue(torch.full((1, TOKENS, WIDTH), value + layer), torch.full((1, TOKENS, WIDTH), -value - layer))
        for layer in range(SMALL_DIT.depth)
    ]  # fmt: skip


def by_chunk(rows: torch.Tensor) -> list[list[float]]:
    """`[B, M, D]` or `[B, M]` → a number a chunk, which all of its entries share."""
    parts = rows.reshape(len(rows), WINDOW, -1)
    assert (parts == parts[..., :1]).all()
    return parts[..., 0].tolist()


def test_an_empty_slot_is_zero_and_masked() -> None:
    cache = KVCache(SMALL_DIT, 2)
    layers, mask = cache.gather([cache.acquire()])
    assert len(layers) == SMALL_DIT.depth
    assert layers[0].key.shape == layers[0].value.shape == (1, WINDOW * TOKENS, WIDTH)
    assert mask.shape == (1, WINDOW * TOKENS)
    assert by_chunk(mask) == [[MASKED] * 3]
    assert not any(part.any() for layer in layers for part in layer)


def test_chunks_stand_at_the_right_oldest_first_and_the_oldest_goes() -> None:
    cache = KVCache(SMALL_DIT, 3)
    empty, short, full = (cache.acquire() for _ in range(3))
    cache.append(short, chunk(10))
    for value in (20, 30, 40, 50):
        cache.append(full, chunk(value))

    layers, mask = cache.gather([full, empty, short, full])

    for i, layer in enumerate(layers):
        assert by_chunk(layer.key) == [[30 + i, 40 + i, 50 + i], [0, 0, 0], [0, 0, 10 + i], [30 + i, 40 + i, 50 + i]]
        assert by_chunk(layer.value) == [[-30 - i, -40 - i, -50 - i], [0, 0, 0], [0, 0, -10 - i], [-30 - i, -40 - i, -50 - i]]
    assert by_chunk(mask) == [[0, 0, 0], [MASKED] * 3, [MASKED, MASKED, 0], [0, 0, 0]]


def test_a_slot_comes_back_empty() -> None:
    cache = KVCache(SMALL_DIT, 1)
    slot = cache.acquire()
    cache.append(slot, chunk(1))
    cache.release(slot)
    assert cache.acquire() == slot
    assert by_chunk(cache.gather([slot])[1]) == [[MASKED] * 3]


def test_using_what_one_does_not_hold_is_an_error() -> None:
    cache = KVCache(SMALL_DIT, 1)
    slot = cache.acquire()
    with pytest.raises(IndexError):
        cache.acquire()
    cache.release(slot)
    for use in (lambda: cache.release(slot), lambda: cache.append(slot, chunk(1)), lambda: cache.gather([slot])):
        with pytest.raises(KeyError):
            use()
    cache.check_integrity()


@settings(max_examples=50)
@given(st.lists(st.integers(0, 5), max_size=60))
def test_slots_are_neither_lost_nor_doubled(actions: list[int]) -> None:
    """An action below the number of held slots gives that one back; any other takes one if it can."""
    cache = KVCache(SMALL_DIT, 4)
    held: list[int] = []
    for action in actions:
        if action < len(held):
            cache.release(held.pop(action))
        elif cache.free:
            held.append(cache.acquire())
        cache.check_integrity()
        assert len(set(held)) == len(held) == cache.in_use == 4 - cache.free


def test_a_lost_slot_is_noticed() -> None:
    class Forgetful(KVCache):
        def release(self, slot: int) -> None:
            del self._windows[slot]

    cache = Forgetful(SMALL_DIT, 2)
    cache.release(cache.acquire())
    with pytest.raises(RuntimeError, match=r"free \[1\], in use \[\], of 2"):
        cache.check_integrity()
