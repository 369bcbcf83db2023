from __future__ import annotations

from collections import deque

import torch

from model_core.nn.causal_dit import MASKED, KeyValue
from model_core.nn.window import gather
from tests.models import SMALL_DIT

TOKENS, WIDTH, WINDOW = SMALL_DIT.tokens_per_chunk, SMALL_DIT.width, SMALL_DIT.window
EMPTY = torch.zeros(1, TOKENS, WIDTH)


def chunk(value: float) -> list[KeyValue]:
    """Keys are `value` + layer, values the negative of that."""
    return [
        KeyValue(torch.full((1, TOKENS, WIDTH), value + layer), torch.full((1, TOKENS, WIDTH), -value - layer))
        for layer in range(SMALL_DIT.depth)
    ]


def by_chunk(rows: torch.Tensor) -> list[list[float]]:
    """`[B, M, D]` or `[B, M]` → a number a chunk, which all of its entries share."""
    parts = rows.reshape(len(rows), WINDOW, -1)
    assert (parts == parts[..., :1]).all()
    return parts[..., 0].tolist()


def test_an_empty_window_is_zero_and_masked() -> None:
    layers, mask = gather(SMALL_DIT, [[]], EMPTY)
    assert len(layers) == SMALL_DIT.depth
    assert layers[0].key.shape == layers[0].value.shape == (1, WINDOW * TOKENS, WIDTH)
    assert mask.shape == (1, WINDOW * TOKENS)
    assert by_chunk(mask) == [[MASKED] * 3]
    assert not any(part.any() for layer in layers for part in layer)


def test_chunks_stand_at_the_right_oldest_first() -> None:
    full = deque((chunk(value) for value in (20, 30, 40, 50)), maxlen=WINDOW)
    layers, mask = gather(SMALL_DIT, [full, [], [chunk(10)], full], EMPTY)

    for i, layer in enumerate(layers):
        assert by_chunk(layer.key) == [[30 + i, 40 + i, 50 + i], [0, 0, 0], [0, 0, 10 + i], [30 + i, 40 + i, 50 + i]]
        assert by_chunk(layer.value) == [[-30 - i, -40 - i, -50 - i], [0, 0, 0], [0, 0, -10 - i], [-30 - i, -40 - i, -50 - i]]
    assert by_chunk(mask) == [[0, 0, 0], [MASKED] * 3, [MASKED, MASKED, 0], [0, 0, 0]]
