"""Viewers that cost little see the same events as others."""

from __future__ import annotations

import pytest

from bench.costs.watchers import SLACK_S, View
from bench.kit.readers import EventsReader, ReaderFailed

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
STARTED = b'event: started\ndata: {"fps": 24}\n\n'
FRAMES = b'event: frames\ndata: {"chunk_index":5,"first_frame":40,"frame_count":8,"data":["AAAA"]}\n\n'
SKIPPED = b'event: skipped\ndata: {"frames":16,"next_frame":64}\n\n'
ENDED = b'event: ended\ndata: {"reason":"stopped"}\n\n'
FOUND = [("started", 0), ("frames", 40), ("skipped", 16), ("ended", 0)]


async def test_events_are_read_wherever_the_answer_is_cut() -> None:
    body = HEAD + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (STARTED, FRAMES, SKIPPED, ENDED))
    for cut in range(len(body)):
        found: list[tuple[str, int]] = []
        reader = EventsReader(lambda event, number, found=found: found.append((event, number)))  # type: ignore[misc]  # bound in the loop
        reader.data_received(body[:cut])
        reader.data_received(body[cut:])
        reader.connection_lost(None)
        assert found == FOUND
        await reader.over


async def test_an_answer_that_is_none_of_a_session_is_an_error() -> None:
    reader = EventsReader(lambda *_: None)
    reader.data_received(b"HTTP/1.1 404 Not Found\r\n\r\n")
    with pytest.raises(ReaderFailed, match="404 Not Found"):
        await reader.over


def test_a_chunk_is_late_by_the_first_one_and_not_after_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("bench.costs.watchers.time.monotonic", lambda: now)
    view = View()
    view.note("frames", 0)
    now += 8 / 24 + SLACK_S - 0.01
    view.note("frames", 8)
    assert (view.chunks, view.late) == (2, 0)
    now += 8 / 24 + 0.02
    view.note("frames", 16)
    assert (view.late, view.late_frames) == (1, {16})
    view.note("skipped", 64)
    now += 60.0
    view.note("frames", 88)
    assert (view.late, view.skipped) == (1, 64)
