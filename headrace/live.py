"""The client's side of a Live: controls out, events in, and, where asked for, one session over several connections."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Self, cast

import grpc
import grpc.aio

from headrace.connection import Connection
from headrace.errors import ClientError, client_error
from headrace.reconnect import Arrived, Reconnect, cancel_asked_for, resuming
from headrace.source import LiveSource, SourceSender
from headrace.v1 import video_pb2 as pb

LiveEvent = (
    pb.Started | pb.QueuePosition | pb.PromptAck | pb.PromptRefused | pb.Frames | pb.QualityChange | pb.UsageTick | pb.Paused | pb.Resumed
    | pb.SourceTaken | pb.SourceDropped | pb.Ended
)  # fmt: skip
LiveMethod = grpc.aio.StreamStreamMultiCallable[pb.LiveRequest, pb.LiveResponse]
LiveCall = grpc.aio.StreamStreamCall[pb.LiveRequest, pb.LiveResponse]

Replaceable = Callable[[], int | None]

_MAX_UNANSWERED = 256


class Unanswered:
    """Controls that were given and not answered: they are sent again on a new connection, and their answers are shown once."""

    def __init__(self) -> None:
        self._controls: deque[pb.LiveRequest] = deque()
        self._paused = False
        self._said_again = 0

    def add(self, control: pb.LiveRequest) -> None:
        """Raises ClientError when too many wait."""
        if len(self._controls) >= _MAX_UNANSWERED:
            raise ClientError(grpc.StatusCode.RESOURCE_EXHAUSTED, f"at most {_MAX_UNANSWERED} controls may wait for an answer")
        self._controls.append(control)

    def again(self) -> list[pb.LiveRequest]:
        """What a new connection has to be told. A resumed session runs, so a pause that was in force is said again."""
        self._said_again = int(self._paused)
        return [*([pb.LiveRequest(pause=pb.Pause())] if self._paused else []), *self._controls]

    def answered(self, event: object) -> bool:
        """Note an answer. False for one that the caller has had already."""
        match event:
            case pb.PromptRefused() | pb.PromptAck():
                # Given twice when it got lost with a connection and the prompt was sent again: then the later one is in force.
                self._take(lambda control: (change := _change(control)) is not None and change.request_id == event.request_id)
            case pb.Paused():
                if self._said_again:
                    self._said_again = 0
                    return False
                self._paused = True
                return self._take(lambda control: control.HasField("pause"))
            case pb.Resumed():
                self._paused = False
                return self._take(lambda control: control.HasField("resume"))
        return True

    def _take(self, fits: Callable[[pb.LiveRequest], bool]) -> bool:
        for control in self._controls:
            if fits(control):
                self._controls.remove(control)
                return True
        return False


class LiveSession:
    """A steerable session. Iterate it for events; call the controls meanwhile, from any task of the same loop.

        async with client.live("a red circle moving left") as session:
            async for event in session:
                ...

    Leaving the context cancels what still runs. After the session's end, `stop` does nothing and the other controls raise ClientError.
    """

    def __init__(
        self,
        method: LiveMethod,
        connection: Connection,
        start: pb.LiveStart,
        metadata: tuple[tuple[str, str], ...] = (),
        reconnect: Reconnect | None = None,
        replaceable: Replaceable | None = None,
        source: LiveSource | None = None,
    ) -> None:
        self._sender = None if source is None else SourceSender(source, self._send_source)
        self._sending: asyncio.Task[None] | None = None
        self._method = method
        self._connection = connection
        self._metadata = metadata
        self._start = start
        self._reconnect = reconnect
        self._replaceable = replaceable
        self._arrived = Arrived()
        self._unanswered = Unanswered()
        self._call: LiveCall | None = None
        self._over = False
        self._last_request_id = 0
        # gRPC allows one write at a time on a call.
        self._write_lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        if self._call is not None:
            raise RuntimeError("a LiveSession can be entered once")
        await self._connection.ready()
        self._call = self._method(metadata=self._metadata)
        # A refused connection also ends iteration, and is raised there with its details.
        with suppress(ClientError):
            async with self._write_lock:
                await _write(self._call, pb.LiveRequest(start=self._start))
        if self._sender is not None:
            self._sending = asyncio.create_task(self._sender.run())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over = True
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait({self._sending})
        self._entered().cancel()

    @property
    def source_dropped(self) -> int:
        """Frames of the source that were dropped here, because the server took them too slowly."""
        return 0 if self._sender is None else self._sender.dropped

    async def set_prompt(self, prompt: str) -> int:
        """Change the prompt. Returns the request id that the PromptAck, or the PromptRefused, will carry.

        Raises:
            ClientError: the session is over.
        """
        self._last_request_id += 1
        request_id = self._last_request_id
        await self._control(pb.LiveRequest(prompt=pb.PromptChange(prompt=prompt, request_id=request_id)))
        return request_id

    async def act(self, keys: Sequence[str] = ()) -> int:
        """Hold these keys and no others, in a model that takes actions. Returns the request id that the PromptAck will carry.

        Raises:
            ClientError: the session is over.
        """
        self._last_request_id += 1
        request_id = self._last_request_id
        await self._control(pb.LiveRequest(act=pb.Act(keys=keys, request_id=request_id)))
        return request_id

    async def pause(self) -> None:
        """Stop making frames; a Paused event confirms it.

        Raises:
            ClientError: the session is over.
        """
        await self._control(pb.LiveRequest(pause=pb.Pause()))

    async def resume(self) -> None:
        """Go on where the pause began; a Resumed event confirms it.

        Raises:
            ClientError: the session is over.
        """
        await self._control(pb.LiveRequest(resume=pb.Resume()))

    async def stop(self) -> None:
        """End the session in order; an Ended event confirms it."""
        with suppress(ClientError):
            await self._control(pb.LiveRequest(stop=pb.Stop()))

    async def __aiter__(self) -> AsyncIterator[LiveEvent]:
        """Events until the session ends. A prompt change that cannot be applied is a PromptRefused; the session plays on.

        Raises:
            ClientError: the call failed; see the tree above.
        """
        self._entered()
        done = False
        try:
            async with aclosing(resuming(self._attempt, self._reconnect, self._arrived)) as events:
                async for event in events:
                    self._check_source()
                    if self._reconnect is None or self._unanswered.answered(event):
                        yield event
            done = True
        except ClientError:
            done = True
            raise
        finally:
            self._over = self._over or done

    async def _attempt(self, resume: pb.SessionResume | None) -> AsyncGenerator[LiveEvent, None]:
        call = self._entered() if resume is None else await self._connect(resume)
        try:
            async for response in call:
                if (name := response.WhichOneof("event")) is not None:
                    event = cast("LiveEvent", getattr(response, name))
                    if self._sender is not None:
                        self._sender.heard(event)
                    yield event
        except grpc.aio.AioRpcError as error:
            raise client_error(error) from error
        except asyncio.CancelledError:
            if cancel_asked_for() or self._over:
                raise
            raise ClientError(grpc.StatusCode.CANCELLED, "the server cancelled the call") from None

    async def _connect(self, resume: pb.SessionResume) -> LiveCall:
        """A new call that begins where the old one ended, and has been told what was not answered."""
        if self._sender is not None:
            self._sender.lost()
        self._entered().cancel()
        await self._connection.ready()
        async with self._write_lock:
            call = self._call = self._method(metadata=self._metadata)
            start = self._start
            if resume.token:
                lead_s, max_message_bytes = start.max_lead_seconds, start.max_message_bytes
                start = pb.LiveStart(resume=resume, max_lead_seconds=lead_s, max_message_bytes=max_message_bytes)
            with suppress(ClientError):  # reading from the call tells why
                for message in (pb.LiveRequest(start=start), *self._unanswered.again()):
                    await _write(call, self._timed(message))
        if self._over:  # the context was left meanwhile
            call.cancel()
        return call

    async def _accepted(self, call: LiveCall) -> None:
        """Wait until the server has answered the start: a control written into a refusal would overwrite its reason (a grpc.aio flaw)."""
        with suppress(grpc.aio.AioRpcError):
            await call.initial_metadata()
            await asyncio.sleep(0)  # a refusal brings metadata and status at once; let the status in

    def _entered(self) -> LiveCall:
        if self._call is None:
            raise RuntimeError("enter the LiveSession with `async with` first")
        return self._call

    async def _control(self, control: pb.LiveRequest) -> None:
        await self._accepted(self._entered())
        async with self._write_lock:
            if self._reconnect is None:
                await _write(self._entered(), self._timed(control))
                return
            if self._over:
                raise ClientError(grpc.StatusCode.FAILED_PRECONDITION, "the session is over")
            self._unanswered.add(control)
            with suppress(ClientError):  # whoever reads the events connects again, or is told that it is over
                await _write(self._entered(), self._timed(control))

    async def _send_source(self, request: pb.LiveRequest) -> bool:
        """See `headrace.source.Write`. Whoever reads the events is told why."""
        async with self._write_lock:
            try:
                await _write(self._entered(), request)
            except ClientError:
                return False
        return True

    def _check_source(self) -> None:
        """Raise what the source raised: a session whose source is broken would wait for it."""
        if self._sending is not None and self._sending.done() and not self._sending.cancelled() and (error := self._sending.exception()):
            raise error

    def _timed(self, control: pb.LiveRequest) -> pb.LiveRequest:
        """A prompt or an act goes out with what can be replaced at this moment."""
        if self._replaceable is not None and (change := _change(control)) is not None:
            if (frame := self._replaceable()) is None:
                change.ClearField("replace_from")
            else:
                change.replace_from = frame
        return control


def _change(control: pb.LiveRequest) -> pb.PromptChange | pb.Act | None:
    """What of a control a PromptAck answers."""
    match control.WhichOneof("action"):
        case "prompt":
            return control.prompt
        case "act":
            return control.act
    return None


async def _write(call: LiveCall, request: pb.LiveRequest) -> None:
    """Raises ClientError."""
    try:
        await call.write(request)
    except grpc.aio.AioRpcError as error:
        raise client_error(error) from error
    except asyncio.CancelledError:
        if cancel_asked_for():
            raise
        raise ClientError(grpc.StatusCode.FAILED_PRECONDITION, "the session is over") from None  # its call was cancelled by the reader
    except (asyncio.InvalidStateError, grpc.aio.UsageError) as error:
        raise ClientError(grpc.StatusCode.FAILED_PRECONDITION, "the session is over") from error
