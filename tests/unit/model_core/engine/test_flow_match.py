from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_core.diffusion.flow_match import add_noise, chunk_noise, euler_step, timesteps

SHAPE = (16, 2, 8, 8)
seeds = st.integers(0, 2**64 - 1)


@given(st.integers(1, 64), st.floats(1.0, 12.0))
def test_times_fall_from_noise_to_clean(num_steps: int, shift: float) -> None:
    times = timesteps(num_steps, shift)
    assert len(times) == num_steps + 1
    assert (times[0], times[-1]) == (1.0, 0.0)
    assert all(a > b for a, b in pairwise(times))


def test_shift_moves_times_toward_noise() -> None:
    assert timesteps(4, 1.0) == (1.0, 0.75, 0.5, 0.25, 0.0)
    assert timesteps(4, 3.0) == pytest.approx((1.0, 0.9, 0.75, 0.5, 0.0))


def test_the_last_step_returns_the_prediction_exactly() -> None:
    x_t, x0 = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0)).split(1)
    assert torch.equal(euler_step(x_t, x0, torch.tensor([0.3]), torch.tensor([0.0])), x0)


def test_a_true_prediction_walks_along_the_path_of_the_noise() -> None:
    """With the clean chunk as prediction, every step lands on `add_noise` at its time; rows are at different times."""
    clean, noise = (torch.stack([chunk_noise(seed, i, SHAPE) for i in range(3)]) for seed in (1, 2))
    t = torch.tensor([1.0, 0.9, 0.5])
    t_next = torch.tensor([0.9, 0.5, 0.2])
    there = euler_step(add_noise(clean, noise, t), clean, t, t_next)
    torch.testing.assert_close(there, add_noise(clean, noise, t_next), rtol=1e-5, atol=1e-6)


def test_the_ends_of_the_path_are_clean_and_noise() -> None:
    clean, noise = chunk_noise(1, 0, SHAPE)[None], chunk_noise(2, 0, SHAPE)[None]
    assert torch.equal(add_noise(clean, noise, torch.tensor([0.0])), clean)
    assert torch.equal(add_noise(clean, noise, torch.tensor([1.0])), noise)


@given(seeds, st.integers(0, 10**6))
def test_noise_is_a_pure_function(seed: int, index: int) -> None:
    first = chunk_noise(seed, index, SHAPE)
    torch.randn(3)  # the global generator has no part in it
    assert torch.equal(first, chunk_noise(seed, index, SHAPE))
    assert first.shape == SHAPE
    assert first.dtype == torch.float32


@given(seeds, st.integers(0, 10**6), seeds, st.integers(0, 10**6))
def test_noise_differs_for_each_seed_and_each_chunk(seed: int, index: int, other_seed: int, other_index: int) -> None:
    noise = chunk_noise(seed, index, SHAPE)
    others = {(seed, index + 1), ((seed + 1) % 2**64, index), (other_seed, other_index)} - {(seed, index)}
    for other in others:
        assert abs(torch.corrcoef(torch.stack([noise.flatten(), chunk_noise(*other, SHAPE).flatten()]))[0, 1]) < 0.2


def test_no_two_of_many_chunks_share_their_noise() -> None:
    first = {chunk_noise(seed, index, (4,)).numpy().tobytes() for seed in range(40) for index in range(40)}
    assert len(first) == 1600


def test_noise_is_standard_normal() -> None:
    noise = torch.stack([chunk_noise(3, index, SHAPE) for index in range(100)]).flatten()
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    assert abs((noise.abs() < 1).float().mean() - 0.6827) < 0.01
