"""How events are written to those who watch: when pictures are due, and what is made once for all."""

from __future__ import annotations

import asyncio

from doors.http.own.formats import ReplacingJpegs
from service.events import Skipped
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
