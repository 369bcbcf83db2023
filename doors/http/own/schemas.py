"""Bodies of our own API. The OpenAPI document is written from these classes, and requests are checked by them.

They say what kind each field is of; which values a model takes is checked by `service.checks`, whose sentences name limit and value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from doors.http.given import shown
from model_core.enhancement import AS_RENDERED, Enhancement
from service.checks import Problems

MAX_SEED = 2**64 - 1
_MOST, _MOST_COUNT = 2**31 - 1, 2**53 - 1
_MOST_TOLD = 64
_MOST_FRAMES = 256  # of a source, in one message

StreamFormat = Literal["mp4", "mjpeg", "sse"]
FrameCodec = Literal["jpeg", "fmp4", "raw"]
B = TypeVar("B", bound="Body")

Keys = Annotated[list[str], Field(max_length=32)]
Label = Annotated[str, Field(max_length=512)]


class Body(BaseModel):
    """Refuses fields that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class EnhanceBody(Body):
    """What is done to frames after they are decoded."""

    frames: Literal[1, 2] = Field(1, description="Times the frames.")
    size: Literal[1, 2, 4] = Field(1, description="Times the height and the width.")


class VideoBody(Body):
    """What to make."""

    prompt: str = Field(description="What to show.", examples=["a red circle on a blue square"])
    model: str = Field("", description="Name of a model; empty for the default one. See GET /v1/models.")
    seconds: float = Field(4.0, description="Length of the video.", examples=[2.0])
    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="Equal seeds make equal videos. Left out, the server draws one.")
    steps: int = Field(0, ge=0, le=_MOST, description="Denoise steps of each chunk; 0 for the model's default.")
    guidance: float | None = Field(None, description="How strongly the prompt leads; 1 for no guidance.")
    negative_prompt: str | None = Field(None, description="What guidance leads away from.")
    image: str | None = Field(None, description="An image to begin with: a data URI, or bare base64. In a form: a file.")
    video: str | None = Field(None, description="An MP4 to begin with: a data URI, or bare base64. In a form: a file.")
    enhance: EnhanceBody | None = Field(None, description="More and larger frames, where the server enhances. Not in a form.")

    @property
    def enhancement(self) -> Enhancement:
        return AS_RENDERED if self.enhance is None else Enhancement(self.enhance.frames, self.enhance.size)


class StreamBody(VideoBody):
    """A video that is sent while it is made."""

    width: int = Field(0, ge=0, le=_MOST, description="Of the frames; 0 for the model's.")
    height: int = Field(0, ge=0, le=_MOST, description="Of the frames; 0 for the model's.")
    max_lead_seconds: float = Field(0.0, description="How far frames may run ahead of playback; 0 for as fast as they are made.")
    keys: Keys = Field(default_factory=list, description="Held from the first chunk on, in a model that takes actions.")
    format: StreamFormat | None = Field(None, description="Also as a query parameter; left out, the header Accept decides, and else mp4.")
    codec: FrameCodec = Field("jpeg", description="Of the frames in server-sent events.")


class ReplayBody(Body):
    """The last seconds of a session again, slowed down."""

    token: str = Field(description="`resume_token` of the session's `started`.")
    seconds: float = Field(5.0, description="Of the session's playback; as many are shown as the server has recorded.")
    slow: Literal[2, 4] = Field(2, description="Times slower.")
    until_frame: int = Field(0, ge=0, le=_MOST_COUNT, description="It ends with the chunk before this frame; 0: with the newest one.")
    max_lead_seconds: float = Field(0.0, description="How far frames may run ahead of playback; 0 for as fast as they are made.")
    format: StreamFormat | None = Field(None, description="Also as a query parameter; left out, the header Accept decides, and else mp4.")
    codec: FrameCodec = Field("jpeg", description="Of the frames in server-sent events.")


class LiveBody(VideoBody):
    """A session that is steered while it is watched."""

    seconds: float = Field(0.0, description="Length of the video; 0 for one that goes on until it is stopped.")
    width: int = Field(0, ge=0, le=_MOST, description="Of the frames; 0 for the model's.")
    height: int = Field(0, ge=0, le=_MOST, description="Of the frames; 0 for the model's.")
    max_lead_seconds: float = Field(0.0, description="How far frames may run ahead of playback; 0 for the server's own.")
    codec: FrameCodec = Field("fmp4", description="Of the frames.")
    strength: float | None = Field(None, description="Restyle a source that is sent meanwhile: at 1 nothing of it is left.")
    keys: Keys = Field(default_factory=list, description="Held from the first chunk on, in a model that takes actions.")


class SourceFramesBody(Body):
    """Frames of the source of a session that restyles one. They follow in one binary message."""

    first_frame: int = Field(ge=0, le=_MOST_COUNT)
    codec: Literal["jpeg", "raw"] = "jpeg"
    sizes: list[Annotated[int, Field(ge=1, le=_MOST)]] = Field(min_length=1, max_length=_MOST_FRAMES, description="Bytes of each frame.")


class AppliedBody(Body):
    """A change of prompt or keys that the caller was told of; as the event said it."""

    prompt: str
    first_frame: int = Field(ge=0, le=_MOST_COUNT)
    request_id: int = Field(0, ge=0, le=MAX_SEED)
    change: int = Field(0, ge=0, le=_MOST_COUNT)
    keys: Keys = Field(default_factory=list)
    event: Literal["prompt_applied"] = "prompt_applied"


class QualityBody(Body):
    """A change of quality that the caller was told of; as the event said it."""

    steps: int = Field(ge=0, le=_MOST)
    first_frame: int = Field(ge=0, le=_MOST_COUNT)
    reason: str = ""
    event: Literal["quality_changed"] = "quality_changed"


class ResumeBody(Body):
    """Where a session goes on."""

    token: str = Field(description="From the event `started`.")
    next_frame: int = Field(0, ge=0, le=_MOST_COUNT, description="The first frame that has not arrived.")
    acknowledged: list[AppliedBody] = Field(default_factory=list, max_length=_MOST_TOLD, description="The newest, oldest first.")
    quality_changes: list[QualityBody] = Field(default_factory=list, max_length=_MOST_TOLD, description="The same.")


class LiveResumeBody(Body):
    """A session that goes on."""

    resume: ResumeBody
    max_lead_seconds: float = Field(0.0, description="How far frames may run ahead of playback; 0 for the server's own.")


class PromptBody(Body):
    """Another prompt."""

    prompt: str
    request_id: int = Field(0, ge=0, le=MAX_SEED)
    replace_from: int | None = Field(None, ge=0, le=_MOST_COUNT)


class ActBody(Body):
    """The keys that are held from now on, and no others."""

    keys: Keys
    request_id: int = Field(0, ge=0, le=MAX_SEED)
    replace_from: int | None = Field(None, ge=0, le=_MOST_COUNT)


class NothingBody(Body):
    """A request that has no fields."""


class WebhookBody(Body):
    """Where the end of a job is reported."""

    url: str = Field(min_length=1, max_length=2048)
    secret: str = Field("", max_length=512, repr=False, description="Signs the report, as Standard Webhooks has it.")
    metadata: dict[str, Label] = Field(default_factory=dict, max_length=16)


class DestinationBody(Body):
    """A folder of the caller's bucket that the result is written to, too."""

    uri: str = Field(min_length=1, max_length=2048, description="s3://BUCKET/PREFIX")
    owner: str = Field("", max_length=64, description="The AWS account that must own the bucket.")


class JobBody(VideoBody):
    """A video that is made when there is room, and fetched when it is done."""

    width: int = Field(0, ge=0, le=_MOST, description="Of the file: the video is scaled to fit, with black borders. 0 for the model's.")
    height: int = Field(0, ge=0, le=_MOST, description="Of the file; 0 for the model's.")
    tier: Literal["priority", "default", "flex"] = Field("default", description="Which of the queued jobs goes first.")
    labels: dict[str, Label] = Field(default_factory=dict, max_length=64, description="The caller's own.")
    webhook: WebhookBody | None = None
    destination: DestinationBody | None = None
    ttl_seconds: float | None = Field(None, gt=0, description="How long the finished job stays.")


class WebhookEndpointBody(Body):
    """A webhook for all jobs of the caller's tenant."""

    url: str = Field(min_length=1, max_length=2048, description="Where ends of jobs are reported, by https.")


def read(kind: type[B], members: Mapping[str, Any], problems: Problems, *, path: str = "", as_text: bool = False) -> B | None:
    """The body, or None with everything that is wrong with it in `problems`.

    Args:
        path: of the body in what was sent, with a dot at the end.
        as_text: numbers and flags come as text, as forms have them.
    """
    try:
        return kind.model_validate(dict(members), strict=not as_text)
    except ValidationError as error:
        for each in error.errors(include_url=False, include_context=False):
            field = ".".join(str(part) for part in each["loc"])[:128] or "body"
            problems.add(f"{path}{field}", _sentence(each["type"], each["msg"], each["input"]))
    except (OverflowError, ValueError) as error:
        problems.add("body", f"must hold numbers that can be read; {str(error)[:100]}")
    return None


def _sentence(kind: str, message: str, value: object) -> str:
    if kind == "missing":
        return "is required; got none"
    if kind == "extra_forbidden":
        return f"is no field of this request; got {shown(value)}"
    return f"{message.replace('Input should be', 'must be').replace('should have', 'must have')}; got {shown(value)}"
