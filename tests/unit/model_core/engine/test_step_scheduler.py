from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_core.buckets import bucket_for
from model_core.engine.step_scheduler import RowView, StepCosts, schedule, slack

MAX_LEAD = 2
COMFORT_S = 0.5
FREE = StepCosts((1, 2, 4, 8), (0.0, 0.0, 0.0, 0.0))
LINEAR = StepCosts((1, 2, 4, 8), (0.01, 0.02, 0.04, 0.08))

costs = st.lists(st.floats(0, 0.2), min_size=4, max_size=4).map(lambda times: StepCosts((1, 2, 4, 8), tuple(sorted(times))))
views = st.lists(
    st.builds(
        RowView,
        slot=st.integers(0, 40),
        due=st.floats(-2, 5),
        remaining_steps=st.integers(1, 8),
        waiting_chunks=st.integers(0, 3),
        last_turn=st.integers(-1, 50),
        finished=st.booleans(),
    ),
    max_size=20,
    unique_by=lambda row: row.slot,
)


def row(slot: int, due: float, remaining: int = 4, waiting: int = 0, last_turn: int = -1) -> RowView:
    return RowView(slot, due, remaining, waiting, last_turn)


def pick(rows: list[RowView], costs: StepCosts = FREE, now: float = 0.0) -> tuple[int, ...]:
    return schedule(rows, costs, MAX_LEAD, COMFORT_S, now)


def test_the_least_slack_comes_first_and_those_with_slack_to_spare_take_turns() -> None:
    rows = [row(0, 9.0, last_turn=3), row(1, 0.3), row(2, 0.1), row(3, 5.0, last_turn=1), row(4, -0.1, waiting=2)]
    assert pick(rows) == (2, 1, 3, 0)


def test_only_rows_of_the_first_one_s_group_go_along() -> None:
    rows = [replace(row(0, 0.3), group="chunk"), replace(row(1, 0.1), group="first chunk"), replace(row(2, 9.0), group="first chunk")]
    assert pick(rows) == (1, 2)


def test_work_left_counts_against_the_deadline() -> None:
    """Due later, but with more steps to go."""
    assert pick([row(0, 0.10, remaining=1), row(1, 0.12, remaining=8)], LINEAR)[0] == 1


def test_a_row_does_not_join_where_it_would_make_one_ahead_of_it_late() -> None:
    tight, other = row(0, 0.045), row(1, 0.3)
    assert slack(tight, 0.0, LINEAR.of(1)) > 0 > slack(tight, 0.0, LINEAR.of(2))
    assert pick([tight, other], LINEAR) == (0,)


def test_one_that_is_late_already_holds_nobody_back() -> None:
    assert pick([row(0, -1.0), row(1, 0.3), row(2, 9.0)], LINEAR) == (0, 1, 2)


def test_padding_is_free_to_join() -> None:
    """A third row would run in the bucket of four; the fourth costs nothing more."""
    assert pick([row(slot, 0.17) for slot in range(4)], LINEAR) == (0, 1, 2, 3)


@given(views, costs)
def test_only_ready_rows_once_within_the_largest_bucket_and_never_idle(rows: list[RowView], costs: StepCosts) -> None:
    chosen = pick(rows, costs)
    able = {r.slot for r in rows if not r.finished and r.waiting_chunks < MAX_LEAD}
    assert len(set(chosen)) == len(chosen) <= costs.buckets[-1]
    assert set(chosen) <= able
    assert bool(chosen) == bool(able)


@given(views, costs, st.randoms(use_true_random=False))
def test_it_depends_on_the_rows_and_not_on_their_order(rows: list[RowView], costs: StepCosts, random: Random) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert pick(shuffled, costs) == pick(rows, costs)


@given(views)
def test_without_cost_every_free_place_is_used(rows: list[RowView]) -> None:
    able = [r for r in rows if not r.finished and r.waiting_chunks < MAX_LEAD]
    assert len(pick(rows)) == min(8, len(able))


@given(views, costs, st.integers(0, 19), st.floats(0, 3))
def test_a_row_that_is_chosen_stays_chosen_with_less_slack(rows: list[RowView], costs: StepCosts, index: int, less: float) -> None:
    """Monotone in slack, as long as the row was on time before and after, or late before and after: being saved may cost company."""
    chosen = pick(rows, costs)
    picked = [r for r in rows if r.slot in chosen]
    if not picked:
        return
    target = picked[index % len(picked)]
    nearer = [replace(r, due=r.due - less) if r is target else r for r in rows]
    assert target.slot in pick(nearer, costs)


class Turns:
    """Steps rows as the engine does: everyone needs `steps` steps a chunk; `due` moves on a chunk's length at each."""

    def __init__(self, chunk_s: list[float], steps: int = 2) -> None:
        self.steps = steps
        self.chunk_s = chunk_s
        self.rows = {slot: row(slot, due=chunk_s[slot], remaining=steps) for slot in range(len(chunk_s))}
        self.of: Counter[int] = Counter(dict.fromkeys(self.rows, 0))
        self.now = 0.0

    def step(self, costs: StepCosts) -> tuple[int, ...]:
        chosen = pick(list(self.rows.values()), costs, self.now)
        self.now += costs.of(max(1, len(chosen)))
        for slot in chosen:
            r = replace(self.rows[slot], last_turn=self.of.total(), remaining_steps=self.rows[slot].remaining_steps - 1)
            if r.remaining_steps == 0:
                r = replace(r, remaining_steps=self.steps, due=r.due + self.chunk_s[slot])
            self.rows[slot] = r
            self.of[slot] += 1
        return chosen


@settings(max_examples=50)
@given(st.lists(st.floats(0.05, 3.0), min_size=1, max_size=24))
def test_nobody_starves_however_overloaded(chunk_s: list[float]) -> None:
    """Slack of those who wait only falls, so their turn comes: bounded by the longest deadline and the work of all."""
    turns = Turns(chunk_s)
    waited = Counter[int]()
    bound_s = max(chunk_s) + COMFORT_S + 4 * len(chunk_s) * LINEAR.of(8)
    since = dict.fromkeys(turns.rows, 0.0)
    for _ in range(400):
        for slot in turns.step(LINEAR):
            since[slot] = turns.now
        for slot, last in since.items():
            # A row far ahead of its deadlines may rest as long as it stays ahead.
            if turns.rows[slot].due - turns.now < COMFORT_S:
                waited[slot] = max(waited[slot], int((turns.now - last) > bound_s))
    assert not any(waited.values())


def test_a_load_that_fits_is_never_late() -> None:
    """Eight live rows of 2 steps at 10 ms a row: 160 ms of work a chunk of 333 ms."""
    turns = Turns([0.333] * 8)
    for _ in range(300):
        turns.step(LINEAR)
        assert all(r.due >= turns.now for r in turns.rows.values())


@pytest.mark.parametrize(("rows", "bucket"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8)])
def test_the_smallest_bucket_that_holds_the_rows(rows: int, bucket: int) -> None:
    assert bucket_for(rows, (1, 2, 4, 8)) == bucket


def test_too_many_rows_for_every_bucket() -> None:
    with pytest.raises(ValueError, match=r"9 rows do not fit the buckets \(1, 2, 4, 8\)"):
        bucket_for(9, (1, 2, 4, 8))
