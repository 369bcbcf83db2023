"""What callers ask for, in plain values, and the checked orders that come of it.

A door reads its wire into a `VideoRequest` or a `ResumeRequest`. `service.intake` checks it and makes an `Order`, which a session serves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from model_core.acts import Keys
from model_core.config import Media, ModelConfig
from model_core.enhancement import AS_RENDERED, Enhancement
from model_core.errors import FieldViolation, InvalidRequest
from model_core.reconcile import Reconciled
from model_core.request import SessionRequest
from model_core.session import PromptApplied, StepsApplied
from model_core.types import Codec
from model_core.uploads.upload import Upload
from service.watch_token import watch_token

DEFAULT_CODEC = Codec.JPEG


class Mode(Enum):
    """How the caller gets the video: as a file that it waits for, as one for later, as frames as they are made, or as frames to steer."""

    FILE = auto()
    JOB = auto()
    STREAM = auto()
    LIVE = auto()

    @property
    def whole(self) -> bool:
        """The caller gets one file, of which a part is of no use."""
        return self in {Mode.FILE, Mode.JOB}


@dataclass(frozen=True, slots=True)
class Doorway:
    """How one request came in, so that errors name its fields as the caller wrote them.

    Attributes:
        mode: how the caller gets the video.
        prefix: the path of the request's fields in the message that was sent.
        names: whole paths of the fields that stand elsewhere, or that the door calls otherwise.
        lacks: says why this caller cannot be sent a model's frames in some codec; nothing where it can.
    """

    mode: Mode
    prefix: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    lacks: Callable[[Codec, ModelConfig], Sequence[FieldViolation]] = lambda _codec, _config: ()

    def path(self, name: str) -> str:
        """What the caller calls the field `name`."""
        return self.names.get(name, f"{self.prefix}{name}")

    def named(self, error: InvalidRequest, below: str = "") -> InvalidRequest:
        """`error`, about fields `below` another one, with the caller's names."""
        return InvalidRequest(tuple(FieldViolation(self.path(below + v.field), v.description) for v in error.violations))


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRequest:
    """A new session, as the caller asked for it. Nothing is checked yet. Zero and None leave a field to the model or the server.

    Attributes:
        prompt: what to show.
        model: its name.
        seconds: length; 0 means until stopped, where `Mode.LIVE` allows it.
        width, height: of the frames.
        steps: denoise steps a chunk.
        footage: the kind and the bytes of an image or video to begin with.
        codec: of the frames; a file has its own.
        max_lead_seconds: how far frames may run ahead of playback; 0 means unpaced, in `Mode.STREAM`.
        later_prompts: what to show from so many seconds on, each until the next, ascending. A chunk has one prompt.
        strength: for a session that restyles a source, in `Mode.LIVE`; see `model_core.types.Restyle`.
        enhance: what is done to decoded frames. `width` and `height` are those of decoded frames.
        keys: that are held from the first chunk on, in a model that takes actions.
    """

    prompt: str
    model: str = ""
    seconds: float = 0.0
    seed: int | None = None
    width: int = 0
    height: int = 0
    steps: int = 0
    guidance: float | None = None
    negative_prompt: str | None = None
    footage: tuple[Media, bytes] | None = None
    codec: Codec = DEFAULT_CODEC
    max_lead_seconds: float = 0.0
    later_prompts: tuple[tuple[float, str], ...] = ()
    strength: float | None = None
    enhance: Enhancement = AS_RENDERED
    keys: Keys = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeRequest:
    """A session that goes on, as the caller asked for it. Nothing is checked yet.

    Attributes:
        token: from `Started`.
        next_frame: the first frame that the caller lacks.
        acknowledged, quality_changes: what the caller was told of the newest chunks. The record may lack it.
        max_lead_seconds: as in `VideoRequest`.
    """

    token: str
    next_frame: int = 0
    acknowledged: tuple[PromptApplied, ...] = ()
    quality_changes: tuple[StepsApplied, ...] = ()
    max_lead_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where a session goes on: its story, as record and caller know it together, and the next frame."""

    story: Reconciled
    next_frame: int

    @property
    def known_steps(self) -> int:
        """Denoise steps in force, as far as the caller knows."""
        known = [steps for entry in self.story.record.steps if entry not in self.story.steps for _, steps in [entry]]
        return known[-1] if known else self.story.record.num_steps


@dataclass(frozen=True, slots=True)
class Order:
    """A checked request: what to make, with which model, and how far ahead of playback (0: unpaced).

    Attributes:
        config: the model, as what is made of it is shown: see `ModelConfig.shown`.
        doorway: how the request came in.
        token: resumes the session; empty for one that cannot be resumed.
        holder: this connection, to the session store.
        resume: for a session that goes on.
        claim: takes that session from the connection that holds it, and returns the order as of then.
        upload: the image or video for a new session, still to be decoded.
        replays: it begins within a record and is a new session all the same.
    """

    request: SessionRequest
    config: ModelConfig
    max_lead_s: float
    doorway: Doorway
    token: str = ""
    holder: str = ""
    resume: ResumePoint | None = None
    claim: Callable[[], Awaitable[Order]] | None = None
    upload: Upload | None = None
    replays: bool = False

    @property
    def goes_on(self) -> bool:
        """An earlier connection had the session."""
        return self.resume is not None and not self.replays

    @property
    def watch_token(self) -> str:
        """What others need to watch the session; empty where it cannot be watched."""
        return watch_token(self.token) if self.token else ""
