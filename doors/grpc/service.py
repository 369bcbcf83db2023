"""`headrace.v1.VideoService` over pipelines. Knows gRPC and the contract; where the stages run it does not know."""

from __future__ import annotations

import errno
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from pathlib import Path

import grpc
import grpc.aio

from doors.grpc import message_size, wire
from doors.grpc.edge import Context, Outgoing, RpcEdge
from doors.grpc.incoming import Incoming
from doors.grpc.live import LiveControls
from headrace.v1 import video_pb2 as pb
from model_core.errors import StageUnavailable
from model_core.media import FileBound, Mp4Writer
from model_core.pipeline import VideoPipeline
from model_core.tasks import run_in_thread
from model_core.types import FrameChunk
from observability.metrics import Metrics
from observability.tracing import Tracing
from service.admission.desk import AdmissionDesk
from service.checks import Catalogue, Limits, Order, Validator
from service.records.keeper import SessionKeeper
from service.sessions.pacing import Clock
from service.sessions.resumption import Resumption
from service.sessions.runner import Place, SessionRunner
from service.sessions.running import DRAINING

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["VideoService"].full_name


# Written first, so that a disk that is full says so. Where PyAV 18 finds out with the file's header, it keeps the file open for ever.
_FIRST_BYTES = 64 * 1024

log = logging.getLogger(__name__)


class VideoService:
    """The four RPCs.

    Args:
        pipelines: by model name.
        default_model: what an empty model name means.
        limits: what requests are checked against.
        desk: who may run.
        keeper: writes sessions down, so that they can be resumed; closed by whoever made it.
        metrics: where to count.
        clock: time for pacing and measurements.
        new_id: a new session or request id.
        new_seed: a seed for requests without one, an unsigned 64-bit number.
        tracing: which calls are traced; None for none. Closed by whoever made it.
    """

    def __init__(
        self,
        pipelines: Mapping[str, VideoPipeline],
        default_model: str,
        limits: Limits,
        desk: AdmissionDesk,
        keeper: SessionKeeper,
        metrics: Metrics,
        clock: Clock,
        new_id: Callable[[], str],
        new_seed: Callable[[], int],
        tracing: Tracing | None = None,
    ) -> None:
        self._catalogue = Catalogue({name: pipeline.config for name, pipeline in pipelines.items()}, default_model)
        self._validator = Validator(self._catalogue, limits)
        self._parser = wire.RequestParser()
        self.limits = limits
        self._clock = clock
        self._new_id = new_id
        self._new_seed = new_seed
        self._edge = RpcEdge(SERVICE_NAME, metrics, new_id, tracing or Tracing())
        self._runner = SessionRunner(pipelines, desk, keeper, limits, metrics, clock)
        self._resumption = Resumption(pipelines, keeper, self._validator)

    @property
    def open_sessions(self) -> int:
        """Sessions that wait or run."""
        return self._runner.open_sessions

    def drain(self) -> None:
        """Refuse new sessions; those that run go on."""
        self._runner.drain()

    def hand_over(self) -> None:
        """End what still runs before its next chunk, so that it goes on elsewhere."""
        self._runner.hand_over()

    def close(self) -> None:
        """After the last call."""
        self._runner.close()

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
                "ListModels": grpc.stream_unary_rpc_method_handler(self.list_models, None, pb.ListModelsResponse.SerializeToString),
            },
        )

    async def generate(self, _: object, context: Context) -> pb.GenerateResponse:
        async with self._edge.guard("Generate", context) as call:
            order = self._generate_order(await self._incoming(context).only(pb.GenerateRequest, upload=True))
            async with self._runner.admitted(order, call, whole=True) as place:
                if not await place.ticket.decided():
                    raise StageUnavailable(DRAINING)
                return await self._file(order, place)

    async def stream(self, _: object, context: Context) -> None:
        async with self._edge.guard("Stream", context) as call:
            order = await self._stream_order(await self._incoming(context).only(pb.StreamRequest, upload=True))
            await self._runner.run(order, pb.StreamResponse, Outgoing(context).write, call, steer=None)

    async def live(self, _: object, context: Context) -> None:
        async with self._edge.guard("Live", context) as call:
            incoming = self._incoming(context)
            controls = LiveControls(incoming, self._validator, self.limits, self._clock)
            first = incoming.first(pb.LiveRequest, "start", self.limits.start_timeout_seconds, upload=True)
            order = await self._live_order(await first)
            await self._runner.run(order, pb.LiveResponse, Outgoing(context).write, call, controls.steer)

    async def list_models(self, _: object, context: Context) -> pb.ListModelsResponse:
        async with self._edge.guard("ListModels", context):
            await self._incoming(context).only(pb.ListModelsRequest, upload=False)
            return pb.ListModelsResponse(models=[self._model(name) for name in sorted(self._catalogue.models)])

    # No handler keeps a message, which may hold an image or a video: neither while its session lasts, nor in what a refused call leaves.

    def _generate_order(self, message: pb.GenerateRequest) -> Order:
        return self._validator.generate(message, self._new_id(), self._new_seed())

    async def _stream_order(self, message: pb.StreamRequest) -> Order:
        if message.HasField("resume"):
            return await self._resumption.order(message, "", live=False)
        return self._resumption.resumable(self._validator.stream(message, self._new_id(), self._new_seed()))

    async def _live_order(self, message: pb.LiveRequest) -> Order:
        if message.start.HasField("resume"):
            return await self._resumption.order(message.start, "start.", live=True)
        return self._resumption.resumable(self._validator.live(message, self._new_id(), self._new_seed()))

    def _incoming(self, context: Context) -> Incoming:
        return Incoming(context, self._parser, self.limits)

    async def _file(self, order: Order, place: Place) -> pb.GenerateResponse:
        """Frames go to the encoder as they come, so that memory does not grow with length.

        Raises:
            StageUnavailable: the disk is full.
            InvalidRequest: even as small as the encoder can make it, the file is larger than the caller takes.
        """
        usage = wire.Usage()
        bound = FileBound(message_size.media_bytes(order.max_message_bytes), order.request.num_frames or 1)
        with _room_for_files(), tempfile.TemporaryDirectory(prefix="headrace-") as folder:
            path = Path(folder) / "video.mp4"
            path.write_bytes(bytes(_FIRST_BYTES))
            writer = Mp4Writer(path, order.config.fps, bound)
            try:
                async with aclosing(place.running.session.events()) as events:
                    async for event in events:
                        if isinstance(event, FrameChunk):
                            await run_in_thread(writer.write, event.pixels())
                            usage.add(event)
                            place.meter.made(event, self._clock.now())
                place.running.check()
            finally:
                await run_in_thread(writer.close)
            message_size.check_file(path.stat().st_size, order.max_message_bytes)
            mp4 = await run_in_thread(path.read_bytes)
        ended = pb.Ended(reason=pb.END_REASON_COMPLETED, usage=usage.tick(order.config.fps))
        return pb.GenerateResponse(mp4=mp4, started=wire.started(order.request, order.config, order.request.num_steps), ended=ended)

    def _model(self, name: str) -> pb.Model:
        config, limits = self._catalogue.models[name], self.limits
        frames = config.grid.max_frames
        longest = math.inf if frames is None else frames / config.fps
        return pb.Model(
            name=name, description=config.description, fps=config.fps, sizes=[pb.Size(width=config.width, height=config.height)],
            default_steps=config.num_steps, min_steps=config.min_steps, max_steps=config.max_steps,
            max_prompt_bytes=limits.max_prompt_bytes, max_prompt_tokens=config.max_prompt_tokens,
            default_guidance=config.guidance, max_guidance=config.max_guidance, default_negative_prompt=config.negative_prompt,
            max_generate_seconds=min(limits.max_generate_seconds, longest), max_stream_seconds=min(limits.max_stream_seconds, longest),
            frames_per_chunk=config.frames_per_chunk, codecs=list(wire.CODECS.values()), default_model=name == self._catalogue.default,
            image=wire.footage_input("image", config, limits.uploads), video=wire.footage_input("video", config, limits.uploads),
        )  # fmt: skip


@contextmanager
def _room_for_files() -> Iterator[None]:
    """Turns a full disk, which is no defect and may be over soon, into StageUnavailable."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        log.error("no file can be written: %s", error)  # noqa: TRY400 - the sentence says it all
        raise StageUnavailable("the server has no room for the file") from error
