import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.sessions.pacing import Allowance, MediaTimeline, Pacer
from tests.fakes import ManualClock

FPS = 24.0
CHUNK_S = 8 / FPS


def test_nothing_is_due_before_the_first_frame_was_sent() -> None:
    timeline = MediaTimeline(FPS, max_lead_s=1.0)

    assert timeline.due(240) is None
    assert timeline.delay(240, now=0.0) <= 0


@given(start=st.floats(0, 1e6), frame=st.integers(1, 100_000), lead=st.floats(0.01, 30))
def test_a_frame_may_leave_exactly_max_lead_before_it_is_due(start: float, frame: int, lead: float) -> None:
    timeline = MediaTimeline(FPS, lead)
    timeline.sent(0, start)

    delay = timeline.delay(frame, start)

    assert start + delay == pytest.approx(start + frame / FPS - lead, abs=1e-6)


def test_no_lead_means_no_pacing() -> None:
    timeline = MediaTimeline(FPS, max_lead_s=0.0)
    timeline.sent(0, 0.0)

    assert timeline.delay(10_000, now=0.0) <= 0


def test_lateness_counts_from_the_first_frame_and_is_zero_on_time() -> None:
    timeline = MediaTimeline(FPS, max_lead_s=1.0)

    assert timeline.sent(0, 10.0) == 0
    assert timeline.sent(24, 10.5) == 0
    assert timeline.sent(48, 12.0) == 0
    assert timeline.sent(72, 13.25) == pytest.approx(0.25)


@given(pauses=st.lists(st.tuples(st.floats(0.1, 5), st.floats(0.1, 50)), max_size=8))
def test_pauses_shift_the_timeline_by_their_length(pauses: list[tuple[float, float]]) -> None:
    timeline = MediaTimeline(FPS, max_lead_s=1.0)
    timeline.sent(0, 0.0)
    now = 0.0
    for playing, paused in pauses:
        now += playing
        timeline.pause(now)
        now += paused
        timeline.resume(now)

    assert timeline.due(24) == pytest.approx(1.0 + sum(paused for _, paused in pauses))


def test_a_second_pause_or_resume_changes_nothing() -> None:
    timeline = MediaTimeline(FPS, max_lead_s=1.0)
    timeline.sent(0, 0.0)
    timeline.pause(1.0)
    timeline.pause(2.0)
    timeline.resume(3.0)
    timeline.resume(9.0)

    assert timeline.due(0) == pytest.approx(2.0)


def test_a_pause_before_the_first_frame_does_not_count() -> None:
    timeline = MediaTimeline(FPS, max_lead_s=1.0)
    timeline.pause(0.0)
    timeline.resume(5.0)
    timeline.sent(0, 6.0)

    assert timeline.due(24) == pytest.approx(7.0)


def test_a_viewer_who_takes_nothing_for_long_is_not_late_when_he_comes_back() -> None:
    timeline = MediaTimeline(FPS, max_lead_s=1.0)
    timeline.sent(0, 0.0)
    timeline.blocked(55.0)

    assert timeline.sent(24, 55.5) == 0
    assert timeline.stalled_s == pytest.approx(54.5)
    assert timeline.due(48) == pytest.approx(56.5)
    assert timeline.delay(72, now=55.5) == pytest.approx(1.0)


def test_what_the_server_takes_is_late_and_stays_due_when_it_was() -> None:
    timeline = MediaTimeline(FPS, max_lead_s=1.0)
    timeline.sent(0, 0.0)

    assert timeline.sent(24, 4.0) == pytest.approx(3.0)
    assert timeline.stalled_s == 0
    assert timeline.due(48) == pytest.approx(2.0)


def test_of_a_chunk_that_both_held_up_each_has_his_part() -> None:
    timeline = MediaTimeline(FPS, max_lead_s=1.0)
    timeline.sent(0, 0.0)
    timeline.blocked(2.0)

    assert timeline.sent(24, 6.0) == pytest.approx(3.0)
    assert timeline.stalled_s == pytest.approx(2.0)
    assert timeline.due(24) == pytest.approx(3.0)


def test_to_be_slow_while_there_is_time_moves_nothing() -> None:
    timeline = MediaTimeline(FPS, max_lead_s=30.0)
    timeline.sent(0, 0.0)
    timeline.blocked(20.0)

    assert timeline.sent(24 * 25, 20.0) == 0
    assert timeline.stalled_s == 0
    assert timeline.due(24 * 30) == pytest.approx(30.0)


def test_one_who_asks_for_frames_anew_that_were_due_long_ago_is_not_ahead_of_others() -> None:
    timeline = MediaTimeline(FPS, max_lead_s=1.0)
    timeline.sent(0, 0.0)
    timeline.sent(24 * 8, 7.0)
    timeline.asked(24, now=7.0)

    assert timeline.due(24) == pytest.approx(7.0)
    timeline.asked(24 * 4, now=7.0)  # not due yet: nothing moves
    assert timeline.due(24 * 4) == pytest.approx(10.0)


@given(
    story=st.lists(
        st.tuples(st.sampled_from(["stall", "pause", "again", "again in a pause", "play"]), st.floats(0, 60, allow_subnormal=False)),
        max_size=30,
    ),
    lead=st.floats(1e-9, 30),
)
def test_nothing_that_a_viewer_does_makes_him_late(story: list[tuple[str, float]], lead: float) -> None:
    """The server has every chunk ready: whoever is late then is so by his own doing, and that counts for nothing."""
    timeline, now, frame = MediaTimeline(FPS, lead), 0.0, 0
    timeline.sent(0, now)
    for what, seconds in story:
        match what:
            case "pause":
                timeline.pause(now)
                now += seconds
                timeline.resume(now)
            case "again":
                frame = max(0, frame - 24 * int(seconds))
                timeline.asked(frame, now)
            case "again in a pause":
                timeline.pause(now)
                frame = max(0, frame - 24 * int(seconds))
                left_s = max(0.0, _due(timeline, frame) - now)
                timeline.asked(frame, now + seconds / 2)
                now += seconds
                timeline.resume(now)
                assert _due(timeline, frame) - now == pytest.approx(left_s, abs=1e-6)
            case _:
                frame += 24
                now += max(0.0, timeline.delay(frame, now))
                blocked = seconds if what == "stall" else 0.0
                timeline.blocked(blocked)
                now += blocked
                assert timeline.sent(frame, now) == pytest.approx(0, abs=1e-6)
        assert _due(timeline, frame) >= now - 1e-6


def _due(timeline: MediaTimeline, frame: int) -> float:
    due = timeline.due(frame)
    assert due is not None
    return due


def test_what_is_asked_for_in_a_pause_counts_the_pause_once() -> None:
    timeline = MediaTimeline(FPS, max_lead_s=1.0)
    timeline.sent(0, 0.0)
    timeline.pause(2.0)
    timeline.asked(24, now=12.0)
    timeline.resume(32.0)

    assert timeline.due(24) == pytest.approx(32.0)
    assert timeline.delay(24, now=32.0) <= 0


async def test_the_pacer_goes_on_where_the_viewer_does() -> None:
    clock = ManualClock()
    pacer = Pacer(MediaTimeline(FPS, max_lead_s=1.0), clock, CHUNK_S)
    pacer.sent(0)
    await clock.advance(5)
    pacer.pause()
    await clock.advance(10)
    pacer.resume(24)  # a chunk that had been due before the pause, and was lost with its leg

    assert pacer.due_s(24) == 0


@given(takes=st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 3)), max_size=40), most=st.floats(0, 4), per_s=st.floats(0.05, 5))
def test_an_allowance_gives_no_more_than_it_had_what_was_added_and_one_more(
    takes: list[tuple[float, float]], most: float, per_s: float
) -> None:
    allowance, now, taken = Allowance(most, per_s), 100.0, 0.0
    since = now
    for passed, amount in takes:
        now += passed
        wait_s = allowance.wait_s(now)
        if wait_s == 0:
            assert taken <= most + per_s * (now - since) + 1e-6
            allowance.take(amount, now)
            taken += amount
        else:
            assert allowance.wait_s(now + wait_s + 1e-6) == 0


def test_of_frames_that_come_again_those_count_that_had_not_been_played() -> None:
    timeline = MediaTimeline(FPS, max_lead_s=1.0)
    assert timeline.lead_lost_s(0, 24, now=5.0) == 0  # nothing was sent
    timeline.sent(0, 10.0)

    assert timeline.lead_lost_s(24 * 4 - 12, 24 * 4, now=13.0) == pytest.approx(0.5)
    assert timeline.lead_lost_s(0, 24 * 4, now=13.0) == pytest.approx(1.0)
    assert timeline.lead_lost_s(0, 24 * 4, now=15.0) == 0
    timeline.pause(13.0)
    assert timeline.lead_lost_s(0, 24 * 4, now=15.0) == pytest.approx(1.0)


async def test_a_job_may_have_frames_made_again_at_any_time_but_no_leg() -> None:
    clock = ManualClock()
    pacer = Pacer(MediaTimeline(FPS, max_lead_s=0.0), clock, CHUNK_S)
    pacer.sent(0)
    for _ in range(3):
        assert pacer.may_begin()
        await pacer.begin()
        pacer.replaced(0, 24 * 10)

    assert pacer.may_replace()
    assert not pacer.may_begin()
    beginning = asyncio.create_task(pacer.begin())
    await clock.advance(4 * CHUNK_S - 0.01)
    assert not beginning.done()
    await clock.advance(0.02)
    assert beginning.done()


async def test_the_pacer_sleeps_until_the_frame_may_leave() -> None:
    clock = ManualClock()
    pacer = Pacer(MediaTimeline(FPS, max_lead_s=1.0), clock, CHUNK_S)
    pacer.sent(0)
    waiting = asyncio.create_task(pacer.wait(48))

    await clock.advance(0.99)
    assert not waiting.done()
    await clock.advance(0.02)
    assert waiting.done()
