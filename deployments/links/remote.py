"""Stages that live in other replicas, behind the protocols of `model_core.stages.interface`.

The pipeline cannot tell them from local ones: a session leg is one open chain of streams, a closed generator cancels the call
behind it, and everything that Ray, Serve or their transport may raise arrives as `StageUnavailable`, so that the session
opens its next leg.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar, cast

import grpc
from ray.exceptions import AuthenticationError, CrossLanguageError, RayError, RayTaskError, UnserializableException, UserCodeException
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from autoscaling.reports import ReplicaReport, parse
from deployments.links.link import CreditLine, LinkOffer
from deployments.links.wishes import Avoid
from model_core.errors import ChunkFailed, HeadraceError, SessionBroken, StageDraining, StageUnavailable
from model_core.tasks import cancel_and_wait
from model_core.types import (
    Conditioning,
    Footage,
    FrameChunk,
    LatentChunk,
    Latents,
    Numerics,
    SessionContext,
    SourceFootage,
    TextEmbedding,
)
from observability.context import work

T = TypeVar("T")
R = TypeVar("R")

_DESERTED_AFTER_S = 0.5  # a ping that has not been answered for so long makes one look whether there is anybody
_FINAL = (UnserializableException, UserCodeException, CrossLanguageError, AuthenticationError)
# How long a replica that failed a call is not the first choice: about as long as Serve takes to replace one that is unhealthy.
_AVOID_S = 10.0
_AVOIDED = 16  # at most; of more, some are right again


@contextmanager
def stage_errors(stage: str) -> Iterator[None]:
    """Errors of a remote call as the protocols state them.

    What the stage raised on purpose passes unchanged, and so does a defect in it (any other exception of its code). The death of a
    replica, a transport that broke, back-pressure, a deadline, and a cancellation that nobody here asked for become `StageUnavailable`.
    What would go wrong again however often it is tried becomes `SessionBroken`: a message that is too large, or that cannot be read.
    """
    try:
        yield
    except HeadraceError as error:
        raise _original(error) from None
    except RayTaskError as error:
        cause = _original(error)
        if _is_final(cause):
            raise SessionBroken(f"{stage}: {_summary(cause)}") from error
        if isinstance(cause, RayError | RayServeException | asyncio.CancelledError):
            raise StageUnavailable(f"{stage}: {_summary(cause)}") from error
        raise cause from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise StageUnavailable(f"{stage}: the replica cancelled the call") from error
    except (RayError, RayServeException, grpc.RpcError, ConnectionError, TimeoutError) as error:
        if _is_final(error):
            raise SessionBroken(f"{stage}: {_summary(error)}") from error
        raise StageUnavailable(f"{stage}: {_summary(error)}") from error


def _is_final(error: BaseException) -> bool:
    """Whether the same call would fail in the same way on any replica."""
    if isinstance(error, grpc.RpcError):
        code: Any = getattr(error, "code", lambda: None)
        return code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # how gRPC says that a message is too large
    return isinstance(error, _FINAL)


def _original(error: BaseException) -> BaseException:
    """What the stage raised; Ray may have wrapped it in a class that is both its type and RayTaskError."""
    cause = getattr(error, "cause", None) if isinstance(error, RayTaskError) else None
    return cause if isinstance(cause, BaseException) else error


def _summary(error: BaseException) -> str:
    """One line: a Ray error's text is a page of traceback."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


class Failures:
    """Replicas that failed a call lately, so that the next one goes elsewhere: one whose every call fails is the least busy of all."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at: dict[str, float] = {}

    def lately(self) -> Avoid:
        """Which those are; see `deployments.links.routing`."""
        since = self._clock() - _AVOID_S
        self._at = {replica: at for replica, at in self._at.items() if at > since}
        return Avoid(frozenset(self._at))

    @contextmanager
    def noted(self, response: Any) -> Iterator[None]:
        """What a call raises within is held against its replica, unless that is in order or a session's own fault."""
        try:
            yield
        except StageUnavailable as error:
            if (replica := replica_of(response)) and not isinstance(error, StageDraining | ChunkFailed):
                self._at.pop(replica, None)
                self._at[replica] = self._clock()
                while len(self._at) > _AVOIDED:
                    del self._at[next(iter(self._at))]
            raise


async def reports(handle: DeploymentHandle[Any], kind: type[R], timeout_s: float) -> list[R]:
    """What each replica behind `handle` that answers within `timeout_s` reports.

    Raises:
        ReportError: one lacks numbers that a report must have.
    """
    answers = await handle.broadcast("statistics").results_async(timeout_s=timeout_s, return_exceptions=True)
    return [report for answer in answers if isinstance(answer, dict) and (report := parse(kind, answer)) is not None]


class _RemoteStage:
    """`open_timeout_s` bounds the time until a stream is accepted, `call_timeout_s` a unary call.

    `may_be_idle`: that it has no replica is no fault, for one is started when it is called.
    """

    def __init__(
        self, handle: DeploymentHandle[Any], stage: str, open_timeout_s: float, call_timeout_s: float = 10.0, *, may_be_idle: bool = False
    ) -> None:
        self._handle = handle
        self._stage = stage
        self._open_timeout_s = open_timeout_s
        self._call_timeout_s = call_timeout_s
        self._may_be_idle = may_be_idle
        self._failed = Failures()

    async def ping(self) -> bool:
        """True when a replica answers, False when there is none and that is no fault.

        Raises:
            StageUnavailable: none did in time, or there is none that could.
        """
        if self._may_be_idle and await self._is_deserted():
            return False
        call = asyncio.ensure_future(self._call("ping"))
        try:
            # Serve keeps a call that no replica could take until one comes.
            await asyncio.wait({call}, timeout=_DESERTED_AFTER_S)
            if not call.done() and await self._is_deserted():
                raise StageUnavailable(f"{self._stage}: no replica is there")
            await call
        finally:
            await cancel_and_wait(call)
        return True

    async def _is_deserted(self) -> bool:
        """Whether it has no replica. To call it in order to find out would start one."""
        try:
            await self._handle.broadcast("ping").results_async(timeout_s=self._call_timeout_s, return_exceptions=True)
        except DeploymentUnavailableError:
            return True
        except (RayError, RayServeException, TimeoutError):
            return False
        return False

    async def reports(self) -> list[ReplicaReport]:
        """From every replica that answers.

        Raises:
            StageUnavailable: none did in time.
            ReportError: one lacks numbers that a report must have.
        """
        with stage_errors(self._stage):
            found = await reports(self._handle, ReplicaReport, self._open_timeout_s)
        if not found:
            raise StageUnavailable(f"{self._stage}: no replica reported")
        return found

    async def _call(self, method: str, *args: object, timeout_s: float | None = None) -> Any:
        timeout_s = timeout_s or self._call_timeout_s
        response = getattr(self._handle, method).remote(*args)
        with self._failed.noted(response), stage_errors(self._stage):
            try:
                async with asyncio.timeout(timeout_s):
                    return await response
            except TimeoutError:
                raise StageUnavailable(f"{self._stage}: no answer within {timeout_s:g} s") from None
            finally:
                abandon(response)

    async def _pull(self, context: SessionContext) -> AsyncGenerator[Any, None]:
        """The stage's linked stream. Credit is granted when the next item is asked for: then the one before has been consumed."""
        opened = self._handle.options(stream=True).stream.remote(context, work(), self._failed.lately())
        response = cast("AsyncIterator[Any]", opened)
        line: CreditLine | None = None
        try:
            with self._failed.noted(response), stage_errors(self._stage):
                line = await self._accepted(response)
                while True:
                    try:
                        item = await line.watch(anext(response))
                    except StopAsyncIteration:
                        return
                    yield item
                    line.grant()
        finally:
            abandon(response)
            if line is not None:
                await line.aclose()

    async def _accepted(self, response: AsyncIterator[Any]) -> CreditLine:
        try:
            async with asyncio.timeout(self._open_timeout_s):
                return await CreditLine.dial(cast("LinkOffer", await anext(response)))
        except TimeoutError:
            raise StageUnavailable(f"{self._stage}: not opened within {self._open_timeout_s:g} s") from None


def abandon(response: Any) -> None:
    """Cancel a call for certain: Serve 2.60 itself forgets one whose replica was found in the very moment that its caller was cancelled.

    Of a call that no replica accepted, it raises once more why, where its router has a loop of its own. The caller has been told.
    """
    with suppress(Exception):
        response.cancel()
    if (found := _found(response)) is not None:
        found.cancel()


def replica_of(response: Any) -> str:
    """The actor that a call has gone to; empty while it has not, and where Serve does not tell."""
    actor = getattr(_found(response), "_actor_id", None)
    return "" if actor is None else str(actor.hex())


def _found(response: Any) -> Any:
    """Serve's result of a call on its replica; None if there is none yet."""
    found = getattr(response, "_replica_result_future", None)
    if found is None or not found.done() or found.cancelled() or found.exception() is not None:
        return None
    return found.result()


class RemoteTextEncoder(_RemoteStage):
    """A `TextEncoder` behind a handle. `footage_timeout_s` bounds a call that brings an image, video or source."""

    def __init__(
        self, handle: DeploymentHandle[Any], stage: str, open_timeout_s: float, call_timeout_s: float, footage_timeout_s: float
    ) -> None:
        super().__init__(handle, stage, open_timeout_s, call_timeout_s)
        self._footage_timeout_s = footage_timeout_s

    async def encode(self, prompt: str, numerics: str = "") -> TextEmbedding:
        avoid = replace(self._failed.lately(), unlike=Numerics(text_encoder=numerics))
        return cast("TextEmbedding", await self._call("encode", prompt, work(), avoid))

    async def condition(self, footage: Footage) -> Conditioning:
        avoid = self._failed.lately()
        return cast("Conditioning", await self._call("condition", footage, work(), avoid, timeout_s=self._footage_timeout_s))

    async def encode_source(self, footage: SourceFootage, numerics: str = "") -> Latents:
        avoid = replace(self._failed.lately(), unlike=Numerics(text_encoder=numerics))
        return cast("Latents", await self._call("encode_source", footage, work(), avoid, timeout_s=self._footage_timeout_s))


class RemoteDenoiser(_RemoteStage):
    """A `Denoiser` behind a handle."""

    async def stream(self, context: SessionContext) -> AsyncGenerator[LatentChunk, None]:
        async with aclosing(self._pull(context)) as chunks:
            async for chunk in chunks:
                yield chunk


class RemoteDecoder(_RemoteStage):
    """A `Decoder` behind a handle. Its replica pulls the denoiser; nothing of that passes through here."""

    async def stream(self, context: SessionContext) -> AsyncGenerator[FrameChunk, None]:
        async with aclosing(self._pull(context)) as chunks:
            async for chunk in chunks:
                yield chunk
