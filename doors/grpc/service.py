"""`headrace.v1.VideoService` over pipelines. Knows gRPC and the contract; where the stages run it does not know."""

from __future__ import annotations

from functools import partial

import grpc
import grpc.aio

from doors.grpc.edge import Context, Outgoing, RpcEdge
from doors.grpc.incoming import Incoming, next_control
from doors.grpc.replies import Replies, Viewing
from doors.wire import message_size, messages
from doors.wire.models import list_models
from doors.wire.replies import Reply
from doors.wire.requests import Orders, watched
from headrace.v1 import video_pb2 as pb
from service.call import FileTooLarge
from service.checks import Limits
from service.events import Started
from service.intake import Intake
from service.sessions.runner import SessionRunner
from service.watching.viewers import SendItem, Viewers

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["VideoService"].full_name


class VideoService:
    """The six RPCs.

    Args:
        intake: makes orders.
        runner: serves them.
        edge: guards each call.
        viewers: serves those who watch.
    """

    def __init__(self, intake: Intake, runner: SessionRunner, edge: RpcEdge, viewers: Viewers) -> None:
        self._intake = intake
        self._runner = runner
        self._viewers = viewers
        self._edge = edge
        self._orders = Orders(intake)
        self._parser = messages.RequestParser()

    @property
    def limits(self) -> Limits:
        """What one caller may ask for."""
        return self._intake.limits

    def handler(self) -> grpc.GenericRpcHandler:
        """For `server.add_generic_rpc_handlers`.

        Requests come as bytes, and all are read as streams are: the service itself answers those that do not parse or do not come.
        """
        return grpc.method_handlers_generic_handler(
            SERVICE_NAME,
            {
                "Generate": grpc.stream_unary_rpc_method_handler(self.generate, None, pb.GenerateResponse.SerializeToString),
                "Stream": grpc.stream_stream_rpc_method_handler(self.stream, None, pb.StreamResponse.SerializeToString),
                "Live": grpc.stream_stream_rpc_method_handler(self.live, None, pb.LiveResponse.SerializeToString),
                "Watch": grpc.stream_stream_rpc_method_handler(self.watch, None, None),
                "Replay": grpc.stream_stream_rpc_method_handler(self.replay, None, pb.ReplayResponse.SerializeToString),
                "ListModels": grpc.stream_unary_rpc_method_handler(self.list_models, None, pb.ListModelsResponse.SerializeToString),
            },
        )

    async def generate(self, _: object, context: Context) -> pb.GenerateResponse:
        async with self._edge.guard("Generate", context) as call:
            order, size = self._orders.generate(await self._incoming(context).only(pb.GenerateRequest, upload=True))
            try:
                file = await self._runner.make_file(order, call, message_size.media_bytes(size))
            except FileTooLarge as error:
                message_size.check_file(error.size, size)
                raise
            return pb.GenerateResponse(mp4=file.mp4, started=messages.started(file.started), ended=messages.ended(file.ended))

    async def stream(self, _: object, context: Context) -> None:
        async with self._edge.guard("Stream", context) as call:
            message = await self._incoming(context).only(pb.StreamRequest, upload=True)
            order, size = await self._orders.stream(message, call.principal.tenant)
            await self._runner.run(order, self._replies(pb.StreamResponse, context, size).send, call)

    async def live(self, _: object, context: Context) -> None:
        async with self._edge.guard("Live", context) as call:
            incoming = self._incoming(context)
            first = incoming.first(pb.LiveRequest, "start", self.limits.start_timeout_seconds, upload=True)
            order, size = await self._orders.live(await first, call.principal.tenant)
            controls = partial(next_control, incoming, source=order.request.strength is not None)
            await self._runner.run(order, self._replies(pb.LiveResponse, context, size).send, call, controls)

    async def watch(self, _: object, context: Context) -> None:
        async with self._edge.guard("Watch", context) as call:
            message = await self._incoming(context).only(pb.WatchRequest, upload=False)
            token, size = watched(message)
            await self._viewers.run(token, partial(self._viewing, context, size), call)

    async def replay(self, _: object, context: Context) -> None:
        async with self._edge.guard("Replay", context) as call:
            message = await self._incoming(context).only(pb.ReplayRequest, upload=False)
            order, size = await self._orders.replay(message, call.principal.tenant)
            await self._runner.run(order, self._replies(pb.ReplayResponse, context, size).send, call)

    async def list_models(self, _: object, context: Context) -> pb.ListModelsResponse:
        async with self._edge.guard("ListModels", context):
            await self._incoming(context).only(pb.ListModelsRequest, upload=False)
            return list_models(self._intake.catalogue, self.limits)

    def _incoming(self, context: Context) -> Incoming:
        return Incoming(context, self._parser, self.limits)

    def _viewing(self, context: Context, size: int, _: Started) -> SendItem:
        return Viewing(Outgoing(context), size, self.limits.stall_timeout_seconds).send

    def _replies(self, kind: type[Reply], context: Context, size: int) -> Replies:
        return Replies(kind, Outgoing(context), size, self.limits.stall_timeout_seconds)
