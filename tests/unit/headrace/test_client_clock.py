"""The playout clock: what counts as late, as a gap, as a rate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.playout import REPLACE_GUARD_S, PlayoutClock

FPS = 8.0
CHUNK = 8  # one second of media


class Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def play(arrivals_s: list[float]) -> PlayoutClock:
    """A chunk at each of these seconds after the request."""
    time = Time()
    clock = PlayoutClock(time)
    for index, at in enumerate(arrivals_s):
        time.now_s = 100.0 + at
        clock.arrived(index * CHUNK, CHUNK, FPS)
    return clock


def test_nothing_arrived() -> None:
    stats = play([]).stats()
    assert stats.ttff_s is None
    assert (stats.frames, stats.fps, stats.late_frames, stats.wall_s) == (0, 0.0, 0, 0.0)


def test_a_stream_in_time() -> None:
    stats = play([0.5, 1.5, 2.5, 3.5]).stats()
    assert stats.ttff_s == pytest.approx(0.5)
    assert stats.frames == 32
    assert stats.fps == pytest.approx(FPS)
    assert stats.late_frames == 0
    assert stats.max_gap_s == pytest.approx(1.0)
    assert stats.wall_s == pytest.approx(3.5)


def test_first_frame_of_a_chunk_may_be_late_while_the_rest_is_not() -> None:
    # Frames 8..15 are due at 1.0, 1.125, ..., 1.875 after the first arrival; they come at 1.3.
    stats = play([0.5, 1.8]).stats()
    assert stats.late_frames == 3
    assert stats.max_late_s == pytest.approx(0.3)


def test_a_frame_that_comes_just_when_due_is_not_late() -> None:
    assert play([0.1 * 3, 0.1 * 3 + 1.0]).stats().late_frames == 0


def test_frames_ahead_of_time_make_up_for_a_gap() -> None:
    stats = play([0.2, 0.3, 0.4, 3.0]).stats()
    assert stats.late_frames == 0
    assert stats.max_gap_s == pytest.approx(2.6)


def test_one_batch_only_counts_from_the_request() -> None:
    assert play([2.0]).stats().fps == pytest.approx(CHUNK / 2.0)


def test_a_pause_is_neither_gap_nor_lateness() -> None:
    time = Time()
    clock = PlayoutClock(time)
    for index, at in enumerate([0.0, 1.0]):
        time.now_s = 100.0 + at
        clock.arrived(index * CHUNK, CHUNK, FPS)
    clock.paused()
    time.now_s = 160.0
    assert clock.arrived(16, CHUNK, FPS) == pytest.approx(160.0)
    time.now_s = 161.5
    assert clock.arrived(24, CHUNK, FPS) == pytest.approx(161.0)
    stats = clock.stats()
    assert stats.max_gap_s == pytest.approx(1.5)
    assert stats.late_frames == 4
    assert stats.fps == pytest.approx(16 / 2.5)


def test_due_times_follow_the_media_timeline() -> None:
    time = Time()
    clock = PlayoutClock(time)
    assert clock.arrived(0, CHUNK, FPS) == pytest.approx(100.0)
    time.now_s = 100.2
    assert clock.arrived(CHUNK, CHUNK, FPS) == pytest.approx(101.0)


@given(st.lists(st.floats(0.0, 3.0), min_size=1, max_size=20))
def test_late_frames_are_those_past_their_due_time(gaps_s: list[float]) -> None:
    arrivals = [sum(gaps_s[: i + 1]) for i in range(len(gaps_s))]
    stats = play(arrivals).stats()
    lateness = [(a - arrivals[0]) - n / FPS for i, a in enumerate(arrivals) for n in range(i * CHUNK, (i + 1) * CHUNK)]
    assert sum(s > 1e-3 for s in lateness) <= stats.late_frames <= sum(s > -1e-3 for s in lateness)
    assert stats.max_late_s == pytest.approx(max(0.0, *lateness), abs=1e-3)


def test_superseded_frames_count_once_and_what_is_due_soon_cannot_be_replaced() -> None:
    time = Time()
    clock = PlayoutClock(time)
    assert clock.replaceable() is None
    for index in range(3):
        clock.arrived(index * CHUNK, CHUNK, FPS)
    time.now_s += 1.0  # frame 8 is on screen
    assert clock.replaceable() == 8 + FPS * REPLACE_GUARD_S + 1
    assert clock.superseded(16) == 8
    clock.arrived(16, CHUNK, FPS)
    assert clock.stats().frames == 24
    assert clock.superseded(40) == 0
    clock.paused()
    assert clock.replaceable() is None


def test_what_new_prompts_took_lately_is_what_the_next_one_is_given() -> None:
    time = Time()
    clock = PlayoutClock(time)
    for index in range(4):
        clock.arrived(index * CHUNK, CHUNK, FPS)
    assert clock.replaceable() == FPS * REPLACE_GUARD_S + 1
    assert clock.superseded(8) == 24
    time.now_s += 0.75
    clock.arrived(8, CHUNK, FPS)  # the new prompt's first frames
    assert clock.replaceable() == 6 + 6 + 1  # frame 6 is on screen, and 6 more play before new ones can be here
    assert clock.superseded(16) == 0  # too late to replace anything: the frames come when it is their turn
    time.now_s += 5.0
    clock.arrived(16, CHUNK, FPS)
    assert clock.replaceable() == 46 + FPS * REPLACE_GUARD_S + 1  # a wait for one's turn is not taken for slowness, and old news fades
