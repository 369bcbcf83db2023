"""Bytes to messages and types to messages. The only place that knows both the wire's enums and ours.

Requests are parsed here and not by gRPC, which would answer INTERNAL to bytes that are no message.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from doors.grpc.field_count import field_count
from headrace.v1 import video_pb2 as pb
from model_core.config import Media, ModelConfig
from model_core.errors import FieldViolation, InvalidRequest, StageUnavailable
from model_core.pipeline import SessionRequest
from model_core.types import Codec, FrameChunk, StageTiming
from model_core.uploads.upload import IMAGE_FORMATS, VIDEO_FORMATS, UploadLimits

M = TypeVar("M", bound=Message)

# Of one request. Each part of a message that is parsed takes some sixty bytes, and may have come as two.
MAX_FIELDS = 4096

CODECS = {Codec.RAW_RGB: pb.CODEC_RAW_RGB, Codec.JPEG: pb.CODEC_JPEG, Codec.FMP4_H264: pb.CODEC_FMP4_H264}
DEFAULT_CODEC = Codec.JPEG
# Of an error's sentence. In a status it travels in a header, whose size peers limit; a stage's error may hold a whole traceback.
MAX_MESSAGE_CHARS = 2048


class RequestParser:
    """Parses requests, and says what is wrong with those that cannot be parsed, or that hold too many fields to be parsed at all."""

    def __init__(self) -> None:
        # The same messages with `bytes` for every `string`: they parse where only the text is broken, and so show which field it is.
        self._binary: set[str] = set()
        file = descriptor_pb2.FileDescriptorProto()
        pb.DESCRIPTOR.CopyToProto(file)
        for message in file.message_type:
            for field in message.field:
                if field.type == FieldDescriptor.TYPE_STRING:
                    field.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
                elif field.type == FieldDescriptor.TYPE_BYTES:
                    self._binary.add(f"{pb.DESCRIPTOR.package}.{message.name}.{field.name}")
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


def started(request: SessionRequest, config: ModelConfig, steps: int, codec_header: bytes = b"", resume_token: str = "") -> pb.Started:
    return pb.Started(
        session_id=request.session_id, model=config.name, seed=request.seed, width=config.width, height=config.height, fps=config.fps,
        frames_per_chunk=config.frames_per_chunk, steps=steps, codec=CODECS[request.codec], codec_header=codec_header,
        resume_token=resume_token, degraded=steps < request.num_steps,
    )  # fmt: skip


def frames(chunk: FrameChunk, before: tuple[StageTiming, ...] = ()) -> pb.Frames:
    """`before`: timings of the stages ahead of those that the chunk went through."""
    timings = [
        pb.StageTiming(stage=t.stage, queue_seconds=t.queue_s, service_seconds=t.service_s, device_seconds=t.device_s)
        for t in (*before, *chunk.timings)
    ]
    return pb.Frames(
        chunk_index=chunk.index, first_frame=chunk.first_frame, frame_count=chunk.num_frames,
        codec=CODECS[chunk.codec], data=chunk.data, timings=timings,
    )  # fmt: skip


def prompt_refused(request_id: int, error: InvalidRequest | StageUnavailable) -> pb.PromptRefused:
    violations = error.violations if isinstance(error, InvalidRequest) else ()
    told = [pb.Violation(field=v.field, description=v.description) for v in violations]
    return pb.PromptRefused(request_id=request_id, violations=told, message=str(error)[:MAX_MESSAGE_CHARS])


def footage_input(kind: Media, config: ModelConfig, limits: UploadLimits) -> pb.FootageInput | None:
    """What the model takes of that kind; None for nothing."""
    if kind not in config.media:
        return None
    told = pb.FootageInput(required=config.needs_media, max_bytes=limits.max_bytes(kind), max_pixels=limits.max_pixels(kind))
    told.formats.extend(IMAGE_FORMATS if kind == "image" else VIDEO_FORMATS)
    if kind == "video":
        told.min_frames, told.max_frames = config.grid.first_frame(1), config.media_frames
    return told


@dataclass(slots=True)
class Usage:
    """What a session has used so far: frames, those that were superseded apart, and its own share of device time."""

    frames: int = 0
    superseded: int = 0
    denoise_s: float = 0.0
    decode_s: float = 0.0

    def add(self, chunk: FrameChunk) -> None:
        self.frames += chunk.num_frames
        for timing in chunk.timings:
            if timing.stage == "denoiser":
                self.denoise_s += timing.device_s
            elif timing.stage == "decoder":
                self.decode_s += timing.device_s

    def supersede(self, frames: int) -> None:
        """So many of the newest frames are to be sent again."""
        self.frames -= frames
        self.superseded += frames

    def tick(self, fps: int) -> pb.UsageTick:
        return pb.UsageTick(
            frames_sent=self.frames,
            video_seconds=self.frames / fps,
            denoise_seconds=self.denoise_s,
            decode_seconds=self.decode_s,
            frames_superseded=self.superseded,
        )
