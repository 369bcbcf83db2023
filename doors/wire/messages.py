"""Bytes to messages and types to messages. The only place that knows both the wire's enums and ours.

Requests are parsed here and not by gRPC, which would answer INTERNAL to bytes that are no message.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor, FileDescriptor
from google.protobuf.message import DecodeError, Message

from doors.wire.field_count import field_count
from headrace.v1 import video_pb2 as pb
from model_core.config import Media, ModelConfig
from model_core.errors import FieldViolation, InvalidRequest
from model_core.types import Codec, FrameChunk, StageTiming
from model_core.uploads.upload import IMAGE_FORMATS, VIDEO_FORMATS, UploadLimits
from service.events import (
    Ended,
    EndReason,
    PromptApplied,
    PromptRefused,
    QualityChanged,
    QualityReason,
    SourceDropped,
    SourceTaken,
    Started,
    Usage,
)  # fmt: skip

M = TypeVar("M", bound=Message)

# Of one request. Each part of a message that is parsed takes some sixty bytes, and may have come as two.
MAX_FIELDS = 4096

CODECS = {Codec.RAW_RGB: pb.CODEC_RAW_RGB, Codec.JPEG: pb.CODEC_JPEG, Codec.FMP4_H264: pb.CODEC_FMP4_H264}
QUALITY_REASONS = {QualityReason.LOAD: pb.QUALITY_REASON_LOAD, QualityReason.RECOVERED: pb.QUALITY_REASON_RECOVERED}
DROP_REASONS = {
    "late": pb.SOURCE_DROP_REASON_LATE,
    "gap": pb.SOURCE_DROP_REASON_GAP,
    "full": pb.SOURCE_DROP_REASON_FULL,
    "ended": pb.SOURCE_DROP_REASON_ENDED,
}
END_REASONS = {
    EndReason.COMPLETED: pb.END_REASON_COMPLETED,
    EndReason.STOPPED: pb.END_REASON_STOPPED,
    EndReason.DRAINING: pb.END_REASON_SERVER_DRAINING,
    EndReason.PAUSED: pb.END_REASON_PAUSED,
}
# Of an error's sentence. In a status it travels in a header, whose size peers limit; a stage's error may hold a whole traceback.
MAX_MESSAGE_CHARS = 2048


class RequestParser:
    """Parses requests, and says what is wrong with those that cannot be parsed, or that hold too many fields to be parsed at all.

    Args:
        contract: the file of the messages. It imports no other one.
    """

    def __init__(self, contract: FileDescriptor = pb.DESCRIPTOR) -> None:
        # The same messages with `bytes` for every `string`: they parse where only the text is broken, and so show which field it is.
        self._binary: set[str] = set()
        file = descriptor_pb2.FileDescriptorProto()
        contract.CopyToProto(file)
        for message in file.message_type:
            for field in message.field:
                if field.type == FieldDescriptor.TYPE_STRING:
                    field.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
                elif field.type == FieldDescriptor.TYPE_BYTES:
                    self._binary.add(f"{contract.package}.{message.name}.{field.name}")
        self._pool = descriptor_pool.DescriptorPool()
        self._pool.AddSerializedFile(file.SerializeToString())

    def parse(self, kind: type[M], data: bytes) -> M:
        """Raises InvalidRequest, naming text fields that are not UTF-8, or else the message that is cut, garbled, or of too many fields."""
        if field_count(data, kind.DESCRIPTOR, MAX_FIELDS) > MAX_FIELDS:
            told = f"must hold at most {MAX_FIELDS} fields, those of its parts included; got more, in {len(data)} bytes"
            raise InvalidRequest((FieldViolation(kind.DESCRIPTOR.name, told),))
        try:
            return kind.FromString(data)
        except DecodeError:
            raise InvalidRequest(self._explain(kind.DESCRIPTOR.full_name, data)) from None

    def _explain(self, name: str, data: bytes) -> tuple[FieldViolation, ...]:
        try:
            twin = message_factory.GetMessageClass(self._pool.FindMessageTypeByName(name)).FromString(data)
        except DecodeError:
            twin = None
        if twin is not None and (broken := tuple(self._broken_text(twin, ""))):
            return broken
        return (FieldViolation(name.rpartition(".")[2], f"must be a complete {name} message; got {len(data)} bytes that are none"),)

    def _broken_text(self, message: Any, path: str) -> Iterator[FieldViolation]:
        for field, value in message.ListFields():
            if field.type == FieldDescriptor.TYPE_MESSAGE and not field.is_repeated:
                yield from self._broken_text(value, f"{path}{field.name}.")
            elif field.type == FieldDescriptor.TYPE_BYTES and field.full_name not in self._binary:
                try:
                    value.decode()
                except UnicodeDecodeError as error:
                    yield FieldViolation(f"{path}{field.name}", f"must be UTF-8; got {value[:32]!r} ({error.reason} at byte {error.start})")


def started(event: Started) -> pb.Started:
    return pb.Started(
        session_id=event.session_id, model=event.model, seed=event.seed, width=event.width, height=event.height, fps=event.fps,
        frames_per_chunk=event.frames_per_chunk, steps=event.steps, codec=CODECS[event.codec], codec_header=event.codec_header,
        resume_token=event.resume_token, degraded=event.degraded, watch_token=event.watch_token, next_frame=event.next_frame,
        source=None if event.source is None else source_taken(event.source),
    )  # fmt: skip


def usage(event: Usage) -> pb.UsageTick:
    return pb.UsageTick(
        frames_sent=event.frames, video_seconds=event.video_s, denoise_seconds=event.denoise_s, decode_seconds=event.decode_s,
        frames_superseded=event.superseded, pixels=event.pixels, steps=event.steps, source_frames=event.source_frames,
        source_dropped=event.source_dropped, source_delay_seconds=event.source_delay_s,
        frames_rendered=event.rendered if event.enhanced else 0, pixels_enhanced=event.pixels_enhanced, enhance_seconds=event.enhance_s,
    )  # fmt: skip


def ended(event: Ended) -> pb.Ended:
    return pb.Ended(reason=END_REASONS[event.reason], usage=usage(event.usage))


def frames(chunk: FrameChunk, before: tuple[StageTiming, ...] = ()) -> pb.Frames:
    """`before`: timings of the stages ahead of those that the chunk went through."""
    timings = [
        pb.StageTiming(stage=t.stage, queue_seconds=t.queue_s, service_seconds=t.service_s, device_seconds=t.device_s)
        for t in (*before, *chunk.timings)
    ]
    return pb.Frames(
        chunk_index=chunk.index, first_frame=chunk.first_frame, frame_count=chunk.num_frames,
        codec=CODECS[chunk.codec], data=chunk.data, timings=timings, keys=chunk.keys,
    )  # fmt: skip


def prompt_ack(event: PromptApplied) -> pb.PromptAck:
    return pb.PromptAck(
        prompt=event.prompt, first_frame=event.first_frame, request_id=event.request_id, change=event.change, keys=event.keys
    )


def quality_change(event: QualityChanged) -> pb.QualityChange:
    return pb.QualityChange(steps=event.steps, first_frame=event.first_frame, reason=QUALITY_REASONS[event.reason])


def source_taken(event: SourceTaken) -> pb.SourceTaken:
    return pb.SourceTaken(next_frame=event.next_frame, until_frame=event.until_frame)


def source_dropped(event: SourceDropped) -> pb.SourceDropped:
    dropped = event.dropped
    return pb.SourceDropped(
        first_frame=dropped.first_frame, frames=dropped.frames, reason=DROP_REASONS[dropped.reason], next_frame=event.next_frame
    )


def prompt_refused(event: PromptRefused) -> pb.PromptRefused:
    """The violations name fields of `LiveRequest`."""
    error = event.error.under("prompt.") if isinstance(event.error, InvalidRequest) else event.error
    found = error.violations if isinstance(error, InvalidRequest) else ()
    violations = [pb.Violation(field=v.field, description=v.description) for v in found]
    return pb.PromptRefused(request_id=event.request_id, violations=violations, message=str(error)[:MAX_MESSAGE_CHARS])


def footage_input(kind: Media, config: ModelConfig, limits: UploadLimits) -> pb.FootageInput | None:
    """What the model takes of that kind; None for nothing."""
    if kind not in config.media:
        return None
    told = pb.FootageInput(required=config.needs_media, max_bytes=limits.max_bytes(kind), max_pixels=limits.max_pixels(kind))
    told.formats.extend(IMAGE_FORMATS if kind == "image" else VIDEO_FORMATS)
    if kind == "video":
        told.min_frames, told.max_frames = config.grid.first_frame(1), config.media_frames
    return told
