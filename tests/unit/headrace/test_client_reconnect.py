"""The client over a connection that breaks: a second server stands on the port of the first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from headrace.client import BadRequest, ClientError, LiveEvent, LiveSession, Reconnect, Unavailable
from headrace.reconnect import Arrived
from headrace.v1 import video_pb2 as pb
from tests.fakes import FakeDenoiser, FakeEncoder, FakeStages, eventually
from tests.served import Served, serving
from tests.stores import FakeStore

CONFIG = FakeStages().config
PROMPT, OTHER = "a red circle", "a blue square"
SECONDS = 4.0
POLICY = Reconnect(give_up_after_s=20.0)


def door(store: FakeStore, port: int = 0, gate: asyncio.Semaphore | None = None) -> Any:
    return serving(FakeStages(FakeDenoiser(CONFIG, delay_s=0.01, gate=gate), keep_chunks=30), store=store, port=port)


@asynccontextmanager
async def pair() -> AsyncGenerator[tuple[Served, Any], None]:
    """A server, and how to put another one in its place; `store` may be given for one that knows nothing."""
    store = FakeStore()
    async with door(store) as one:
        port = int(one.address.rsplit(":", 1)[1])

        @asynccontextmanager
        async def replaced(*, drained: bool = False, other_store: FakeStore | None = None) -> AsyncGenerator[Served, None]:
            async with door(other_store or store, port) as two:
                if drained:
                    one.service.hand_over()  # as at the end of a grace in which they did not end
                await one.server.drain(grace_s=5 if drained else 0)
                yield two

        yield one, replaced


def frames(events: list[Any]) -> list[bytes]:
    return [bytes(data) for event in events if isinstance(event, pb.Frames) for data in event.data]


async def whole() -> list[bytes]:
    async with door(FakeStore()) as served:
        return frames([event async for event in served.client.stream(PROMPT, seconds=SECONDS, seed=1)])


@pytest.mark.parametrize("drained", [False, True])
async def test_a_stream_goes_on_at_the_next_server_and_only_a_gap_is_seen(drained: bool) -> None:
    async with asyncio.timeout(60), pair() as (one, replaced):
        events = one.client.stream(PROMPT, seconds=SECONDS, seed=1, reconnect=POLICY)
        got: list[Any] = [await anext(events) for _ in range(4)]
        async with replaced(drained=drained) as two:
            got += [event async for event in events]
            assert frames(got) == await whole()
            kinds = [type(event).__name__ for event in got]
            assert (kinds.count("Started"), kinds.count("Ended")) == (1, 1)
            assert got[-1].reason == pb.END_REASON_COMPLETED
            await two.nothing_left()


async def end_of(events: AsyncIterator[Any]) -> ClientError | None:
    """How a stream that is cut short ends: the error, or None for an Ended. A server that is stopped may not get its last word out."""
    last = None
    try:
        async for event in events:
            last = event
    except ClientError as error:
        return error
    assert isinstance(last, pb.Ended)
    assert last.reason == pb.END_REASON_SERVER_DRAINING
    return None


async def test_without_the_option_a_break_is_seen() -> None:
    async with asyncio.timeout(60), pair() as (one, replaced):
        events = one.client.stream(PROMPT, seconds=3600)
        await anext(events)
        async with replaced():
            await end_of(events)


@pytest.mark.parametrize("drained", [False, True])
async def test_a_session_that_nobody_knows_ends_as_it_would_have_without_trying(drained: bool) -> None:
    async with asyncio.timeout(60), pair() as (one, replaced):
        events = one.client.stream(PROMPT, seconds=3600, reconnect=POLICY)
        await anext(events)
        async with replaced(drained=drained, other_store=FakeStore()):
            error = await end_of(events)
        assert error is None or (isinstance(error.__cause__, ClientError) and error.__cause__.code is grpc.StatusCode.NOT_FOUND)
        assert error is None or not drained


async def test_a_gap_that_is_too_long_ends_the_session() -> None:
    async with asyncio.timeout(60), pair() as (one, _):
        events = one.client.stream(PROMPT, seconds=3600, reconnect=Reconnect(give_up_after_s=0.3))
        await anext(events)
        await one.server.drain(grace_s=0)
        await end_of(events)


async def test_a_refused_request_is_not_tried_again() -> None:
    async with pair() as (one, _), one.client.live("", reconnect=POLICY) as session:
        with pytest.raises(BadRequest):
            async for _event in session:
                pass


async def called(served: Served, rpc: str, policy: Reconnect | None) -> None:
    """One call to its end."""
    client = served.client
    if rpc == "generate":
        assert (await client.generate(PROMPT, seconds=0.1, reconnect=policy)).mp4
    elif rpc == "stream":
        assert frames([event async for event in client.stream(PROMPT, seconds=0.1, reconnect=policy)])
    else:
        async with client.live(PROMPT, seconds=2.0, reconnect=policy) as session:
            if policy is not None:
                await session.set_prompt(OTHER)  # perhaps into the call that is refused
            events = [event async for event in session]
        assert frames(events)
        assert [event.prompt for event in events if isinstance(event, pb.PromptAck)] == [OTHER]


RPCS = pytest.mark.parametrize("rpc", ["generate", "stream", "live"])


@RPCS
async def test_a_server_that_cannot_serve_yet_and_says_when_to_try_again_is_asked_again(rpc: str) -> None:
    encoder = FakeEncoder(unavailable=3)
    async with asyncio.timeout(60), serving(FakeStages(encoder=encoder, attempts=1, keep_chunks=30)) as served:
        await called(served, rpc, Reconnect(give_up_after_s=50.0, max_delay_s=0.01))
        assert encoder.unavailable == 0
        await served.nothing_left()


@RPCS
@pytest.mark.parametrize(
    "policy", [None, Reconnect(give_up_after_s=0.5, max_delay_s=60.0)], ids=["no policy", "too short a gap for the delay"]
)
async def test_a_server_that_cannot_serve_is_not_asked_again_sooner_than_it_says_nor_without_the_option(
    rpc: str, policy: Reconnect | None
) -> None:
    encoder = FakeEncoder(unavailable=100)
    async with asyncio.timeout(60), serving(FakeStages(encoder=encoder, attempts=1)) as served:
        with pytest.raises(Unavailable, match="try again in 2 s"):
            await called(served, rpc, policy)
        assert encoder.calls == 1


@RPCS
async def test_a_server_that_stays_unable_to_serve_is_given_up(rpc: str) -> None:
    encoder = FakeEncoder(unavailable=10**9)
    async with asyncio.timeout(60), serving(FakeStages(encoder=encoder, attempts=1)) as served:
        with pytest.raises(Unavailable):
            await called(served, rpc, Reconnect(give_up_after_s=0.05, max_delay_s=0.01))
        assert encoder.calls > 1


async def test_what_was_not_answered_is_said_again_and_answered_once() -> None:
    async with (
        asyncio.timeout(60),
        pair() as (one, replaced),
        one.client.live(PROMPT, seconds=SECONDS, seed=1, reconnect=POLICY) as session,
    ):
        reading = aiter(session)
        seen = await until(reading, pb.Frames)
        await session.pause()
        seen += await until(reading, pb.Paused)
        async with replaced() as two:
            # The connection is gone, and nobody has noticed yet.
            assert await session.set_prompt(OTHER) == 1
            await session.resume()
            seen += [event async for event in reading]
            await two.nothing_left()
    kinds = [type(event).__name__ for event in seen if not isinstance(event, (pb.UsageTick, pb.Frames))]
    assert kinds == ["Started", "Paused", "PromptAck", "Resumed", "Ended"]
    ack = next(event for event in seen if isinstance(event, pb.PromptAck))
    assert frames(seen)[: ack.first_frame] == (await whole())[: ack.first_frame]
    assert len(frames(seen)) == round(SECONDS * CONFIG.fps)


async def until(reading: AsyncIterator[LiveEvent], kind: type) -> list[LiveEvent]:
    seen = [await anext(reading)]
    while not isinstance(seen[-1], kind):
        seen.append(await anext(reading))
    return seen


async def test_leaving_the_context_in_a_gap_ends_everything() -> None:
    async with asyncio.timeout(60), pair() as (one, replaced):
        session: LiveSession = one.client.live(PROMPT, reconnect=POLICY)
        async with session:
            reading = asyncio.create_task(drain(session))
            await eventually(lambda: one.service.open_sessions == 1)
            async with replaced() as two:
                await eventually(lambda: two.service.open_sessions == 1)
                await session.__aexit__(None, None, None)
                await asyncio.gather(reading, return_exceptions=True)
                assert reading.done()
                await two.nothing_left()


async def drain(session: LiveSession) -> None:
    async for _ in session:
        pass


def test_delays_double_to_a_limit_and_the_first_try_is_at_once() -> None:
    policy = Reconnect(first_delay_s=0.1, max_delay_s=1.0)
    assert [policy.delay(n, 0.0) for n in range(6)] == pytest.approx([0, 0.1, 0.2, 0.4, 0.8, 1.0])
    assert policy.delay(1, 1.0) == pytest.approx(0.05)
    assert policy.delay(10_000, 0.0) == 1.0


def test_what_has_arrived_is_bounded_and_of_several_changes_for_a_frame_the_last_counts() -> None:
    arrived = Arrived()
    assert not arrived.resumable
    assert arrived.news(pb.Started(resume_token="t"))  # noqa: S106 - no secret
    assert not arrived.news(pb.Started(resume_token="t"))  # noqa: S106
    for n in range(100):
        arrived.news(pb.Frames(first_frame=8 * n, frame_count=8))
        arrived.news(pb.PromptAck(prompt=f"{n} a", first_frame=8 * n + 8))
        arrived.news(pb.PromptAck(prompt=f"{n} b", first_frame=8 * n + 8))
    resume = arrived.resume()
    assert resume.next_frame == 800
    assert [ack.prompt for ack in resume.acknowledged] == [f"{n} b" for n in range(68, 100)]
    assert issubclass(Unavailable, ClientError)
