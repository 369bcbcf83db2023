"""One ModelStreamInfer call: its requests, the sessions that they begin or steer, and the responses.

A request that fails gets an error message and ends nothing but itself. Requests that stand alone run beside each other. Those of one
sequence steer one live session: the first one begins it, each further one changes its prompt, and the last one ends it. A response names
the request whose prompt it shows.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import Any

import grpc.aio

from doors.grpc.edge import Outgoing
from doors.grpc.incoming import Incoming
from doors.grpc.triton import kserve_pb2 as pb
from doors.grpc.triton.contract import FRAMES, VERSION, VIDEO
from doors.grpc.triton.requests import Asked, doorway, read, served
from doors.grpc.triton.statistics import ModelCounts, Statistics
from doors.grpc.triton.tensors import Plain, packed, parameter, usage_parameters
from model_core.errors import FieldViolation, HeadraceError, InvalidRequest
from model_core.tasks import cancel_and_wait
from model_core.types import Codec, FrameChunk
from service.call import Call, ReaderStalled, taken_within
from service.controls import ChangePrompt, Control, Stop
from service.events import Ended, Event, Frames, PromptApplied, PromptRefused, QualityChanged, Started
from service.failures import failure_of
from service.intake import Intake
from service.orders import Mode, Order
from service.sessions.runner import SessionRunner

MAX_AT_ONCE = 16
_MAX_ERROR_CHARS = 2048
_FINAL = "triton_final_response"

log = logging.getLogger(__name__)


class StreamCall:
    """Serves one call. `run` returns when the caller has sent its last request and has every response.

    Args:
        intake, runner: make and serve orders.
        statistics: counts inferences.
        incoming, outgoing: the call.
        call: who calls; each session has a call of its own made of it.
        new_id: for a log line about an unexpected error.
    """

    def __init__(
        self,
        intake: Intake,
        runner: SessionRunner,
        statistics: Statistics,
        incoming: Incoming,
        outgoing: Outgoing,
        call: Call,
        new_id: Callable[[], str],
    ) -> None:
        self._intake = intake
        self._runner = runner
        self._statistics = statistics
        self._incoming = incoming
        self._outgoing = outgoing
        self._call = call
        self._new_id = new_id
        self._writing = asyncio.Lock()
        self._running: set[asyncio.Task[None]] = set()
        self._sequences: dict[str, Inference] = {}
        self._broken: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Raises InvalidRequest: what came is no request. ReaderStalled: the caller takes no responses."""
        try:
            await self._read_all()
            for inference in list(self._sequences.values()):
                inference.no_more()
            while self._running:
                await asyncio.wait({*self._running, self._broken}, return_when=asyncio.FIRST_COMPLETED)
                self._check()
        finally:
            await cancel_and_wait(*self._running)
            if not self._broken.cancel() and not self._broken.cancelled():
                self._broken.exception()  # marks it as seen

    async def _read_all(self) -> None:
        """Up to the caller's last request. A stream on which nothing runs, and nothing comes, ends after as long as a session may last."""
        idle_s = self._intake.limits.max_stream_seconds
        while True:
            reading: asyncio.Task[Any] = asyncio.create_task(self._incoming.next(pb.ModelInferRequest, upload=True))
            try:
                while not reading.done():
                    done, _ = await asyncio.wait({reading, self._broken}, timeout=idle_s, return_when=asyncio.FIRST_COMPLETED)
                    self._check()
                    if not done and not self._running:
                        return
            finally:
                if not reading.done():
                    await cancel_and_wait(reading)
            request = reading.result()
            if request is None:
                return
            await self._take(request)

    def _check(self) -> None:
        """Raise what broke the call."""
        if self._broken.done():
            self._broken.result()

    async def _take(self, request: pb.ModelInferRequest) -> None:
        asked = read(request)
        try:
            sequence = asked.sequence
            if sequence is None or (sequence.start and sequence.end):
                self._begin(asked, request, Mode.STREAM)
            elif sequence.start:
                self._begin(asked, request, Mode.LIVE)
            else:
                inference = self._sequences.get(sequence.id)
                if inference is None:
                    told = f"must have been begun on this stream by a request with sequence_start; got {sequence.id[:64]!a}"
                    raise InvalidRequest((FieldViolation("parameters.sequence_id", told),))
                inference.take(asked)
        except HeadraceError as error:
            await self.refuse(asked, error)

    def _begin(self, asked: Asked, request: pb.ModelInferRequest, mode: Mode) -> None:
        """Begin a session. Raises InvalidRequest."""
        config = served(self._intake.catalogue, request.model_name, request.model_version)
        problems, sequence = asked.problems, asked.sequence
        if len(self._running) >= MAX_AT_ONCE:
            problems.add("id", f"must wait: {MAX_AT_ONCE} requests run on this stream, which is the most")
        if mode is Mode.LIVE and sequence is not None and sequence.id in self._sequences:
            problems.add("parameters.sequence_start", f"must be set once; sequence {sequence.id[:64]!a} runs")
        if len(asked.outputs) > 1:
            problems.add("outputs", f"must be {FRAMES} or {VIDEO} on a stream; got both")
        codec = Codec.FMP4_H264 if asked.outputs == (VIDEO,) else Codec.RAW_RGB
        order = self._intake.order(asked.video_request(config, codec, mode), doorway(mode, asked.max_message_bytes), problems)
        inference = Inference(self, asked, order, self._intake.limits.max_unanswered_controls)
        if mode is Mode.LIVE and sequence is not None:
            self._sequences[sequence.id] = inference
        task = asyncio.create_task(self._serve(inference, order, mode))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _serve(self, inference: Inference, order: Order, mode: Mode) -> None:
        """One session. What goes wrong with it is said in its responses; what breaks the call ends all of them."""
        call = self._call.again()
        try:
            try:
                with self._statistics.inference(order.config.name) as inference.counts:
                    await self._runner.run(order, inference.send, call, inference.controls if mode is Mode.LIVE else None)
            except (ReaderStalled, grpc.aio.BaseError):
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this request's
                for asked in inference.unanswered:
                    await self.refuse(asked, error)
        except Exception as error:  # noqa: BLE001 - `run` raises it
            if not self._broken.done():
                self._broken.set_exception(error)
        finally:
            self._sequences = {name: other for name, other in self._sequences.items() if other is not inference}

    # --- What goes back.

    async def respond(self, response: pb.ModelStreamInferResponse) -> None:
        """Write one response. Raises ReaderStalled."""
        async with self._writing:
            await taken_within(self._intake.limits.stall_timeout_seconds, self._outgoing.write(response))

    async def refuse(self, asked: Asked, error: Exception) -> None:
        """Say what went wrong with a request. It gets no more responses."""
        failure = failure_of(error, self._new_id())
        if failure.message.startswith("internal error"):
            log.error("ModelStreamInfer failed: %s", failure.message, exc_info=error)
        # Triton's client drops all but the message.
        said = f"request {asked.id}: {failure.message}" if asked.id else failure.message
        message = pb.ModelStreamInferResponse(error_message=said[:_MAX_ERROR_CHARS], infer_response=_empty(asked, asked.model))
        await self.respond(message)


class Inference:
    """One running session: the request whose prompt it shows, and those that wait to take its place.

    Attributes:
        current: the request that responses name now.
        counts: for statistics.
    """

    def __init__(self, stream: StreamCall, asked: Asked, order: Order, most_waiting: int) -> None:
        self._stream = stream
        self.current = asked
        self.counts = ModelCounts()
        self._order = order
        self._started: Started | None = None
        self._steps = order.request.num_steps
        self._header = b""
        self._changes: dict[int, Asked] = {}
        self._numbers = itertools.count(1)
        self._ending: list[Asked] = []
        self._queue: asyncio.Queue[Control | None] = asyncio.Queue(most_waiting + 2)  # a stop, and the end, always fit
        self._most_waiting = most_waiting
        self._over = False

    @property
    def unanswered(self) -> list[Asked]:
        """Requests that have not had their last response."""
        return [self.current, *self._changes.values(), *self._ending]

    async def controls(self) -> Control | None:
        """See `service.controls.Controls`."""
        return await self._queue.get()

    def take(self, asked: Asked) -> None:
        """A further request of the sequence: another prompt, or the end. Raises InvalidRequest."""
        asked.problems.check()
        if self._over:
            raise InvalidRequest((FieldViolation("parameters.sequence_id", "must be of a sequence that runs; got one that has ended"),))
        if asked.sequence is not None and asked.sequence.end:
            self._ending.append(asked)
            self._stop()
            return
        prompt = asked.text("prompt") or ""
        asked.problems.check()
        if others := sorted(set(asked.values) - {"prompt"}):
            problem = "must be set by the request that starts the sequence; later ones change the prompt alone"
            raise InvalidRequest(tuple(FieldViolation(f"inputs.{name}", problem) for name in others))
        if self._queue.qsize() >= self._most_waiting:
            raise InvalidRequest((FieldViolation("id", f"must wait: {self._most_waiting} prompts of this sequence do, which is the most"),))
        number = next(self._numbers)
        self._changes[number] = asked
        self._queue.put_nowait(ChangePrompt(prompt, number, asked.replace_from))

    def no_more(self) -> None:
        """The caller sends no more requests: nobody is left to end a session without a length."""
        if self._order.request.num_frames is None:
            self._stop()
        elif not self._over:
            self._over = True
            self._queue.put_nowait(None)

    def _stop(self) -> None:
        if not self._over:
            self._over = True
            self._queue.put_nowait(Stop())

    async def send(self, event: Event) -> None:
        """See `service.events.Send`."""
        match event:
            case Started():
                self._started, self._header, self._steps = event, event.codec_header, event.steps
            case Frames(chunk=chunk):
                self.counts.made(chunk)
                await self._stream.respond(pb.ModelStreamInferResponse(infer_response=self._chunk(chunk)))
            case QualityChanged(steps=steps):
                self._steps = steps
            case PromptApplied(request_id=number):
                before = self.current
                self.current = self._changes.pop(number, before)
                if self.current is not before:
                    await self._end(before)
            case PromptRefused(request_id=number, error=error):
                refused = self._changes.pop(number, None)
                if refused is not None:
                    await self._stream.refuse(refused, error)
            case Ended(usage=usage):
                self._over = True
                for asked in self.unanswered:
                    await self._end(asked, usage_parameters(usage))

    async def _end(self, asked: Asked, told: dict[str, Plain] | None = None) -> None:
        """There are no more responses to `asked`, which hears so if it wants to. `told`: what the session used, at its end."""
        if asked.wants_end:
            last = _empty(asked, self._order.config.name)
            _tell(last, told or {})
            await self._stream.respond(pb.ModelStreamInferResponse(infer_response=last))

    def _chunk(self, chunk: FrameChunk) -> pb.ModelInferResponse:
        response = pb.ModelInferResponse(model_name=self._order.config.name, model_version=VERSION, id=self.current.id)
        tensor = pb.ModelInferResponse.InferOutputTensor
        if chunk.codec is Codec.RAW_RGB:
            response.outputs.append(tensor(name=FRAMES, datatype="UINT8", shape=[chunk.num_frames, chunk.height, chunk.width, 3]))
            response.raw_output_contents.append(b"".join(chunk.data))
        else:
            # What all responses hold, one after the other, is a file that plays.
            response.outputs.append(tensor(name=VIDEO, datatype="BYTES", shape=[1]))
            response.raw_output_contents.append(packed([self._header + b"".join(chunk.data)]))
            self._header = b""
        last = self._order.request.num_frames == chunk.first_frame + chunk.num_frames and not self.current.wants_end
        told: dict[str, Plain] = {"first_frame": chunk.first_frame, "frames": chunk.num_frames, "steps": self._steps, _FINAL: last}
        if self._started is not None:
            told |= {"fps": self._started.fps, "seed": str(self._started.seed), "session_id": self._started.session_id}
        _tell(response, told)
        return response


def _empty(asked: Asked, model: str) -> pb.ModelInferResponse:
    """The last response to a request, without outputs."""
    response = pb.ModelInferResponse(model_name=model, model_version=VERSION, id=asked.id)
    _tell(response, {_FINAL: True})
    return response


def _tell(response: pb.ModelInferResponse, told: dict[str, Plain]) -> None:
    for name, value in told.items():
        response.parameters[name].CopyFrom(parameter(value))
