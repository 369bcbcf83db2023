"""The client against a scripted server: typed errors, no hanging, no work left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import grpc
import grpc.aio
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from headrace.client import BadRequest, Busy, ClientError, HeadraceClient, StreamEvent, Unavailable, Violation
from headrace.v1 import video_pb2 as pb
from headrace.v1 import video_pb2_grpc

TIMEOUT_S = 200.0  # only bounds a failing test
Context = grpc.aio.ServicerContext[pb.StreamRequest, pb.StreamResponse]
LiveContext = grpc.aio.ServicerContext[pb.LiveRequest, pb.LiveResponse]


class Scripted(video_pb2_grpc.VideoServiceServicer):
    """Stream: refuses by prompt, else one Frames a second for ever. Live: acknowledges prompts, ends at stop."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.controls: list[str] = []

    async def Stream(self, request: pb.StreamRequest, context: Context) -> AsyncGenerator[pb.StreamResponse, None]:  # noqa: N802 - named by the wire
        await _refuse(request.spec.prompt, context)
        yield pb.StreamResponse(started=pb.Started(model="m", seed=request.spec.seed, fps=24))
        try:
            while True:
                yield pb.StreamResponse(frames=pb.Frames(frame_count=8))
                await asyncio.sleep(1)
        finally:
            self.cancelled.set()

    async def Live(self, requests: AsyncIterator[pb.LiveRequest], context: LiveContext) -> AsyncGenerator[pb.LiveResponse, None]:  # noqa: N802
        async for request in requests:
            action = request.WhichOneof("action") or "none"
            self.controls.append(action)
            if action == "start":
                await _refuse(request.start.spec.prompt, context)
                yield pb.LiveResponse(started=pb.Started(model="m"))
            elif action == "prompt":
                ack = pb.PromptAck(prompt=request.prompt.prompt, first_frame=8, request_id=request.prompt.request_id)
                yield pb.LiveResponse(prompt_ack=ack)
            elif action == "stop":
                yield pb.LiveResponse(ended=pb.Ended(reason=pb.END_REASON_STOPPED))
                return

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> pb.GenerateResponse:  # noqa: N802
        await _refuse(request.spec.prompt, context)
        return pb.GenerateResponse(mp4=b"mp4", started=pb.Started(seed=request.spec.seed))


async def _refuse(prompt: str, context: grpc.aio.ServicerContext[object, object] | Context | LiveContext) -> None:
    """Abort as a prompt called `bad`, `busy`, `down` or `bare` asks for."""
    bad = error_details_pb2.BadRequest()
    for field in ("spec.prompt", "spec.seconds"):
        bad.field_violations.add(field=field, description=f"{field} is wrong")
    retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=1, nanos=500_000_000))
    answers = {
        "bad": (code_pb2.INVALID_ARGUMENT, bad),
        "busy": (code_pb2.RESOURCE_EXHAUSTED, retry),
        "down": (code_pb2.UNAVAILABLE, retry),
    }
    if prompt == "bare":
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no details")
    if prompt in answers:
        code, detail = answers[prompt]
        packed = any_pb2.Any()
        packed.Pack(detail)
        await context.abort_with_status(rpc_status.to_status(status_pb2.Status(code=code, message="told so", details=[packed])))


@asynccontextmanager
async def serving() -> AsyncGenerator[tuple[Scripted, HeadraceClient], None]:
    server, servicer = grpc.aio.server(), Scripted()
    video_pb2_grpc.add_VideoServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with asyncio.timeout(TIMEOUT_S), HeadraceClient(f"127.0.0.1:{port}") as client:
            yield servicer, client
    finally:
        await server.stop(0)


async def call(client: HeadraceClient, rpc: str, prompt: str) -> None:
    if rpc == "generate":
        await client.generate(prompt, seconds=1)
    elif rpc == "stream":
        async for _ in client.stream(prompt, seconds=1):
            pass
    else:
        async with client.live(prompt) as session:
            async for _ in session:
                pass


async def fail(client: HeadraceClient, rpc: str, prompt: str) -> ClientError:
    with pytest.raises(ClientError) as caught:
        await call(client, rpc, prompt)
    return caught.value


@pytest.mark.parametrize("rpc", ["generate", "stream", "live"])
async def test_refusals_are_typed(rpc: str) -> None:
    async with serving() as (_, client):
        bad = await fail(client, rpc, "bad")
        assert isinstance(bad, BadRequest)
        assert bad.violations == (Violation("spec.prompt", "spec.prompt is wrong"), Violation("spec.seconds", "spec.seconds is wrong"))
        assert str(bad) == "spec.prompt: spec.prompt is wrong; spec.seconds: spec.seconds is wrong"
        busy = await fail(client, rpc, "busy")
        assert isinstance(busy, Busy)
        assert busy.retry_after_s == 1.5
        down = await fail(client, rpc, "down")
        assert isinstance(down, Unavailable)
        assert (down.retry_after_s, str(down)) == (1.5, "told so")
        bare = await fail(client, rpc, "bare")
        assert isinstance(bare, BadRequest)
        assert (bare.violations, str(bare)) == ((), "no details")


@pytest.mark.parametrize("rpc", ["generate", "stream", "live"])
async def test_nobody_there(rpc: str) -> None:
    async with asyncio.timeout(TIMEOUT_S), HeadraceClient("127.0.0.1:1") as client:
        error = await fail(client, rpc, "a")
    assert isinstance(error, Unavailable)
    assert error.code is grpc.StatusCode.UNAVAILABLE
    assert error.retry_after_s is None


async def test_closing_a_stream_cancels_the_call() -> None:
    async with serving() as (servicer, client):
        async with aclosing(client.stream("a", seconds=1, seed=2**64 - 1)) as events:
            started = await anext(events)
            assert isinstance(started, pb.Started)
            assert started.seed == 2**64 - 1
            assert isinstance(await anext(events), pb.Frames)
            assert not servicer.cancelled.is_set()
        await servicer.cancelled.wait()


async def test_a_deadline_ends_a_stream() -> None:
    async with serving() as (servicer, client):
        events: list[StreamEvent] = []

        async def watch(timeout_s: float) -> None:
            async for event in client.stream("a", seconds=1, timeout_s=timeout_s):
                events.append(event)  # noqa: PERF401 - what came before the error counts

        for timeout_s in (0.5, 5.0):  # a busy machine may need longer before the call has arrived
            with pytest.raises(ClientError) as caught:
                await watch(timeout_s)
            assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
            if events:
                break
        await servicer.cancelled.wait()


async def test_live_controls_reach_the_server_in_order() -> None:
    async with serving() as (servicer, client), client.live("a") as session:
        assert isinstance(await anext(aiter(session)), pb.Started)
        assert await session.set_prompt("b") == 1
        assert await session.set_prompt("c") == 2
        await session.pause()
        await session.resume()
        await session.stop()
        rest = [event async for event in session]
        assert [(e.prompt, e.request_id) for e in rest if isinstance(e, pb.PromptAck)] == [("b", 1), ("c", 2)]
        assert isinstance(rest[-1], pb.Ended)
        assert servicer.controls == ["start", "prompt", "prompt", "pause", "resume", "stop"]


async def test_controls_after_the_end() -> None:
    async with serving() as (_, client), client.live("a") as session:
        await session.stop()
        assert len([event async for event in session]) == 2
        await session.stop()
        with pytest.raises(ClientError, match="over"):
            await session.set_prompt("b")


async def test_a_session_is_entered_once_and_before_use() -> None:
    async with serving() as (_, client):
        session = client.live("a")
        with pytest.raises(RuntimeError, match="enter"):
            await session.stop()
        async with session:
            pass
        with pytest.raises(RuntimeError, match="once"):
            await session.__aenter__()


async def test_numbers_that_do_not_fit_are_refused_before_the_call() -> None:
    async with serving() as (_, client):
        with pytest.raises(ValueError, match="range"):
            await client.generate("a", seconds=1, seed=2**64)


async def test_zero_is_a_seed() -> None:
    async with serving() as (_, client):
        answer = await client.generate("a", seconds=1, seed=0)
        assert (answer.mp4, answer.started.seed) == (b"mp4", 0)


async def test_health_of_a_server_without_the_health_service() -> None:
    async with serving() as (_, client):
        with pytest.raises(ClientError) as caught:
            await client.health()
        assert caught.value.code is grpc.StatusCode.UNIMPLEMENTED
