"""One view of a session over several connections: what is shown once, what is told as missing, and when it is over."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import grpc
import pytest

from headrace.errors import ClientError
from headrace.reconnect import Reconnect
from headrace.v1 import video_pb2 as pb
from headrace.watch import WatchEvent, watching

FAST = Reconnect(give_up_after_s=5.0, first_delay_s=0.001, max_delay_s=0.002)
ENDED = pb.Ended(reason=pb.END_REASON_COMPLETED)
DRAINING = pb.Ended(reason=pb.END_REASON_SERVER_DRAINING)
BROKEN, GONE, BUSY = (ClientError(code, code.name) for code in (
    grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.RESOURCE_EXHAUSTED,
))  # fmt: skip
Part = WatchEvent | ClientError


def started(next_frame: int) -> pb.Started:
    return pb.Started(session_id="s", next_frame=next_frame)


def frames(first: int, count: int = 8) -> pb.Frames:
    return pb.Frames(first_frame=first, frame_count=count)


def connections(*parts: Sequence[Part]) -> Callable[[], AsyncGenerator[WatchEvent, None]]:
    """One after the other; the last one again and again."""
    left = list(parts)

    async def attempt() -> AsyncGenerator[WatchEvent, None]:
        for part in left.pop(0) if len(left) > 1 else left[0]:
            if isinstance(part, ClientError):
                raise part
            yield part

    return attempt


async def seen(attempt: Callable[[], AsyncGenerator[WatchEvent, None]], policy: Reconnect | None = FAST) -> list[WatchEvent]:
    async with aclosing(watching(attempt, policy)) as events:
        return [event async for event in events]


@pytest.mark.parametrize("lost", [BROKEN, DRAINING])
async def test_a_new_connection_goes_on_and_shows_nothing_twice(lost: Part) -> None:
    prompt = pb.PromptAck(prompt="p", first_frame=8, change=1)
    attempt = connections(
        [started(0), frames(0), prompt, frames(8), lost],
        [GONE],
        [started(8), prompt, frames(8), pb.Paused(next_frame=16), frames(16), ENDED],
    )
    assert await seen(attempt) == [started(0), frames(0), prompt, frames(8), pb.Paused(next_frame=16), frames(16), ENDED]


async def test_what_was_missed_meanwhile_is_told() -> None:
    attempt = connections([started(0), frames(0), BROKEN], [BUSY], [started(24), frames(24), frames(32), ENDED])
    assert await seen(attempt) == [started(0), frames(0), pb.Skipped(frames=16, next_frame=24), frames(24), frames(32), ENDED]


async def test_frames_that_a_new_prompt_replaces_are_shown_again() -> None:
    prompt = pb.PromptAck(prompt="p", first_frame=8, change=1)
    attempt = connections([started(0), frames(0), frames(8), BROKEN], [started(8), frames(8), prompt, frames(8), ENDED])
    assert await seen(attempt) == [started(0), frames(0), frames(8), prompt, frames(8), ENDED]


async def test_parts_of_a_fragment_are_all_shown() -> None:
    attempt = connections(
        [started(0), frames(0, 0), frames(0, 0), frames(0), frames(8, 0), BROKEN], [started(8), frames(8, 0), frames(8), ENDED]
    )
    assert await seen(attempt) == [started(0), frames(0, 0), frames(0, 0), frames(0), frames(8, 0), frames(8, 0), frames(8), ENDED]


@pytest.mark.parametrize("error", [BROKEN, GONE, BUSY])
async def test_a_view_that_has_not_begun_is_not_tried_again(error: ClientError) -> None:
    with pytest.raises(ClientError) as caught:
        await seen(connections([error], [started(0), ENDED]))
    assert caught.value is error


async def test_a_session_that_is_over_is_not_waited_for() -> None:
    with pytest.raises(ClientError) as caught:
        await seen(connections([started(0), GONE], [started(0), ENDED]))
    assert caught.value is GONE


async def test_without_a_policy_there_is_one_connection() -> None:
    assert await seen(connections([started(0), DRAINING], [started(0), ENDED]), None) == [started(0), DRAINING]
    with pytest.raises(ClientError):
        await seen(connections([started(0), BROKEN], [started(0), ENDED]), None)


async def test_whoever_waits_for_too_long_is_told_what_was_lost_first() -> None:
    random.seed(1)
    patience = Reconnect(give_up_after_s=0.05, first_delay_s=0.01, max_delay_s=0.01)
    assert await seen(connections([started(0), DRAINING], [GONE]), patience) == [started(0), DRAINING]
    with pytest.raises(ClientError) as caught:
        await seen(connections([started(0), BROKEN], [GONE]), patience)
    assert caught.value is BROKEN
