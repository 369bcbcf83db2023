from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Codec(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODEC_UNSPECIFIED: _ClassVar[Codec]
    CODEC_RAW_RGB: _ClassVar[Codec]
    CODEC_JPEG: _ClassVar[Codec]
    CODEC_FMP4_H264: _ClassVar[Codec]

class SourceDropReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SOURCE_DROP_REASON_UNSPECIFIED: _ClassVar[SourceDropReason]
    SOURCE_DROP_REASON_LATE: _ClassVar[SourceDropReason]
    SOURCE_DROP_REASON_GAP: _ClassVar[SourceDropReason]
    SOURCE_DROP_REASON_FULL: _ClassVar[SourceDropReason]
    SOURCE_DROP_REASON_ENDED: _ClassVar[SourceDropReason]

class QualityReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QUALITY_REASON_UNSPECIFIED: _ClassVar[QualityReason]
    QUALITY_REASON_LOAD: _ClassVar[QualityReason]
    QUALITY_REASON_RECOVERED: _ClassVar[QualityReason]

class EndReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    END_REASON_UNSPECIFIED: _ClassVar[EndReason]
    END_REASON_COMPLETED: _ClassVar[EndReason]
    END_REASON_STOPPED: _ClassVar[EndReason]
    END_REASON_SERVER_DRAINING: _ClassVar[EndReason]
    END_REASON_PAUSED: _ClassVar[EndReason]
CODEC_UNSPECIFIED: Codec
CODEC_RAW_RGB: Codec
CODEC_JPEG: Codec
CODEC_FMP4_H264: Codec
SOURCE_DROP_REASON_UNSPECIFIED: SourceDropReason
SOURCE_DROP_REASON_LATE: SourceDropReason
SOURCE_DROP_REASON_GAP: SourceDropReason
SOURCE_DROP_REASON_FULL: SourceDropReason
SOURCE_DROP_REASON_ENDED: SourceDropReason
QUALITY_REASON_UNSPECIFIED: QualityReason
QUALITY_REASON_LOAD: QualityReason
QUALITY_REASON_RECOVERED: QualityReason
END_REASON_UNSPECIFIED: EndReason
END_REASON_COMPLETED: EndReason
END_REASON_STOPPED: EndReason
END_REASON_SERVER_DRAINING: EndReason
END_REASON_PAUSED: EndReason

class VideoSpec(_message.Message):
    __slots__ = ("model", "prompt", "seconds", "seed", "width", "height", "steps", "image", "video", "guidance", "negative_prompt", "strength", "keys", "enhance")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    VIDEO_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_PROMPT_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    ENHANCE_FIELD_NUMBER: _ClassVar[int]
    model: str
    prompt: str
    seconds: float
    seed: int
    width: int
    height: int
    steps: int
    image: bytes
    video: bytes
    guidance: float
    negative_prompt: str
    strength: float
    keys: _containers.RepeatedScalarFieldContainer[str]
    enhance: Enhance
    def __init__(self, model: _Optional[str] = ..., prompt: _Optional[str] = ..., seconds: _Optional[float] = ..., seed: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., steps: _Optional[int] = ..., image: _Optional[bytes] = ..., video: _Optional[bytes] = ..., guidance: _Optional[float] = ..., negative_prompt: _Optional[str] = ..., strength: _Optional[float] = ..., keys: _Optional[_Iterable[str]] = ..., enhance: _Optional[_Union[Enhance, _Mapping]] = ...) -> None: ...

class Enhance(_message.Message):
    __slots__ = ("frames", "size")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    frames: int
    size: int
    def __init__(self, frames: _Optional[int] = ..., size: _Optional[int] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("spec", "max_message_bytes")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    spec: VideoSpec
    max_message_bytes: int
    def __init__(self, spec: _Optional[_Union[VideoSpec, _Mapping]] = ..., max_message_bytes: _Optional[int] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("mp4", "started", "ended")
    MP4_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    mp4: bytes
    started: Started
    ended: Ended
    def __init__(self, mp4: _Optional[bytes] = ..., started: _Optional[_Union[Started, _Mapping]] = ..., ended: _Optional[_Union[Ended, _Mapping]] = ...) -> None: ...

class StreamRequest(_message.Message):
    __slots__ = ("spec", "codec", "max_lead_seconds", "resume", "max_message_bytes")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    MAX_LEAD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    spec: VideoSpec
    codec: Codec
    max_lead_seconds: float
    resume: SessionResume
    max_message_bytes: int
    def __init__(self, spec: _Optional[_Union[VideoSpec, _Mapping]] = ..., codec: _Optional[_Union[Codec, str]] = ..., max_lead_seconds: _Optional[float] = ..., resume: _Optional[_Union[SessionResume, _Mapping]] = ..., max_message_bytes: _Optional[int] = ...) -> None: ...

class SessionResume(_message.Message):
    __slots__ = ("token", "next_frame", "acknowledged", "quality_changes")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    NEXT_FRAME_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    QUALITY_CHANGES_FIELD_NUMBER: _ClassVar[int]
    token: str
    next_frame: int
    acknowledged: _containers.RepeatedCompositeFieldContainer[PromptAck]
    quality_changes: _containers.RepeatedCompositeFieldContainer[QualityChange]
    def __init__(self, token: _Optional[str] = ..., next_frame: _Optional[int] = ..., acknowledged: _Optional[_Iterable[_Union[PromptAck, _Mapping]]] = ..., quality_changes: _Optional[_Iterable[_Union[QualityChange, _Mapping]]] = ...) -> None: ...

class StreamResponse(_message.Message):
    __slots__ = ("started", "queue_position", "frames", "ended", "quality_change")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    QUALITY_CHANGE_FIELD_NUMBER: _ClassVar[int]
    started: Started
    queue_position: QueuePosition
    frames: Frames
    ended: Ended
    quality_change: QualityChange
    def __init__(self, started: _Optional[_Union[Started, _Mapping]] = ..., queue_position: _Optional[_Union[QueuePosition, _Mapping]] = ..., frames: _Optional[_Union[Frames, _Mapping]] = ..., ended: _Optional[_Union[Ended, _Mapping]] = ..., quality_change: _Optional[_Union[QualityChange, _Mapping]] = ...) -> None: ...

class LiveRequest(_message.Message):
    __slots__ = ("start", "prompt", "pause", "resume", "stop", "source_frames", "source_end", "act")
    START_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    PAUSE_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FRAMES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_END_FIELD_NUMBER: _ClassVar[int]
    ACT_FIELD_NUMBER: _ClassVar[int]
    start: LiveStart
    prompt: PromptChange
    pause: Pause
    resume: Resume
    stop: Stop
    source_frames: SourceFrames
    source_end: SourceEnd
    act: Act
    def __init__(self, start: _Optional[_Union[LiveStart, _Mapping]] = ..., prompt: _Optional[_Union[PromptChange, _Mapping]] = ..., pause: _Optional[_Union[Pause, _Mapping]] = ..., resume: _Optional[_Union[Resume, _Mapping]] = ..., stop: _Optional[_Union[Stop, _Mapping]] = ..., source_frames: _Optional[_Union[SourceFrames, _Mapping]] = ..., source_end: _Optional[_Union[SourceEnd, _Mapping]] = ..., act: _Optional[_Union[Act, _Mapping]] = ...) -> None: ...

class LiveStart(_message.Message):
    __slots__ = ("spec", "codec", "max_lead_seconds", "resume", "max_message_bytes")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    MAX_LEAD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    spec: VideoSpec
    codec: Codec
    max_lead_seconds: float
    resume: SessionResume
    max_message_bytes: int
    def __init__(self, spec: _Optional[_Union[VideoSpec, _Mapping]] = ..., codec: _Optional[_Union[Codec, str]] = ..., max_lead_seconds: _Optional[float] = ..., resume: _Optional[_Union[SessionResume, _Mapping]] = ..., max_message_bytes: _Optional[int] = ...) -> None: ...

class PromptChange(_message.Message):
    __slots__ = ("prompt", "request_id", "replace_from")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FROM_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    request_id: int
    replace_from: int
    def __init__(self, prompt: _Optional[str] = ..., request_id: _Optional[int] = ..., replace_from: _Optional[int] = ...) -> None: ...

class Act(_message.Message):
    __slots__ = ("keys", "request_id", "replace_from")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REPLACE_FROM_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedScalarFieldContainer[str]
    request_id: int
    replace_from: int
    def __init__(self, keys: _Optional[_Iterable[str]] = ..., request_id: _Optional[int] = ..., replace_from: _Optional[int] = ...) -> None: ...

class Pause(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Resume(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Stop(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SourceFrames(_message.Message):
    __slots__ = ("first_frame", "codec", "data")
    FIRST_FRAME_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    first_frame: int
    codec: Codec
    data: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, first_frame: _Optional[int] = ..., codec: _Optional[_Union[Codec, str]] = ..., data: _Optional[_Iterable[bytes]] = ...) -> None: ...

class SourceEnd(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SourceTaken(_message.Message):
    __slots__ = ("next_frame", "until_frame")
    NEXT_FRAME_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FRAME_FIELD_NUMBER: _ClassVar[int]
    next_frame: int
    until_frame: int
    def __init__(self, next_frame: _Optional[int] = ..., until_frame: _Optional[int] = ...) -> None: ...

class SourceDropped(_message.Message):
    __slots__ = ("first_frame", "frames", "reason", "next_frame")
    FIRST_FRAME_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    NEXT_FRAME_FIELD_NUMBER: _ClassVar[int]
    first_frame: int
    frames: int
    reason: SourceDropReason
    next_frame: int
    def __init__(self, first_frame: _Optional[int] = ..., frames: _Optional[int] = ..., reason: _Optional[_Union[SourceDropReason, str]] = ..., next_frame: _Optional[int] = ...) -> None: ...

class LiveResponse(_message.Message):
    __slots__ = ("started", "queue_position", "prompt_ack", "frames", "usage", "paused", "resumed", "ended", "prompt_refused", "quality_change", "source_taken", "source_dropped")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    PROMPT_ACK_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    PROMPT_REFUSED_FIELD_NUMBER: _ClassVar[int]
    QUALITY_CHANGE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_TAKEN_FIELD_NUMBER: _ClassVar[int]
    SOURCE_DROPPED_FIELD_NUMBER: _ClassVar[int]
    started: Started
    queue_position: QueuePosition
    prompt_ack: PromptAck
    frames: Frames
    usage: UsageTick
    paused: Paused
    resumed: Resumed
    ended: Ended
    prompt_refused: PromptRefused
    quality_change: QualityChange
    source_taken: SourceTaken
    source_dropped: SourceDropped
    def __init__(self, started: _Optional[_Union[Started, _Mapping]] = ..., queue_position: _Optional[_Union[QueuePosition, _Mapping]] = ..., prompt_ack: _Optional[_Union[PromptAck, _Mapping]] = ..., frames: _Optional[_Union[Frames, _Mapping]] = ..., usage: _Optional[_Union[UsageTick, _Mapping]] = ..., paused: _Optional[_Union[Paused, _Mapping]] = ..., resumed: _Optional[_Union[Resumed, _Mapping]] = ..., ended: _Optional[_Union[Ended, _Mapping]] = ..., prompt_refused: _Optional[_Union[PromptRefused, _Mapping]] = ..., quality_change: _Optional[_Union[QualityChange, _Mapping]] = ..., source_taken: _Optional[_Union[SourceTaken, _Mapping]] = ..., source_dropped: _Optional[_Union[SourceDropped, _Mapping]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("token", "max_message_bytes")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    token: str
    max_message_bytes: int
    def __init__(self, token: _Optional[str] = ..., max_message_bytes: _Optional[int] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("started", "frames", "prompt_ack", "quality_change", "paused", "resumed", "skipped", "ended")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    PROMPT_ACK_FIELD_NUMBER: _ClassVar[int]
    QUALITY_CHANGE_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    started: Started
    frames: Frames
    prompt_ack: PromptAck
    quality_change: QualityChange
    paused: Paused
    resumed: Resumed
    skipped: Skipped
    ended: Ended
    def __init__(self, started: _Optional[_Union[Started, _Mapping]] = ..., frames: _Optional[_Union[Frames, _Mapping]] = ..., prompt_ack: _Optional[_Union[PromptAck, _Mapping]] = ..., quality_change: _Optional[_Union[QualityChange, _Mapping]] = ..., paused: _Optional[_Union[Paused, _Mapping]] = ..., resumed: _Optional[_Union[Resumed, _Mapping]] = ..., skipped: _Optional[_Union[Skipped, _Mapping]] = ..., ended: _Optional[_Union[Ended, _Mapping]] = ...) -> None: ...

class Skipped(_message.Message):
    __slots__ = ("frames", "next_frame")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    NEXT_FRAME_FIELD_NUMBER: _ClassVar[int]
    frames: int
    next_frame: int
    def __init__(self, frames: _Optional[int] = ..., next_frame: _Optional[int] = ...) -> None: ...

class ReplayRequest(_message.Message):
    __slots__ = ("token", "seconds", "slow", "codec", "until_frame", "max_lead_seconds", "max_message_bytes")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    SLOW_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FRAME_FIELD_NUMBER: _ClassVar[int]
    MAX_LEAD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    token: str
    seconds: float
    slow: int
    codec: Codec
    until_frame: int
    max_lead_seconds: float
    max_message_bytes: int
    def __init__(self, token: _Optional[str] = ..., seconds: _Optional[float] = ..., slow: _Optional[int] = ..., codec: _Optional[_Union[Codec, str]] = ..., until_frame: _Optional[int] = ..., max_lead_seconds: _Optional[float] = ..., max_message_bytes: _Optional[int] = ...) -> None: ...

class ReplayResponse(_message.Message):
    __slots__ = ("started", "queue_position", "frames", "ended", "quality_change")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    QUALITY_CHANGE_FIELD_NUMBER: _ClassVar[int]
    started: Started
    queue_position: QueuePosition
    frames: Frames
    ended: Ended
    quality_change: QualityChange
    def __init__(self, started: _Optional[_Union[Started, _Mapping]] = ..., queue_position: _Optional[_Union[QueuePosition, _Mapping]] = ..., frames: _Optional[_Union[Frames, _Mapping]] = ..., ended: _Optional[_Union[Ended, _Mapping]] = ..., quality_change: _Optional[_Union[QualityChange, _Mapping]] = ...) -> None: ...

class Started(_message.Message):
    __slots__ = ("session_id", "model", "seed", "width", "height", "fps", "frames_per_chunk", "steps", "codec", "codec_header", "resume_token", "watch_token", "next_frame", "degraded", "source")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    FPS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_PER_CHUNK_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    CODEC_HEADER_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    WATCH_TOKEN_FIELD_NUMBER: _ClassVar[int]
    NEXT_FRAME_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    model: str
    seed: int
    width: int
    height: int
    fps: int
    frames_per_chunk: int
    steps: int
    codec: Codec
    codec_header: bytes
    resume_token: str
    watch_token: str
    next_frame: int
    degraded: bool
    source: SourceTaken
    def __init__(self, session_id: _Optional[str] = ..., model: _Optional[str] = ..., seed: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., fps: _Optional[int] = ..., frames_per_chunk: _Optional[int] = ..., steps: _Optional[int] = ..., codec: _Optional[_Union[Codec, str]] = ..., codec_header: _Optional[bytes] = ..., resume_token: _Optional[str] = ..., watch_token: _Optional[str] = ..., next_frame: _Optional[int] = ..., degraded: _Optional[bool] = ..., source: _Optional[_Union[SourceTaken, _Mapping]] = ...) -> None: ...

class QualityChange(_message.Message):
    __slots__ = ("steps", "first_frame", "reason")
    STEPS_FIELD_NUMBER: _ClassVar[int]
    FIRST_FRAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    steps: int
    first_frame: int
    reason: QualityReason
    def __init__(self, steps: _Optional[int] = ..., first_frame: _Optional[int] = ..., reason: _Optional[_Union[QualityReason, str]] = ...) -> None: ...

class QueuePosition(_message.Message):
    __slots__ = ("position",)
    POSITION_FIELD_NUMBER: _ClassVar[int]
    position: int
    def __init__(self, position: _Optional[int] = ...) -> None: ...

class Frames(_message.Message):
    __slots__ = ("chunk_index", "first_frame", "frame_count", "codec", "data", "timings", "keys")
    CHUNK_INDEX_FIELD_NUMBER: _ClassVar[int]
    FIRST_FRAME_FIELD_NUMBER: _ClassVar[int]
    FRAME_COUNT_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    chunk_index: int
    first_frame: int
    frame_count: int
    codec: Codec
    data: _containers.RepeatedScalarFieldContainer[bytes]
    timings: _containers.RepeatedCompositeFieldContainer[StageTiming]
    keys: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, chunk_index: _Optional[int] = ..., first_frame: _Optional[int] = ..., frame_count: _Optional[int] = ..., codec: _Optional[_Union[Codec, str]] = ..., data: _Optional[_Iterable[bytes]] = ..., timings: _Optional[_Iterable[_Union[StageTiming, _Mapping]]] = ..., keys: _Optional[_Iterable[str]] = ...) -> None: ...

class StageTiming(_message.Message):
    __slots__ = ("stage", "queue_seconds", "service_seconds", "device_seconds")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SERVICE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    stage: str
    queue_seconds: float
    service_seconds: float
    device_seconds: float
    def __init__(self, stage: _Optional[str] = ..., queue_seconds: _Optional[float] = ..., service_seconds: _Optional[float] = ..., device_seconds: _Optional[float] = ...) -> None: ...

class PromptAck(_message.Message):
    __slots__ = ("prompt", "first_frame", "request_id", "change", "keys")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    FIRST_FRAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    first_frame: int
    request_id: int
    change: int
    keys: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, prompt: _Optional[str] = ..., first_frame: _Optional[int] = ..., request_id: _Optional[int] = ..., change: _Optional[int] = ..., keys: _Optional[_Iterable[str]] = ...) -> None: ...

class PromptRefused(_message.Message):
    __slots__ = ("request_id", "violations", "message")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    request_id: int
    violations: _containers.RepeatedCompositeFieldContainer[Violation]
    message: str
    def __init__(self, request_id: _Optional[int] = ..., violations: _Optional[_Iterable[_Union[Violation, _Mapping]]] = ..., message: _Optional[str] = ...) -> None: ...

class Violation(_message.Message):
    __slots__ = ("field", "description")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    field: str
    description: str
    def __init__(self, field: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

class UsageTick(_message.Message):
    __slots__ = ("frames_sent", "video_seconds", "denoise_seconds", "decode_seconds", "frames_superseded", "pixels", "steps", "source_frames", "source_dropped", "source_delay_seconds", "frames_rendered", "pixels_enhanced", "enhance_seconds")
    FRAMES_SENT_FIELD_NUMBER: _ClassVar[int]
    VIDEO_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DENOISE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DECODE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_SUPERSEDED_FIELD_NUMBER: _ClassVar[int]
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FRAMES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_DROPPED_FIELD_NUMBER: _ClassVar[int]
    SOURCE_DELAY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_RENDERED_FIELD_NUMBER: _ClassVar[int]
    PIXELS_ENHANCED_FIELD_NUMBER: _ClassVar[int]
    ENHANCE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    frames_sent: int
    video_seconds: float
    denoise_seconds: float
    decode_seconds: float
    frames_superseded: int
    pixels: int
    steps: int
    source_frames: int
    source_dropped: int
    source_delay_seconds: float
    frames_rendered: int
    pixels_enhanced: int
    enhance_seconds: float
    def __init__(self, frames_sent: _Optional[int] = ..., video_seconds: _Optional[float] = ..., denoise_seconds: _Optional[float] = ..., decode_seconds: _Optional[float] = ..., frames_superseded: _Optional[int] = ..., pixels: _Optional[int] = ..., steps: _Optional[int] = ..., source_frames: _Optional[int] = ..., source_dropped: _Optional[int] = ..., source_delay_seconds: _Optional[float] = ..., frames_rendered: _Optional[int] = ..., pixels_enhanced: _Optional[int] = ..., enhance_seconds: _Optional[float] = ...) -> None: ...

class Paused(_message.Message):
    __slots__ = ("next_frame",)
    NEXT_FRAME_FIELD_NUMBER: _ClassVar[int]
    next_frame: int
    def __init__(self, next_frame: _Optional[int] = ...) -> None: ...

class Resumed(_message.Message):
    __slots__ = ("next_frame",)
    NEXT_FRAME_FIELD_NUMBER: _ClassVar[int]
    next_frame: int
    def __init__(self, next_frame: _Optional[int] = ...) -> None: ...

class Ended(_message.Message):
    __slots__ = ("reason", "usage")
    REASON_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    reason: EndReason
    usage: UsageTick
    def __init__(self, reason: _Optional[_Union[EndReason, str]] = ..., usage: _Optional[_Union[UsageTick, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "description", "fps", "sizes", "default_steps", "max_steps", "max_prompt_bytes", "max_generate_seconds", "max_stream_seconds", "frames_per_chunk", "codecs", "default_model", "image", "video", "min_steps", "max_prompt_tokens", "default_guidance", "max_guidance", "default_negative_prompt", "restyles", "max_source_bytes", "enhances", "keys")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    FPS_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_STEPS_FIELD_NUMBER: _ClassVar[int]
    MAX_STEPS_FIELD_NUMBER: _ClassVar[int]
    MAX_PROMPT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_GENERATE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_STREAM_SECONDS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_PER_CHUNK_FIELD_NUMBER: _ClassVar[int]
    CODECS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    VIDEO_FIELD_NUMBER: _ClassVar[int]
    MIN_STEPS_FIELD_NUMBER: _ClassVar[int]
    MAX_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_GUIDANCE_FIELD_NUMBER: _ClassVar[int]
    MAX_GUIDANCE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_NEGATIVE_PROMPT_FIELD_NUMBER: _ClassVar[int]
    RESTYLES_FIELD_NUMBER: _ClassVar[int]
    MAX_SOURCE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ENHANCES_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    fps: int
    sizes: _containers.RepeatedCompositeFieldContainer[Size]
    default_steps: int
    max_steps: int
    max_prompt_bytes: int
    max_generate_seconds: float
    max_stream_seconds: float
    frames_per_chunk: int
    codecs: _containers.RepeatedScalarFieldContainer[Codec]
    default_model: bool
    image: FootageInput
    video: FootageInput
    min_steps: int
    max_prompt_tokens: int
    default_guidance: float
    max_guidance: float
    default_negative_prompt: str
    restyles: bool
    max_source_bytes: int
    enhances: bool
    keys: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., fps: _Optional[int] = ..., sizes: _Optional[_Iterable[_Union[Size, _Mapping]]] = ..., default_steps: _Optional[int] = ..., max_steps: _Optional[int] = ..., max_prompt_bytes: _Optional[int] = ..., max_generate_seconds: _Optional[float] = ..., max_stream_seconds: _Optional[float] = ..., frames_per_chunk: _Optional[int] = ..., codecs: _Optional[_Iterable[_Union[Codec, str]]] = ..., default_model: _Optional[bool] = ..., image: _Optional[_Union[FootageInput, _Mapping]] = ..., video: _Optional[_Union[FootageInput, _Mapping]] = ..., min_steps: _Optional[int] = ..., max_prompt_tokens: _Optional[int] = ..., default_guidance: _Optional[float] = ..., max_guidance: _Optional[float] = ..., default_negative_prompt: _Optional[str] = ..., restyles: _Optional[bool] = ..., max_source_bytes: _Optional[int] = ..., enhances: _Optional[bool] = ..., keys: _Optional[_Iterable[str]] = ...) -> None: ...

class FootageInput(_message.Message):
    __slots__ = ("required", "max_bytes", "max_pixels", "formats", "min_frames", "max_frames")
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_PIXELS_FIELD_NUMBER: _ClassVar[int]
    FORMATS_FIELD_NUMBER: _ClassVar[int]
    MIN_FRAMES_FIELD_NUMBER: _ClassVar[int]
    MAX_FRAMES_FIELD_NUMBER: _ClassVar[int]
    required: bool
    max_bytes: int
    max_pixels: int
    formats: _containers.RepeatedScalarFieldContainer[str]
    min_frames: int
    max_frames: int
    def __init__(self, required: _Optional[bool] = ..., max_bytes: _Optional[int] = ..., max_pixels: _Optional[int] = ..., formats: _Optional[_Iterable[str]] = ..., min_frames: _Optional[int] = ..., max_frames: _Optional[int] = ...) -> None: ...

class Size(_message.Message):
    __slots__ = ("width", "height")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...
