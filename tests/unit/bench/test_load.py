from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bench.kit.load import Arrival, Heard, Mix, burst, offer, poisson, ramp, record, replay, together

MIX = Mix(live=0.5, job=0.3, idle=0.2, mean_s=5.0, least_s=1.0)


def test_the_same_seed_gives_the_same_arrivals_and_another_seed_others() -> None:
    assert poisson(1, 60, 2.0, MIX) == poisson(1, 60, 2.0, MIX)
    assert poisson(1, 60, 2.0, MIX) != poisson(2, 60, 2.0, MIX)


def test_arrivals_come_at_the_rate_and_in_the_mix_that_were_asked_for() -> None:
    arrivals = poisson(3, 2000, 2.0, MIX)
    assert len(arrivals) == pytest.approx(4000, rel=0.1)
    assert sum(a.kind == "live" for a in arrivals) / len(arrivals) == pytest.approx(0.5, abs=0.05)
    assert sum(a.kind == "idle" for a in arrivals) / len(arrivals) == pytest.approx(0.2, abs=0.05)
    assert sum(a.seconds for a in arrivals) / len(arrivals) == pytest.approx(5.0, rel=0.1)
    assert all(1.0 <= a.seconds <= 20.0 and 0 <= a.at_s < 2000 for a in arrivals)
    assert [a.at_s for a in arrivals] == sorted(a.at_s for a in arrivals)


def test_a_burst_comes_at_the_end_of_each_period() -> None:
    arrivals = burst(4, 1000, 1.0, 10.0, period_s=10.0, burst_s=2.0, mix=MIX)
    within = sum(a.at_s % 10.0 >= 8.0 for a in arrivals)
    assert within == pytest.approx(2000, rel=0.1)
    assert len(arrivals) - within == pytest.approx(800, rel=0.15)


def test_a_ramp_grows() -> None:
    arrivals = ramp(5, 1000, 0.0, 4.0, MIX)
    early, late = sum(a.at_s < 500 for a in arrivals), sum(a.at_s >= 500 for a in arrivals)
    assert late == pytest.approx(3 * early, rel=0.2)  # the areas under a straight line


def test_nobody_comes_at_rate_zero() -> None:
    assert poisson(1, 60, 0.0, MIX) == []


def test_a_trace_survives_its_file(tmp_path: Path) -> None:
    arrivals = poisson(6, 30, 1.0, MIX)
    record(arrivals, tmp_path / "trace.csv")
    back = replay(tmp_path / "trace.csv")
    assert [(a.kind, a.seed) for a in back] == [(a.kind, a.seed) for a in arrivals]
    assert [a.at_s for a in back] == pytest.approx([a.at_s for a in arrivals], abs=1e-6)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("1,live,x,3", "seconds must be a number, 0 or more; got 'x'"),
        ("-1,live,2,3", "at_s must be a number, 0 or more; got '-1'"),
        ("1,tv,2,3", "kind must be one of live, job, idle; got 'tv'"),
        ("1,live,2,-3", "seed must be a whole number, 0 or more; got '-3'"),
        ("1,live,nan,3", "seconds must be a number"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: str, says: str) -> None:
    (tmp_path / "trace.csv").write_text(f"at_s,kind,seconds,seed\n0,live,1,1\n{row}\n")
    with pytest.raises(ValueError, match=r"trace\.csv:3") as raised:
        replay(tmp_path / "trace.csv")
    assert says in str(raised.value)


def test_wrong_columns_are_named(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("when,kind\n")
    with pytest.raises(ValueError, match="columns must be at_s,kind,seconds,seed"):
        replay(tmp_path / "trace.csv")


async def test_times_count_from_when_a_call_was_meant_to_be_sent() -> None:
    now = 100.0

    def clock() -> float:
        return now

    async def play(heard: Heard) -> None:
        nonlocal now
        now += 5.0  # a server that takes five seconds for each, and a client that does nothing else meanwhile
        heard.add(0, 8, 1.0)
        heard.result = "completed"

    heard = await offer([Arrival(0.0, "live", 1.0, 1), Arrival(0.0, "live", 1.0, 2)], play, 1.0, clock)
    assert [one.ttff_s for one in heard] == [5.0, 10.0]  # the second had waited for the first
    assert [one.behind_s for one in heard] == [0.0, 5.0]


async def test_one_callers_failure_is_its_result_and_the_rest_go_on() -> None:
    async def play(heard: Heard) -> None:
        if heard.arrival.seed == 0:
            raise ConnectionError("refused")
        heard.result = "completed"

    assert [heard.result for heard in await offer(together(2, 1.0), play, 5.0)] == ["ConnectionError: refused", "completed"]


async def test_what_still_runs_after_the_grace_is_cut_off() -> None:
    closed = asyncio.Event()

    async def play(heard: Heard) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            closed.set()

    (heard,) = await offer(together(1, 1.0), play, 0.0)
    assert heard.result == "cut off"
    assert closed.is_set()


def test_together_is_spread_evenly() -> None:
    assert [a.at_s for a in together(4, 1.0, spread_s=2.0)] == [0.0, 0.5, 1.0, 1.5]
