from __future__ import annotations

import asyncio
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any, cast

import grpc
import numpy as np
import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError, TaskCancelledError, UnserializableException
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError
from ray.serve.handle import DeploymentHandle

from deployments.links.remote import Failures, RemoteDenoiser, RemoteTextEncoder, abandon, stage_errors
from deployments.links.routing import avoided
from model_core.errors import (
    CapacityExceeded,
    ChunkFailed,
    EngineDead,
    FieldViolation,
    InvalidRequest,
    SessionBroken,
    StageDraining,
    StageUnavailable,
)
from model_core.types import Latents, SourceFootage


def failed_task(cause: Exception) -> Exception:
    """As a caller sees an exception of a replica's code."""
    error = RayTaskError("stream", "a page of traceback", cause, proctitle="replica", pid=1, ip="127.0.0.1")
    return cast("Exception", error.as_instanceof_cause())


@pytest.mark.parametrize(
    "error",
    [
        ActorDiedError(),
        ActorUnavailableError("gone for now", b"\x00" * 16),
        BackPressureError(num_queued_requests=1, max_queued_requests=1),
        RequestCancelledError("some-request"),
        TaskCancelledError(),
        grpc.RpcError("transport broke"),
        ConnectionResetError("peer reset"),
        TimeoutError("too slow"),
        failed_task(ActorDiedError()),
        failed_task(DeploymentUnavailableError(DeploymentID("Decoder", "headrace"))),
        asyncio.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_breaks_on_the_way_is_a_stage_that_is_unavailable(error: BaseException) -> None:
    with pytest.raises(StageUnavailable, match=r"^decoder: "), stage_errors("decoder"):
        raise error


@pytest.mark.parametrize(
    "raised",
    [
        InvalidRequest((FieldViolation("spec.seconds", "must be positive; got 0"),)),
        CapacityExceeded("all 2 slots are taken", retry_after_s=1.5),
        EngineDead("the loop ended"),
        StageUnavailable("denoiser: gone"),
        ChunkFailed("chunk 3 is not finite", 3),
        SessionBroken("chunk 3 is not finite"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("wrapped", [True, False])
async def test_what_a_stage_says_on_purpose_passes_unchanged(raised: Exception, wrapped: bool) -> None:
    with pytest.raises(type(raised)) as caught, stage_errors("denoiser"):
        raise failed_task(raised) if wrapped else raised
    assert type(caught.value) is type(raised)
    assert str(caught.value) == str(raised)
    assert vars(caught.value) == vars(raised)


def too_large() -> grpc.aio.AioRpcError:
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, nothing, nothing, "CLIENT: Received message larger than max (9 vs. 4)")


@pytest.mark.parametrize(
    "error", [too_large(), failed_task(too_large()), UnserializableException("no bytes")], ids=["here", "there", "bytes"]
)
async def test_what_would_fail_on_every_replica_ends_the_session(error: BaseException) -> None:
    """A chunk above the transport's limit must not be made again and again."""
    with pytest.raises(SessionBroken, match=r"^decoder: "), stage_errors("decoder"):
        raise error


class OnReplica:
    """What Serve has for a call that has reached its replica."""

    def __init__(self, name: bytes) -> None:
        self._actor_id = name
        self._replica_result_future = Future[OnReplica]()
        self._replica_result_future.set_result(self)


@pytest.mark.parametrize(
    ("error", "held"),
    [
        (StageUnavailable("stuck"), True),
        (EngineDead("crashed"), True),
        (StageDraining("stops"), False),
        (ChunkFailed("chunk 3", 3), False),
        (SessionBroken("chunk 3"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_replica_that_failed_a_call_is_avoided_for_a_while_unless_it_was_no_fault_of_its_own(error: Exception, held: bool) -> None:
    now = 0.0
    failures = Failures(lambda: now)
    with pytest.raises(type(error)), failures.noted(OnReplica(b"\x07")):
        raise error
    with pytest.raises(type(error)), failures.noted(Cancellable()):  # it never reached one
        raise error
    assert avoided(("context", failures.lately())) == ({"07"} if held else set())
    now = 11.0
    assert avoided((failures.lately(),)) == frozenset()


def test_what_is_avoided_is_bounded() -> None:
    failures = Failures()
    for number in range(40):
        with pytest.raises(StageUnavailable), failures.noted(OnReplica(bytes([number]))):
            raise StageUnavailable("gone")
    assert avoided((failures.lately(),)) == {bytes([number]).hex() for number in range(24, 40)}


async def test_a_defect_of_a_stage_stays_a_defect() -> None:
    with pytest.raises(ZeroDivisionError) as caught, stage_errors("decoder"):
        raise failed_task(ZeroDivisionError("division by zero"))
    assert not isinstance(caught.value, StageUnavailable)


async def test_a_cancellation_that_was_asked_for_stays_one() -> None:
    async def call() -> None:
        with stage_errors("decoder"):
            await asyncio.sleep(60)

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


class Cancellable:
    """What Serve hands out for a call, or for its result on a replica."""

    def __init__(self, found: Future[Cancellable] | None = None) -> None:
        self.cancelled = 0
        self._replica_result_future = found

    def cancel(self) -> None:
        self.cancelled += 1


def test_a_call_is_cancelled_on_its_replica_too_if_one_had_been_found() -> None:
    on_replica, found = Cancellable(), Future[Cancellable]()
    found.set_result(on_replica)
    call = Cancellable(found)
    abandon(call)
    assert (call.cancelled, on_replica.cancelled) == (1, 1)


@pytest.mark.parametrize("state", ["pending", "cancelled", "failed"])
def test_a_call_that_never_reached_a_replica_is_cancelled_as_it_is(state: str) -> None:
    found = Future[Cancellable]()
    if state == "cancelled":
        found.cancel()
    if state == "failed":
        found.set_exception(ConnectionResetError())
    call = Cancellable(found)
    abandon(call)
    assert call.cancelled == 1
    abandon(plain := Cancellable())
    assert plain.cancelled == 1


def test_to_abandon_a_call_that_no_replica_accepted_raises_nothing_in_the_place_of_the_reason() -> None:
    class Refused:
        def cancel(self) -> None:
            raise failed_task(StageUnavailable("a message of another version was refused"))

    abandon(Refused())


class Call:
    """What a handle's call gives: a response that is awaited and can be cancelled."""

    def __init__(self, answer: asyncio.Future[None]) -> None:
        self._answer = answer

    def __await__(self) -> Generator[Any, None, None]:
        return self._answer.__await__()

    def cancel(self) -> None:
        self._answer.cancel()


class Handle:
    """Of a deployment: `replicas` of them answer at once, without any a call waits."""

    def __init__(self, replicas: int) -> None:
        self.replicas = replicas
        self.calls: list[asyncio.Future[None]] = []
        self.ping = self

    def remote(self) -> Call:
        self.calls.append(asyncio.get_running_loop().create_future())
        if self.replicas:
            self.calls[-1].set_result(None)
        return Call(self.calls[-1])

    def broadcast(self, _: str) -> Handle:
        return self

    async def results_async(self, **_: object) -> list[None]:
        if not self.replicas:
            raise DeploymentUnavailableError(DeploymentID("Denoiser", "headrace"))
        return [None] * self.replicas


class Slow:
    """A text stage that takes longer for a source than it may take for a prompt."""

    def __init__(self) -> None:
        self.encode_source = self

    def remote(self, *_: object) -> asyncio.Future[Latents]:
        return asyncio.ensure_future(self._latents())

    async def _latents(self) -> Latents:
        await asyncio.sleep(0.02)
        return np.zeros((1, 1, 1, 1), np.float32)


async def test_a_chunk_of_a_source_may_take_as_long_as_other_footage() -> None:
    encoder = RemoteTextEncoder(cast("DeploymentHandle[Any]", Slow()), "text_encoder", 1.0, 0.001, 60.0)
    footage = SourceFootage(0, np.zeros((8, 64, 64, 3), np.uint8))
    assert (await encoder.encode_source(footage)).shape == (1, 1, 1, 1)


async def test_a_stage_without_a_replica_is_found_out_long_before_a_call_times_out() -> None:
    there, gone = Handle(1), Handle(0)
    assert await RemoteDenoiser(cast("DeploymentHandle[Any]", there), "denoiser", 1.0).ping()
    async with asyncio.timeout(20):
        with pytest.raises(StageUnavailable, match="denoiser: no replica is there"):
            await RemoteDenoiser(cast("DeploymentHandle[Any]", gone), "denoiser", 1.0, 3600.0).ping()
    assert gone.calls[0].cancelled(), "the call does not wait for a replica any longer"


async def test_a_stage_that_may_be_idle_is_not_called_in_order_to_find_out() -> None:
    idle = Handle(0)
    assert not await RemoteDenoiser(cast("DeploymentHandle[Any]", idle), "denoiser", 1.0, may_be_idle=True).ping()
    assert not idle.calls
    idle.replicas = 1
    assert await RemoteDenoiser(cast("DeploymentHandle[Any]", idle), "denoiser", 1.0, may_be_idle=True).ping()
