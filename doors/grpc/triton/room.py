"""`inference.GRPCInferenceService`: KServe's inference protocol with Triton's additions, over the same sessions as every other door.

A video model is a decoupled one: a streamed request has a response for each chunk. A sequence is a live session, which further requests
steer.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import metadata
from typing import Any, TypeVar

import grpc
import grpc.aio
import numpy as np
from google.protobuf.message import Message

from doors.grpc.edge import Context, Outgoing, RpcEdge
from doors.grpc.incoming import Incoming
from doors.grpc.triton import contract
from doors.grpc.triton import kserve_pb2 as pb
from doors.grpc.triton.requests import ROOM_BYTES, Asked, doorway, raw_bytes, read, served
from doors.grpc.triton.statistics import ModelCounts, Statistics
from doors.grpc.triton.stream import StreamCall
from doors.grpc.triton.tensors import Plain, packed, parameter, usage_parameters
from doors.wire.messages import RequestParser
from model_core.config import ModelConfig
from model_core.errors import FieldViolation, InvalidRequest
from model_core.media import encode_mp4
from model_core.tasks import run_in_thread
from model_core.types import Codec
from service.call import Call, FileTooLarge
from service.clock import Clock
from service.events import Ended, Event, Frames, Started, Usage
from service.intake import Intake
from service.orders import Mode, Order
from service.sessions.runner import SessionRunner

NAME = "triton"
SERVICE_NAME = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
EXTENSIONS = ("sequence", "model_repository", "model_configuration", "statistics")

M = TypeVar("M", bound=Message)
Answer = Callable[[Any, Call], Awaitable[Message]]


class TritonRoom:
    """Registered with `GrpcServer` as one of its rooms.

    Args:
        intake: makes orders.
        runner: serves them.
        edge: guards each call.
        ready: whether all stages answer.
        clock: for statistics.
        new_id: an id for a log line about an unexpected error.
    """

    def __init__(
        self, intake: Intake, runner: SessionRunner, edge: RpcEdge, ready: Callable[[], bool], clock: Clock, new_id: Callable[[], str]
    ) -> None:
        self._intake = intake
        self._runner = runner
        self._edge = edge
        self._ready = ready
        self._new_id = new_id
        self._parser = RequestParser(pb.DESCRIPTOR)
        self._statistics = Statistics(clock.now, time.time)

    @property
    def service_name(self) -> str:
        """See `GrpcRoom`."""
        return SERVICE_NAME

    def handler(self) -> grpc.GenericRpcHandler:
        """See `GrpcRoom`. Requests come as bytes, as `VideoService` has them."""
        unary: dict[str, tuple[type[Message], Answer]] = {
            "ServerLive": (pb.ServerLiveRequest, self._server_live),
            "ServerReady": (pb.ServerReadyRequest, self._server_ready),
            "ModelReady": (pb.ModelReadyRequest, self._model_ready),
            "ServerMetadata": (pb.ServerMetadataRequest, self._server_metadata),
            "ModelMetadata": (pb.ModelMetadataRequest, self._model_metadata),
            "ModelConfig": (pb.ModelConfigRequest, self._model_config),
            "ModelStatistics": (pb.ModelStatisticsRequest, self._model_statistics),
            "RepositoryIndex": (pb.RepositoryIndexRequest, self._repository_index),
            "ModelInfer": (pb.ModelInferRequest, self._infer),
        }
        methods: dict[str, Any] = {
            name: grpc.stream_unary_rpc_method_handler(partial(self._unary, name, kind, answer), None, _serialized)
            for name, (kind, answer) in unary.items()
        }
        methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._stream, None, _serialized)
        return grpc.method_handlers_generic_handler(SERVICE_NAME, methods)

    async def aclose(self) -> None:
        """See `GrpcRoom`. Everything ends with its call."""

    async def _unary(self, name: str, kind: type[M], answer: Answer, _: object, context: Context) -> Message:
        async with self._edge.guard(f"{NAME}.{name}", context) as call:
            call.door = NAME
            incoming = Incoming(context, self._parser, self._intake.limits)
            return await answer(await incoming.only(kind, upload=kind is pb.ModelInferRequest), call)

    async def _stream(self, _: object, context: Context) -> None:
        async with self._edge.guard(f"{NAME}.ModelStreamInfer", context) as call:
            call.door = NAME
            incoming = Incoming(context, self._parser, self._intake.limits)
            stream = StreamCall(self._intake, self._runner, self._statistics, incoming, Outgoing(context), call, self._new_id)
            await stream.run()

    # --- What there is.

    async def _server_live(self, request: pb.ServerLiveRequest, call: Call) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def _server_ready(self, request: pb.ServerReadyRequest, call: Call) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._ready())

    async def _model_ready(self, request: pb.ModelReadyRequest, call: Call) -> pb.ModelReadyResponse:
        known = self._intake.catalogue.find(request.name) is not None and request.version in ("", contract.VERSION)
        return pb.ModelReadyResponse(ready=known and self._ready())

    async def _server_metadata(self, request: pb.ServerMetadataRequest, call: Call) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name="headrace", version=metadata.version("headrace"), extensions=EXTENSIONS)

    async def _model_metadata(self, request: pb.ModelMetadataRequest, call: Call) -> pb.ModelMetadataResponse:
        return contract.metadata(self._served(request))

    async def _model_config(self, request: pb.ModelConfigRequest, call: Call) -> pb.ModelConfigResponse:
        return contract.configuration(self._served(request))

    async def _model_statistics(self, request: pb.ModelStatisticsRequest, call: Call) -> pb.ModelStatisticsResponse:
        names = [self._served(request).name] if request.name else sorted(self._intake.catalogue.models)
        return pb.ModelStatisticsResponse(model_stats=[self._statistics.of(name).message(name) for name in names])

    async def _repository_index(self, request: pb.RepositoryIndexRequest, call: Call) -> pb.RepositoryIndexResponse:
        ready = self._ready()
        state = "READY" if ready else "UNAVAILABLE"
        index = pb.RepositoryIndexResponse.ModelIndex
        shown = [] if request.ready and not ready else sorted(self._intake.catalogue.models)
        return pb.RepositoryIndexResponse(models=[index(name=name, version=contract.VERSION, state=state) for name in shown])

    def _served(self, request: pb.ModelMetadataRequest | pb.ModelConfigRequest | pb.ModelStatisticsRequest) -> ModelConfig:
        return served(self._intake.catalogue, request.name, request.version)

    # --- A whole video in one answer.

    async def _infer(self, request: pb.ModelInferRequest, call: Call) -> pb.ModelInferResponse:
        config = served(self._intake.catalogue, request.model_name, request.model_version)
        asked = read(request)
        if asked.sequence is not None:
            asked.problems.add("parameters.sequence_id", "must be used with ModelStreamInfer; got it in ModelInfer")
        if asked.outputs and contract.FRAMES in asked.outputs:
            order = self._order(asked, config, Mode.STREAM)
            whole = self._frames
        else:
            order = self._order(asked, config, Mode.FILE)
            whole = self._file
        with self._statistics.inference(config.name) as counts:
            return await whole(asked, order, call, counts)

    def _order(self, asked: Asked, config: ModelConfig, mode: Mode) -> Order:
        """Nothing paces a whole video."""
        wanted = asked.video_request(config, Codec.RAW_RGB, Mode.FILE)
        order = self._intake.order(wanted, doorway(mode), asked.problems)
        needed = raw_bytes(config, order.request.num_frames or 0) + ROOM_BYTES
        if mode is Mode.STREAM and needed > asked.max_message_bytes:
            sentence = f"must be at least {needed} for that many raw frames; or use ModelStreamInfer, or the output video"
            raise InvalidRequest((FieldViolation("parameters.max_message_bytes", f"{sentence}; got {asked.max_message_bytes}"),))
        return order

    async def _file(self, asked: Asked, order: Order, call: Call, counts: ModelCounts) -> pb.ModelInferResponse:
        most = asked.max_message_bytes
        try:
            file = await self._runner.make_file(order, call, max(1, most - ROOM_BYTES))
        except FileTooLarge as error:
            sentence = f"must be at least {error.size + ROOM_BYTES} for this video; got {most}"
            raise InvalidRequest((FieldViolation("parameters.max_message_bytes", sentence),)) from None
        return _response(asked, file.started, file.ended.usage, {contract.VIDEO: file.mp4})

    async def _frames(self, asked: Asked, order: Order, call: Call, counts: ModelCounts) -> pb.ModelInferResponse:
        """Raw frames, and the same as a file where that is asked for too."""
        pictures: list[bytes] = []
        begun: list[Started] = []
        used: list[Usage] = []

        async def send(event: Event) -> None:
            match event:
                case Started():
                    begun.append(event)
                case Frames(chunk=chunk):
                    counts.made(chunk)
                    pictures.extend(chunk.data)
                case Ended(usage=usage):
                    used.append(usage)

        await self._runner.run(order, send, call)
        config, pixels = order.config, b"".join(pictures)
        outputs: dict[str, bytes] = {}
        for name in asked.outputs:
            if name == contract.FRAMES:
                outputs[name] = pixels
            else:
                shaped = np.frombuffer(pixels, np.uint8).reshape(len(pictures), config.height, config.width, 3)
                outputs[name] = await run_in_thread(encode_mp4, shaped, config.fps)
        return _response(asked, begun[0], used[0], outputs)


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def _response(asked: Asked, started: Started, usage: Usage, outputs: dict[str, bytes]) -> pb.ModelInferResponse:
    tensor = pb.ModelInferResponse.InferOutputTensor
    made = pb.ModelInferResponse(model_name=started.model, model_version=contract.VERSION, id=asked.id)
    for name, data in outputs.items():
        if name == contract.FRAMES:
            made.outputs.append(tensor(name=name, datatype="UINT8", shape=[usage.frames, started.height, started.width, 3]))
            made.raw_output_contents.append(data)
        else:
            made.outputs.append(tensor(name=name, datatype="BYTES", shape=[1]))
            made.raw_output_contents.append(packed([data]))
    told: dict[str, Plain] = {"session_id": started.session_id, "seed": str(started.seed), "fps": started.fps, "steps": started.steps}
    for name, value in (told | usage_parameters(usage)).items():
        made.parameters[name].CopyFrom(parameter(value))
    return made
