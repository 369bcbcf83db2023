"""Pauses and takeovers as callers see them: who keeps a slot, who waits for one, and what a refused resume leaves alone."""

from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest

from autoscaling.admission.brownout import BrownOutConfig
from autoscaling.admission.decide import AdmissionConfig, Tenant
from headrace.client import Busy, HeadraceClient, LiveSession
from headrace.v1 import video_pb2 as pb
from model_core.session_log import SessionRecord
from model_core.types import TextEmbedding
from service.records.store import LeaseState
from tests.fakes import FakeDenoiser, FakeEncoder, FakeStages, eventually
from tests.served import Served, live_call, read_all, serving, stream_call
from tests.stores import FakeStore

CONFIG = FakeStages().config
PROMPT = "a red circle"
AT_ONCE = AdmissionConfig(BrownOutConfig(()), max_waiting=4, max_wait_s=1e9, hold_s=0.0, max_aside=2)


def slow() -> FakeStages:
    return FakeStages(FakeDenoiser(CONFIG, delay_s=0.005), keep_chunks=50)


async def until(session: LiveSession, kind: type) -> Any:
    async for event in session:
        if isinstance(event, kind):
            return event
    raise AssertionError(f"ended without {kind.__name__}")


async def playing(stack: AsyncExitStack, served: Served) -> LiveSession:
    session = await stack.enter_async_context(served.client.live(PROMPT))
    await until(session, pb.Frames)
    return session


async def paused(stack: AsyncExitStack, served: Served) -> LiveSession:
    session = await playing(stack, served)
    await session.pause()
    await until(session, pb.Paused)
    return session


async def test_paused_sessions_do_not_keep_newcomers_out_and_wait_for_a_slot_when_they_go_on() -> None:
    async with serving(slow(), max_sessions=2, policy=AT_ONCE) as served:
        async with AsyncExitStack() as stack:
            first, second = await paused(stack, served), await paused(stack, served)
            third = await playing(stack, served)
            await first.resume()
            await until(first, pb.Resumed)
            await until(first, pb.Frames)
            await second.resume()
            assert await until(second, pb.QueuePosition) == pb.QueuePosition(position=1)
            await third.stop()
            await until(second, pb.Resumed)
            await until(second, pb.Frames)
        await served.nothing_left()


async def test_one_that_waits_to_go_on_can_be_stopped() -> None:
    async with serving(slow(), max_sessions=1, policy=AT_ONCE) as served:
        async with AsyncExitStack() as stack:
            first = await paused(stack, served)
            await playing(stack, served)
            await first.resume()
            await until(first, pb.QueuePosition)
            await first.stop()
            assert (await until(first, pb.Ended)).reason == pb.END_REASON_STOPPED
        await served.nothing_left()


async def test_where_too_many_pause_the_next_one_ends_and_can_be_resumed() -> None:
    async with serving(slow(), max_sessions=8, policy=AT_ONCE) as served:
        async with AsyncExitStack() as stack:
            for _ in range(2):
                await paused(stack, served)
            third = await stack.enter_async_context(served.client.live(PROMPT))
            token = (await until(third, pb.Started)).resume_token
            await third.pause()
            await until(third, pb.Paused)
            await playing(stack, served)  # time passes
            ended = await until(third, pb.Ended)
            assert ended.reason == pb.END_REASON_PAUSED
            async with grpc.aio.insecure_channel(served.address) as channel:
                call = live_call(channel)
                point = pb.SessionResume(token=token, next_frame=ended.usage.frames_sent)
                await call.write(pb.LiveRequest(start=pb.LiveStart(resume=point)))
                assert (await call.read()).HasField("started")
                call.cancel()
            assert served.metric("calls_total", rpc="Live", outcome="paused") == 1
        await served.nothing_left()


QUOTA = AdmissionConfig(BrownOutConfig(()), max_waiting=0, tenants={"small": Tenant(1, max_sessions=1)})


async def started(channel: grpc.aio.Channel, tenant: str, request: pb.StreamRequest) -> tuple[Any, Any]:
    call = stream_call(channel, request, tenant)
    return call, await call.read()


def new() -> pb.StreamRequest:
    return pb.StreamRequest(spec=pb.VideoSpec(prompt=PROMPT, seconds=3600), codec=pb.CODEC_RAW_RGB, max_lead_seconds=1)


def resume(token: str, lead: float = 1.0) -> pb.StreamRequest:
    return pb.StreamRequest(resume=pb.SessionResume(token=token, next_frame=0), max_lead_seconds=lead)


class Earlier(FakeStore):
    """Has records as front doors wrote them that did not say whose a session is."""

    async def put(self, token: str, holder: str, record: bytes, ttl_s: float) -> LeaseState:
        nobodys = replace(SessionRecord.from_bytes(record), tenant=None)
        return await super().put(token, holder, nobodys.to_bytes(), ttl_s)


async def test_a_resume_that_is_refused_takes_the_session_from_nobody() -> None:
    """Whoever has the token may resume the session. Who does is a tenant that may have no more."""
    async with serving(slow(), policy=QUOTA, store=Earlier()) as served, grpc.aio.insecure_channel(served.address) as channel:
        _, _ = await started(channel, "small", new())
        holder, first = await started(channel, "", new())
        await eventually(lambda: served.stages.denoiser.statistics().chunks > 4)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await read_all(stream_call(channel, resume(first.started.resume_token), "small"))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for _ in range(10):
            assert (await holder.read()).HasField("frames")


@pytest.mark.parametrize("lead", [1.0, 0.0])
async def test_a_tenant_at_its_quota_resumes_its_own_session(lead: float) -> None:
    """Its old connection has not been noticed to be gone, and it may have one session; as a job, too."""
    async with serving(slow(), policy=QUOTA, store=FakeStore(), max_sessions=2) as served:
        async with grpc.aio.insecure_channel(served.address) as channel, HeadraceClient(served.address, tenant="small") as small:
            holder, first = await started(channel, "small", new())
            await eventually(lambda: served.stages.denoiser.statistics().chunks > 1)
            call, again = await started(channel, "small", resume(first.started.resume_token, lead))
            assert again.started.resume_token == first.started.resume_token
            assert (await call.read()).HasField("frames")
            with pytest.raises(grpc.aio.AioRpcError) as moved:
                await read_all(holder)
            assert moved.value.code() is grpc.StatusCode.ABORTED
            await eventually(lambda: served.desk.statistics().live == 1)
            with pytest.raises(Busy, match="tenant small has 1 of at most 1 sessions"):
                await small.generate(PROMPT, seconds=0.1)
            call.cancel()
        await served.nothing_left()


async def test_with_every_slot_taken_a_session_is_still_resumed_in_its_own() -> None:
    async with serving(slow(), max_sessions=1, max_waiting=0) as served, grpc.aio.insecure_channel(served.address) as channel:
        _, first = await started(channel, "", new())
        await eventually(lambda: served.stages.denoiser.statistics().chunks > 1)
        call, again = await started(channel, "", resume(first.started.resume_token))
        assert again.HasField("started")
        call.cancel()
        await served.nothing_left()


class FailingEncoder(FakeEncoder):
    """Away once the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False

    async def encode(self, prompt: str, numerics: str = "") -> TextEmbedding:
        self.unavailable = int(self.away)
        return await super().encode(prompt, numerics)


async def test_a_resume_that_cannot_be_opened_takes_the_session_from_nobody() -> None:
    encoder = FailingEncoder()
    stages = FakeStages(FakeDenoiser(CONFIG, delay_s=0.005), encoder, keep_chunks=50)
    async with serving(stages) as served, grpc.aio.insecure_channel(served.address) as channel:
        holder, first = await started(channel, "", new())
        await eventually(lambda: served.stages.denoiser.statistics().chunks > 1)
        encoder.away = True
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await read_all(stream_call(channel, resume(first.started.resume_token)))
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        for _ in range(10):
            assert (await holder.read()).HasField("frames")
