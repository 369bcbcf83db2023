"""Three outcomes, as callers see them: full quality, fewer steps, or a refusal with a delay; and what happens to those who run."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import fields, replace

import pytest

from autoscaling.admission.brownout import BrownOutConfig
from autoscaling.admission.decide import AdmissionConfig, Tenant
from autoscaling.capacity.profile import Capacity, CapacityProfile, DenoiseReplica
from deployments.config.admission import AdmissionSettings
from doors.grpc.callers import TENANT_KEY
from headrace.client import BadRequest, Busy, HeadraceClient, LiveSession
from headrace.v1 import video_pb2 as pb
from model_core.config import MillraceConfig
from model_core.presets import millrace_64
from tests.fakes import FakeDenoiser, FakeStages, eventually
from tests.served import Served, serving

BUCKETS = tuple(range(1, 33))
PROFILE = CapacityProfile(BUCKETS, tuple(0.01 * b for b in BUCKETS), tuple(1e-9 * b for b in BUCKETS))
# Two sessions of 4 steps, or four of 2.
TWO = Capacity((DenoiseReplica(32, PROFILE),), budget_s=0.0801, ceiling=32)
POLICY = AdmissionConfig(
    BrownOutConfig((3, 2), dwell_s=0.0, turnover=1e9),
    max_waiting=20,
    max_wait_s=10.0,
    tenants={"small": Tenant(1, max_sessions=1), "big": Tenant(3)},
)


async def opened(stack: AsyncExitStack, client: HeadraceClient, seconds: float = 3600.0, steps: int = 0) -> tuple[LiveSession, pb.Started]:
    session = await stack.enter_async_context(client.live("a red circle", seconds=seconds, steps=steps))
    async for event in session:
        assert isinstance(event, pb.Started)
        return session, event
    raise AssertionError("no event")


async def until_quality(session: LiveSession, steps: int) -> list[pb.QualityChange]:
    """The changes up to the one to `steps`; frames around it join up."""
    changes: list[pb.QualityChange] = []
    next_frame: int | None = None
    async for event in session:
        if isinstance(event, pb.Frames):
            assert next_frame in (None, event.first_frame)
            next_frame = event.first_frame + event.frame_count
        if isinstance(event, pb.QualityChange):
            assert next_frame in (None, event.first_frame)
            changes.append(event)
            if event.steps == steps:
                return changes
    raise AssertionError(f"ended after {changes}")


async def test_full_quality_then_fewer_steps_for_all_then_a_refusal_and_back() -> None:
    async with serving(FakeStages(FakeDenoiser(FakeStages().config, delay_s=0.005)), policy=POLICY, capacity=TWO) as served:
        async with AsyncExitStack() as stack:
            first, started = await opened(stack, served.client)
            assert (started.steps, started.degraded) == (4, False)
            _, started = await opened(stack, served.client)
            assert (started.steps, started.degraded) == (4, False)

            async with AsyncExitStack() as further:
                for _ in range(2):
                    _, started = await opened(further, served.client)
                    assert (started.steps, started.degraded) == (2, True)
                changes = await until_quality(first, 2)
                assert {c.reason for c in changes} == {pb.QUALITY_REASON_LOAD}
                assert served.desk.statistics().degraded == 4
                await refused_at_once(served)
            await eventually(lambda: served.desk.statistics().live == 2)
            served.desk.observe(TWO)
            served.desk.observe(TWO)
            assert served.desk.statistics().level == 2  # a third would not fit at full quality: stay

            wide = Capacity((DenoiseReplica(32, PROFILE),), budget_s=0.2, ceiling=32)
            served.desk.observe(wide)
            served.desk.observe(wide)
            changes = await until_quality(first, 4)
            assert {c.reason for c in changes} == {pb.QUALITY_REASON_RECOVERED}
        await served.nothing_left()
        assert served.metric("admissions_total", tenant="default", answer="admitted") == 2
        assert served.metric("admissions_total", tenant="default", answer="degraded") == 2
        assert served.metric("admissions_total", tenant="default", answer="refused") == 1
        assert served.metric("degraded_chunks_total", level="2") > 0


async def refused_at_once(served: Served) -> None:
    """Four run, one is expected to end every 7.5 s: the first in line waits, the second would wait beyond the bound."""
    async with served.client.live("a blue square", seconds=1.0) as waiting:
        async for event in waiting:
            assert event == pb.QueuePosition(position=1)
            break
        with pytest.raises(Busy, match="later than the 10 s") as refused:
            async with served.client.live("one too many") as session:
                _ = [event async for event in session]
        assert refused.value.retry_after_s is not None
        assert 5 < refused.value.retry_after_s < 20
    await eventually(lambda: served.desk.statistics().waiting == 0)


class LooksTwice(MillraceConfig):
    """A model of a second-order solver: each step but the last takes two forwards."""

    def forwards(self, num_steps: int) -> int:
        return 2 * num_steps - 1


async def test_a_model_that_looks_twice_in_a_step_is_lowered_to_what_the_level_has_room_for() -> None:
    config = LooksTwice(**{field.name: getattr(millrace_64(), field.name) for field in fields(MillraceConfig)})
    policy = AdmissionSettings(tiers=(3, 2), dwell_seconds=0.0).policy(config)
    assert (policy.default_steps, policy.brownout.tiers) == (7, (5, 3))
    policy = replace(policy, brownout=replace(policy.brownout, turnover=1e9))
    two = Capacity((DenoiseReplica(32, PROFILE),), budget_s=0.1401, ceiling=32)  # two of 7 forwards, or four of 3
    async with serving(FakeStages(FakeDenoiser(config, delay_s=0.005), config=config), policy=policy, capacity=two) as served:
        async with AsyncExitStack() as stack:
            first, started = await opened(stack, served.client)
            await opened(stack, served.client)
            assert (started.steps, started.degraded) == (4, False)
            _, started = await opened(stack, served.client)
            assert (started.steps, started.degraded) == (2, True)
            await until_quality(first, 2)
            await eventually(lambda: served.metric("degraded_chunks_total", level="2") > 0)
        await served.nothing_left()


async def test_nobody_gets_more_steps_than_asked_for_and_jobs_keep_theirs() -> None:
    async with serving(FakeStages(FakeDenoiser(FakeStages().config, delay_s=0.005)), policy=POLICY, capacity=TWO) as served:
        async with AsyncExitStack() as stack:
            _, thrifty = await opened(stack, served.client, steps=1)
            assert (thrifty.steps, thrifty.degraded) == (1, False)
            for _ in range(3):
                await opened(stack, served.client)
            assert served.desk.statistics().level > 0
            unpaced = [event async for event in served.client.stream("a job", seconds=0.5)]
            assert isinstance(unpaced[0], pb.Started)
            assert (unpaced[0].steps, unpaced[0].degraded) == (4, False)
            assert not any(isinstance(event, pb.QualityChange) for event in unpaced)
        await served.nothing_left()
        asked = {c.num_steps for c in served.stages.denoiser.contexts if c.embedding.prompt == "a job"}
        assert asked == {4}


async def test_a_paced_stream_is_told_of_a_change_too() -> None:
    async with serving(FakeStages(FakeDenoiser(FakeStages().config, delay_s=0.005)), policy=POLICY, capacity=TWO) as served:
        events = served.client.stream("a red circle", seconds=3600, max_lead_s=0.2)
        seen = []
        async with AsyncExitStack() as stack:
            async for event in events:
                seen.append(event)
                if isinstance(event, pb.Frames) and len(seen) == 2:
                    for _ in range(3):
                        await opened(stack, served.client)
                if isinstance(event, pb.QualityChange) and event.steps == 2:
                    break
            await events.aclose()
        await served.nothing_left()


async def test_a_tenant_that_is_named_twice_is_refused() -> None:
    """A gateway that adds its own, and leaves its caller's where it is, must not let the caller choose."""
    async with serving(policy=POLICY) as served:
        for other in ("small", "big", ""):
            metadata = ((TENANT_KEY, "small"), (TENANT_KEY, other))
            async with HeadraceClient(served.address, metadata=metadata) as client:
                with pytest.raises(BadRequest, match="x-headrace-tenant: must be given at most once in the metadata; got 2"):
                    await client.generate("a red circle", seconds=0.1)
        assert served.metric("calls_total", rpc="Generate", outcome="invalid") == 3
        assert served.desk.statistics().arrivals == 0


async def test_tenants_are_told_apart_by_metadata_and_made_up_names_are_one() -> None:
    async with serving(FakeStages(FakeDenoiser(FakeStages().config, delay_s=0.005)), policy=POLICY, capacity=TWO) as served:
        async with AsyncExitStack() as stack:
            small = await stack.enter_async_context(HeadraceClient(served.address, tenant="small"))
            await opened(stack, small)
            with pytest.raises(Busy, match="tenant small has 1 of at most 1 sessions"):
                await small.generate("another", seconds=0.1)
            for name in ("nobody-1", "nobody-2"):
                stranger = await stack.enter_async_context(HeadraceClient(served.address, tenant=name))
                _ = [event async for event in stranger.stream("a job", seconds=0.1)]
        await served.nothing_left()
        assert served.metric("admissions_total", tenant="small", answer="refused") == 1
        assert served.metric("admissions_total", tenant="other", answer="admitted") == 2
        labels = {s.labels["tenant"] for m in served.registry.collect() if m.name == "headrace_admissions" for s in m.samples}
        assert labels == {"small", "other"}


async def test_tenants_may_change_while_their_sessions_run() -> None:
    async with serving(FakeStages(FakeDenoiser(FakeStages().config, delay_s=0.005)), policy=POLICY, capacity=TWO) as served:
        async with AsyncExitStack() as stack:
            small = await stack.enter_async_context(HeadraceClient(served.address, tenant="small"))
            await opened(stack, small)
            served.desk.set_tenants({"small": Tenant(1, max_sessions=2), "studio": Tenant(1, max_sessions=1)})
            await opened(stack, small)
            with pytest.raises(Busy, match="tenant small has 2 of at most 2 sessions"):
                await small.generate("another", seconds=0.1)
            served.desk.set_tenants({})
            assert served.desk.tenant("small") == "other"
            assert served.service.open_sessions == 2, "those that run stay"
        await served.nothing_left()


async def test_a_refusal_does_no_work() -> None:
    async with serving(FakeStages(), policy=POLICY, capacity=TWO) as served:
        async with AsyncExitStack() as stack:
            small = await stack.enter_async_context(HeadraceClient(served.address, tenant="small"))
            await opened(stack, small)
            calls = served.stages.encoder.calls
            refusals = await asyncio.gather(*(small.generate("no", seconds=0.1) for _ in range(50)), return_exceptions=True)
            assert all(isinstance(refusal, Busy) for refusal in refusals)
            assert served.stages.encoder.calls == calls
            assert served.service.open_sessions == 1
        await served.nothing_left()
