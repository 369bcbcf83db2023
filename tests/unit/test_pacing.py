import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.pacing import MediaTimeline, Pacer
from tests.fakes import ManualClock

FPS = 24.0


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


async def test_the_pacer_sleeps_until_the_frame_may_leave() -> None:
    clock = ManualClock()
    pacer = Pacer(MediaTimeline(FPS, max_lead_s=1.0), clock)
    pacer.sent(0)
    waiting = asyncio.create_task(pacer.wait(48))

    await clock.advance(0.99)
    assert not waiting.done()
    await clock.advance(0.02)
    assert waiting.done()
