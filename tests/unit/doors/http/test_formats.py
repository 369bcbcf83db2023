"""How events are written to those who watch: when pictures are due, and what is made once for all."""

from __future__ import annotations

import asyncio
import threading

import pytest

from doors.http.own import formats
from doors.http.own.formats import ReplacingJpegs, ServerSentEvents
from service.events import Event, Shown, Skipped
from service.watching.show import Item
from tests.fakes import eventually
from tests.unit.service.test_watching_show import STARTED, frames


async def test_a_picture_behind_a_gap_is_shown_at_once() -> None:
    written: list[bytes] = []

    async def write(data: bytes) -> None:
        written.append(data)

    shown = ReplacingJpegs(write)
    async with asyncio.timeout(20):
        for event in (STARTED, frames(0), Skipped(8 * 199, 8 * 200), frames(200)):
            await shown.send(event)
    assert len(written) == 2


@pytest.mark.parametrize("size", [8, 200_000])
async def test_an_event_is_encoded_once_for_all_who_watch(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, made, go_on = formats.encoded, list[int](), threading.Event()

    def slowly(event: Event | Shown) -> bytes:
        made.append(1)
        assert size < 1000 or go_on.wait(200)
        return encode(event)

    monkeypatch.setattr(formats, "encoded", slowly)
    item, written = Item(frames(0, size)), list[bytes]()

    async def write(data: bytes) -> None:
        written.append(data)

    showing = [asyncio.create_task(ServerSentEvents(write).show(item)) for _ in range(3)]
    await eventually(lambda: len(made) > 0)
    go_on.set()
    await asyncio.gather(*showing)
    assert len(made) == 1
    assert len({id(data) for data in written}) == 1
    assert len(written) == 3
