"""Which requests get a line: each of them, but for polls that are like one that has a line already."""

from __future__ import annotations

import logging

import pytest

from doors.http.access_log import Poller, Polls
from tests.http_served import http_serving


def test_a_poller_gets_one_line_in_a_while_and_the_rest_is_counted() -> None:
    polls = Polls(every_s=10.0)
    assert polls.due_in(0.0) is None
    assert [polls.written("own.get_job", "acme", who, 3.0) for who in ("a", "b", "a", "a")] == [True, True, False, False]
    assert polls.due_in(5.0) == 8.0
    assert polls.told() == [(Poller("own.get_job", "acme", "a"), 2)]
    assert polls.due_in(13.0) is None
    assert polls.written("own.get_job", "acme", "a", 14.0)
    assert polls.told() == []


def test_pollers_beyond_the_bound_are_counted_together() -> None:
    polls = Polls(every_s=10.0, most=2)
    assert [polls.written("see", "t", f"{n}", 0.0) for n in range(5)] == [True, True, False, False, False]
    assert polls.told() == [(Poller("see", "", ""), 3)]


async def test_polls_are_counted_and_what_fails_has_its_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "doors.http.access_log"):
        async with http_serving() as served:
            for _ in range(5):
                assert (await served.client.get("/v1/models")).status_code == 200
                assert (await served.client.get("/v1/models/none")).status_code == 404
    lines = [record.getMessage() for record in caplog.records if record.name == "doors.http.access_log"]
    assert sum("/v1/models own.list_models 200" in line for line in lines) == 1
    assert sum("/v1/models/none own.get_model 404" in line for line in lines) == 5
    assert lines[-1].startswith("GET own.list_models 200, 4 more in about 10 s; ")
