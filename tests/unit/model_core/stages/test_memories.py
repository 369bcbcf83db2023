"""What decoders remember, by the chunks that it follows from."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from model_core.stages.memories import Memories, digest


def chunk(value: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.full((1, 2, 2, 2), value, np.float32)


def memory(floats: int) -> list[torch.Tensor]:
    return [torch.zeros(floats)]


def test_a_memory_is_found_by_the_last_chunks_and_no_others() -> None:
    memories = Memories(chunks=2, max_bytes=1000)
    key = memories.key([chunk(1), chunk(2), chunk(3)])
    held = memories.put(key, memory(4))
    assert memories.get(memories.key([chunk(9), chunk(2), chunk(3)])) is held
    assert memories.get(memories.next_key(memories.key([chunk(2)]), chunk(3))) is held
    for other in ([chunk(3)], [chunk(3), chunk(2)], [chunk(2), chunk(4)], []):
        assert memories.get(memories.key(other)) is None


@pytest.mark.parametrize("chunks", [0, 1])
def test_nothing_is_kept_for_what_nothing_came_before(chunks: int) -> None:
    """A decoder of whole clips remembers no chunks: after one clip, the next must begin as the first did."""
    memories = Memories(chunks, max_bytes=1000)
    after = memories.next_key(memories.key([]), chunk(1))
    held = memory(4)
    assert memories.put(memories.key([]), held) is held
    memories.put(after, memory(4))
    assert memories.get(memories.key([])) is None
    assert (memories.get(after) is None) == (chunks == 0)


def test_latents_of_another_shape_are_others() -> None:
    assert digest(chunk(1)) != digest(chunk(1).reshape(2, 1, 2, 2))


def test_what_was_used_last_stays_within_the_bound() -> None:
    memories = Memories(chunks=1, max_bytes=80)
    keys = [memories.key([chunk(n)]) for n in range(4)]
    for key in keys[:2]:
        memories.put(key, memory(10))
    assert memories.get(keys[0]) is not None
    memories.put(keys[2], memory(10))
    assert [memories.get(key) is not None for key in keys] == [True, False, True, False]
    memories.put(keys[2], memory(1))  # in place of the larger one
    memories.put(keys[3], memory(9))
    assert [memories.get(key) is not None for key in keys] == [True, False, True, True]
    memories.put(keys[1], memory(21))
    assert not any(memories.get(key) for key in keys)


def test_what_a_memory_is_a_part_of_is_not_kept() -> None:
    activation = torch.arange(40.0).reshape(2, 20)
    kept = Memories(1, 1000).put((b"a",), [activation[:, -3:], activation])
    assert [part.untyped_storage().nbytes() for part in kept] == [6 * 4, 40 * 4]
    assert torch.equal(kept[0], activation[:, -3:])
    assert kept[1] is activation


@dataclass(frozen=True)
class Kept:
    frames: int
    features: list[torch.Tensor]
    by_name: dict[str, torch.Tensor]


@pytest.mark.parametrize(
    "held", [torch.zeros(10), [torch.zeros(5), (torch.zeros(5), None)], Kept(3, [torch.zeros(4)], {"a": torch.zeros(6)})]
)
def test_all_tensors_count(held: object) -> None:
    fits, not_quite = Memories(1, 40), Memories(1, 39)
    for memories in (fits, not_quite):
        memories.put((b"key",), held)
    assert fits.get((b"key",)) is not None
    assert not_quite.get((b"key",)) is None
