from __future__ import annotations

import pytest

from bench.kit.load import Arrival, Chunk, Heard
from bench.kit.tally import chunk_ms, figures, gaps, held, lateness, next_count, quantile, stall_s

FPS = 8.0


def heard(*at_s: float, seconds: float = 3.0, result: str = "completed", intended: float = 0.0) -> Heard:
    """A chunk a second."""
    chunks = [Chunk(at, 8 * n, 8, compute_s=0.25) for n, at in enumerate(at_s)]
    return Heard(Arrival(0.0, "live", seconds, 0), intended, lambda: 0.0, result, chunks=chunks)


def test_lateness_counts_from_the_first_arrival_or_from_the_allowance() -> None:
    one = heard(0.5, 1.4, 2.75)
    assert lateness(one, FPS) == pytest.approx([0.0, -0.1, 0.25])
    assert lateness(one, FPS, start_s=1.0) == pytest.approx([-0.5, -0.6, -0.25])
    assert lateness(heard(), FPS) == []


def test_a_session_that_waits_its_turn_is_late_although_it_plays_smoothly() -> None:
    waited = heard(5.0, 6.0, 7.0)
    assert held(waited, FPS)
    assert not held(waited, FPS, start_s=1.0)


def test_a_session_is_held_if_all_came_and_nearly_all_on_time() -> None:
    assert held(heard(0.5, 1.5, 2.5), FPS, 1.0)
    assert not held(heard(0.5, 1.5, 3.5), FPS, 1.0)  # a third late
    assert not held(heard(0.5, 1.5), FPS, 1.0)  # something is missing
    assert not held(heard(0.5, 1.5, 2.5, result="cut off"), FPS, 1.0)


def test_a_stall_moves_everything_after_it() -> None:
    assert stall_s(heard(0.0, 1.0, 2.5, 3.5), FPS) == pytest.approx(0.5)  # the last is no later than the stall before it
    assert stall_s(heard(0.0, 0.5), FPS) == 0.0
    assert stall_s(heard(), FPS) == 0.0


def test_figures_of_a_run() -> None:
    found = figures([heard(0.5, 1.5, 2.5), heard(0.5, 1.5, 3.5), heard(result="refused")], FPS, start_s=1.0)
    assert (found.sessions, found.held, found.failed, found.chunks) == (3, 1, 1, 6)
    assert found.on_time_share == pytest.approx(5 / 9, abs=1e-4)  # what never came was not on time
    assert found.overhead_p50_ms == 250.0
    assert (found.gap_p50_ms, found.gap_p99_ms) == (1000.0, 2000.0)
    assert found.stall_share == pytest.approx(1 / 7, abs=1e-4)


def test_figures_of_nothing() -> None:
    assert figures([], FPS).on_time_share == 0.0
    assert chunk_ms([]) == 0.0
    assert quantile([], 0.5) == 0.0


def test_time_a_chunk_is_from_the_first_call_to_the_last_arrival() -> None:
    assert chunk_ms([heard(1.0, 2.0, intended=10.0), heard(1.0, 2.0, intended=12.0)]) == 1000.0


def test_gaps_lie_between_neighbours() -> None:
    assert gaps(heard(0.5, 1.5, 3.0)) == [1.0, 1.5]


@pytest.mark.parametrize("border", [0, 1, 5, 9, 16, 31, 40])
def test_the_search_ends_at_the_border(border: int) -> None:
    tried: dict[int, bool] = {}
    while (count := next_count(tried, start=6, most=40)) is not None:
        assert count not in tried
        assert 1 <= count <= 40
        tried[count] = count <= border
    assert max((count for count, ok in tried.items() if ok), default=0) == border
    assert len(tried) <= 10
