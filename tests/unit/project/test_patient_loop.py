from __future__ import annotations

import asyncio
import time

import pytest

from tests.patient_loop import MOST_S


async def test_a_second_in_which_the_process_stands_still_does_not_count() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    time.sleep(1.0)  # noqa: ASYNC251 - standing still is the point
    await asyncio.sleep(0)
    assert loop.time() - began <= 2 * MOST_S


async def test_whoever_is_ready_in_time_is_so_although_the_process_stood_still() -> None:
    async def late() -> str:
        for _ in range(3):
            time.sleep(0.1)  # noqa: ASYNC251
            await asyncio.sleep(0)
        return "here"

    assert await asyncio.wait_for(late(), 0.2) == "here"


async def test_a_wait_lasts_as_long_as_it_is_to() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 0.1)
    assert time.monotonic() - began >= 0.1


@pytest.mark.real_time
async def test_a_test_may_be_about_real_time() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    time.sleep(0.1)  # noqa: ASYNC251
    assert loop.time() - began >= 0.1
