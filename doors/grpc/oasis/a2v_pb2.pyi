from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ErrorCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_CODE_UNSPECIFIED: _ClassVar[ErrorCode]
    ERROR_CODE_INVALID_SESSION: _ClassVar[ErrorCode]
    ERROR_CODE_ALREADY_FINISHED: _ClassVar[ErrorCode]
    ERROR_CODE_INVALID_REQUEST: _ClassVar[ErrorCode]
    ERROR_CODE_INVALID_MODEL: _ClassVar[ErrorCode]
    ERROR_CODE_INVALID_FORMAT: _ClassVar[ErrorCode]
    ERROR_CODE_INVALID_ENVIRONMENTS: _ClassVar[ErrorCode]
    ERROR_CODE_PROMPT_SET: _ClassVar[ErrorCode]
    ERROR_CODE_UNSUPPORTED_SDK_VERSION: _ClassVar[ErrorCode]
    ERROR_CODE_INVALID_API_KEY: _ClassVar[ErrorCode]

class FrameFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FRAME_FORMAT_UNSPECIFIED: _ClassVar[FrameFormat]
    FRAME_FORMAT_JPEG: _ClassVar[FrameFormat]
    FRAME_FORMAT_H264: _ClassVar[FrameFormat]
    FRAME_FORMAT_VP9: _ClassVar[FrameFormat]
    FRAME_FORMAT_VP8: _ClassVar[FrameFormat]
    FRAME_FORMAT_RAW_YUV420: _ClassVar[FrameFormat]

class SensorType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SENSOR_TYPE_UNSPECIFIED: _ClassVar[SensorType]
    SENSOR_TYPE_RGB: _ClassVar[SensorType]
ERROR_CODE_UNSPECIFIED: ErrorCode
ERROR_CODE_INVALID_SESSION: ErrorCode
ERROR_CODE_ALREADY_FINISHED: ErrorCode
ERROR_CODE_INVALID_REQUEST: ErrorCode
ERROR_CODE_INVALID_MODEL: ErrorCode
ERROR_CODE_INVALID_FORMAT: ErrorCode
ERROR_CODE_INVALID_ENVIRONMENTS: ErrorCode
ERROR_CODE_PROMPT_SET: ErrorCode
ERROR_CODE_UNSUPPORTED_SDK_VERSION: ErrorCode
ERROR_CODE_INVALID_API_KEY: ErrorCode
FRAME_FORMAT_UNSPECIFIED: FrameFormat
FRAME_FORMAT_JPEG: FrameFormat
FRAME_FORMAT_H264: FrameFormat
FRAME_FORMAT_VP9: FrameFormat
FRAME_FORMAT_VP8: FrameFormat
FRAME_FORMAT_RAW_YUV420: FrameFormat
SENSOR_TYPE_UNSPECIFIED: SensorType
SENSOR_TYPE_RGB: SensorType

class Error(_message.Message):
    __slots__ = ("code", "message", "details")
    class DetailsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    code: ErrorCode
    message: str
    details: _containers.ScalarMap[str, str]
    def __init__(self, code: _Optional[_Union[ErrorCode, str]] = ..., message: _Optional[str] = ..., details: _Optional[_Mapping[str, str]] = ...) -> None: ...

class StreamInfo(_message.Message):
    __slots__ = ("name", "type", "height", "width")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: SensorType
    height: int
    width: int
    def __init__(self, name: _Optional[str] = ..., type: _Optional[_Union[SensorType, str]] = ..., height: _Optional[int] = ..., width: _Optional[int] = ...) -> None: ...

class InitializeRequest(_message.Message):
    __slots__ = ("client_sdk_version", "api_key", "accepted_output_formats")
    CLIENT_SDK_VERSION_FIELD_NUMBER: _ClassVar[int]
    API_KEY_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_OUTPUT_FORMATS_FIELD_NUMBER: _ClassVar[int]
    client_sdk_version: str
    api_key: str
    accepted_output_formats: _containers.RepeatedScalarFieldContainer[FrameFormat]
    def __init__(self, client_sdk_version: _Optional[str] = ..., api_key: _Optional[str] = ..., accepted_output_formats: _Optional[_Iterable[_Union[FrameFormat, str]]] = ...) -> None: ...

class InitializeResponse(_message.Message):
    __slots__ = ("error", "session_id", "output_format", "streams")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FORMAT_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    error: Error
    session_id: str
    output_format: FrameFormat
    streams: _containers.RepeatedCompositeFieldContainer[StreamInfo]
    def __init__(self, error: _Optional[_Union[Error, _Mapping]] = ..., session_id: _Optional[str] = ..., output_format: _Optional[_Union[FrameFormat, str]] = ..., streams: _Optional[_Iterable[_Union[StreamInfo, _Mapping]]] = ...) -> None: ...

class PromptRequest(_message.Message):
    __slots__ = ("session_id", "prompt")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    prompt: str
    def __init__(self, session_id: _Optional[str] = ..., prompt: _Optional[str] = ...) -> None: ...

class PromptResponse(_message.Message):
    __slots__ = ("error",)
    ERROR_FIELD_NUMBER: _ClassVar[int]
    error: Error
    def __init__(self, error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class Action(_message.Message):
    __slots__ = ("throttle", "steering")
    THROTTLE_FIELD_NUMBER: _ClassVar[int]
    STEERING_FIELD_NUMBER: _ClassVar[int]
    throttle: float
    steering: float
    def __init__(self, throttle: _Optional[float] = ..., steering: _Optional[float] = ...) -> None: ...

class InferRequest(_message.Message):
    __slots__ = ("session_id", "sequence_num", "actions")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_NUM_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    sequence_num: int
    actions: _containers.RepeatedCompositeFieldContainer[Action]
    def __init__(self, session_id: _Optional[str] = ..., sequence_num: _Optional[int] = ..., actions: _Optional[_Iterable[_Union[Action, _Mapping]]] = ...) -> None: ...

class OutputStream(_message.Message):
    __slots__ = ("name", "frames")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    name: str
    frames: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, name: _Optional[str] = ..., frames: _Optional[_Iterable[bytes]] = ...) -> None: ...

class InferResponse(_message.Message):
    __slots__ = ("sequence_num", "error", "streams")
    SEQUENCE_NUM_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    sequence_num: int
    error: Error
    streams: _containers.RepeatedCompositeFieldContainer[OutputStream]
    def __init__(self, sequence_num: _Optional[int] = ..., error: _Optional[_Union[Error, _Mapping]] = ..., streams: _Optional[_Iterable[_Union[OutputStream, _Mapping]]] = ...) -> None: ...

class FinishRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class FinishResponse(_message.Message):
    __slots__ = ("error",)
    ERROR_FIELD_NUMBER: _ClassVar[int]
    error: Error
    def __init__(self, error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...
