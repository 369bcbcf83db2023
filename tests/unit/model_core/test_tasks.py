import asyncio
import threading

import pytest

from model_core.tasks import begun, cancel_and_wait, run_in_thread


async def test_a_cancelled_caller_waits_for_its_thread() -> None:
    running, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        running.set()
        go_on.wait(200)
        done.set()

    caller = asyncio.create_task(run_in_thread(work))
    await asyncio.to_thread(running.wait, 20)
    caller.cancel()
    await asyncio.sleep(0.01)
    assert not caller.done()

    go_on.set()

    with pytest.raises(asyncio.CancelledError):
        await caller
    assert done.is_set()


async def test_a_thread_s_result_and_error_come_back() -> None:
    assert await run_in_thread(int, "7") == 7
    with pytest.raises(ValueError, match="invalid literal"):
        await run_in_thread(int, "seven")


async def test_a_cancellation_while_waiting_for_helpers_is_passed_on_after_their_clean_up() -> None:
    cleaned = asyncio.Event()
    finish = asyncio.Event()

    async def helper() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await finish.wait()
            cleaned.set()

    task = asyncio.create_task(helper())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(cancel_and_wait(task))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0.01)
    assert not waiting.done()

    finish.set()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert cleaned.is_set()


async def test_how_a_helper_ends_does_not_matter() -> None:
    async def fail() -> None:
        raise ValueError("seen and dropped")

    failed = asyncio.create_task(fail())
    await asyncio.sleep(0)

    await cancel_and_wait(failed, asyncio.create_task(asyncio.sleep(100)))


async def test_work_that_does_not_wait_is_done_at_once() -> None:
    done: list[str] = []

    async def work() -> None:
        done.append("all")

    async def fails() -> None:
        raise ValueError("no")

    assert begun(work()) is None
    assert done == ["all"]
    with pytest.raises(ValueError, match="no"):
        begun(fails())


async def test_the_rest_of_work_goes_on_where_it_waits() -> None:
    gate, done = asyncio.Event(), []

    async def work() -> None:
        done.append("begun")
        await gate.wait()
        await asyncio.sleep(0)
        done.append("ended")

    rest = begun(work())
    assert rest is not None
    assert done == ["begun"]
    asyncio.get_running_loop().call_soon(gate.set)
    await rest
    assert done == ["begun", "ended"]


async def test_a_cancellation_reaches_the_rest_of_work() -> None:
    cleaned: list[bool] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    async def caller() -> None:
        rest = begun(work())
        assert rest is not None
        await rest

    task = asyncio.create_task(caller())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned == [True]
