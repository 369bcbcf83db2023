"""Wire requests to checked orders. Pure functions: everything wrong with a request is found at once, and named.

Each violation says the field's path in the message that was sent, the limit, and the value.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar, cast

from doors.grpc.message_size import DEFAULT_BYTES, FIELD, MIN_BYTES, raw_frame_problem
from doors.grpc.wire import CODECS, DEFAULT_CODEC
from headrace.v1 import video_pb2 as pb
from model_core.config import ModelConfig
from model_core.errors import FieldViolation, InvalidRequest
from model_core.request import SessionRequest, guidance_limit
from model_core.session_log import Reconciled
from model_core.types import Codec
from model_core.uploads.upload import Upload, UploadLimits, bounded

T = TypeVar("T")
Control = Literal["prompt", "pause", "resume", "stop"]

_SHOWN_CHARS = 64
_MAX_TOKEN_CHARS = 256
_MAX_ACKNOWLEDGED = 32
_MAX_CHANGE = 2**32 - 1  # the session counts on from it


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one caller may ask for; ListModels tells it.

    Attributes:
        max_prompt_bytes: of UTF-8.
        max_generate_seconds: length of a Generate.
        max_stream_seconds: length of a Stream, and of a Live that states one.
        max_lead_seconds: how far a caller may let frames run ahead of playback.
        live_lead_seconds: what a Live gets that states none.
        start_timeout_seconds: a Live that has not sent its start by then is ended.
        stall_timeout_seconds: a reader that takes nothing for so long is ended; so is a call whose one request has not come by then.
        max_unanswered_controls: controls of a Live that may wait to be acknowledged; further ones are not read meanwhile.
        uploads: images and videos that a session is given.
    """

    max_prompt_bytes: int = 4096
    max_generate_seconds: float = 60.0
    max_stream_seconds: float = 3600.0
    max_lead_seconds: float = 30.0
    live_lead_seconds: float = 1.0
    start_timeout_seconds: float = 10.0
    stall_timeout_seconds: float = 60.0
    max_unanswered_controls: int = 32
    uploads: UploadLimits = field(default_factory=UploadLimits)

    def __post_init__(self) -> None:
        """Raises ValueError where a limit would let nothing through, or more than one message can hold."""
        for name in ("max_prompt_bytes", "max_generate_seconds", "max_stream_seconds", "start_timeout_seconds", "stall_timeout_seconds"):
            bounded(name, getattr(self, name), 1024 * 1024 if name == "max_prompt_bytes" else math.inf)
        bounded("max_unanswered_controls", self.max_unanswered_controls)
        if not 0 <= self.live_lead_seconds <= self.max_lead_seconds < math.inf:
            given = f"{self.live_lead_seconds:g} and {self.max_lead_seconds:g}"
            raise ValueError(f"live_lead_seconds must be a number from 0 to max_lead_seconds; got {given}")

    @property
    def max_request_bytes(self) -> int:
        """Larger than any request within the limits, so that one which breaks them is answered with the field and not by gRPC."""
        return 1024 * 1024 + 2 * max(self.uploads.max_image_bytes, self.uploads.max_video_bytes)

    @property
    def max_control_bytes(self) -> int:
        """The same for a message that holds no upload: a control of a running Live, of which a prompt is the largest."""
        return 64 * 1024 + 2 * self.max_prompt_bytes


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The models served, by name, and the one meant by an empty name."""

    models: Mapping[str, ModelConfig]
    default: str


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where to go on: the story, as record and caller know it together, and the next frame."""

    story: Reconciled
    next_frame: int

    @property
    def steps_told(self) -> int:
        """Denoise steps in force by what the caller knows."""
        known = [steps for entry in self.story.record.steps if entry not in self.story.steps for _, steps in [entry]]
        return known[-1] if known else self.story.record.num_steps


@dataclass(frozen=True, slots=True)
class Order:
    """A checked request: what to make, with which model, and how far ahead of playback (0: unpaced).

    Attributes:
        token: what the session can be resumed with; empty for none.
        holder: this connection, to the session store.
        resume: for a session that goes on.
        claim: takes that session from whoever holds it, and says where it stood then.
        upload: the image or video for a new one, still to be decoded.
        path: of the request's spec in the message that was sent.
        max_message_bytes: the largest message that this connection's client takes.
    """

    request: SessionRequest
    config: ModelConfig
    max_lead_s: float
    token: str = ""
    holder: str = ""
    resume: ResumePoint | None = None
    claim: Callable[[], Awaitable[Order]] | None = None
    upload: Upload | None = None
    path: str = "spec."
    max_message_bytes: int = DEFAULT_BYTES


class Validator:
    """Checks requests against a catalogue and limits."""

    def __init__(self, catalogue: Catalogue, limits: Limits) -> None:
        self._catalogue = catalogue
        self._limits = limits

    def generate(self, message: pb.GenerateRequest, session_id: str, seed: int) -> Order:
        """`seed` is taken where the caller gave none; also below. Raises InvalidRequest."""
        check = _Check()
        size = self._message_bytes(check, message.max_message_bytes, FIELD)
        order = self._order(check, message, "", session_id, seed, Codec.RAW_RGB, self._limits.max_generate_seconds, endless=False, lead=0.0)
        return replace(check.passed(order), max_message_bytes=size)

    def stream(self, message: pb.StreamRequest, session_id: str, seed: int) -> Order:
        """Raises InvalidRequest."""
        check = _Check()
        codec, lead = self._codec(check, message.codec, "codec"), self._lead(check, message.max_lead_seconds, "max_lead_seconds")
        size = self._message_bytes(check, message.max_message_bytes, FIELD)
        order = self._order(check, message, "", session_id, seed, codec, self._limits.max_stream_seconds, endless=False, lead=lead)
        return self._sized(check, order, size, "")

    def live(self, message: pb.LiveRequest, session_id: str, seed: int) -> Order:
        """The first message of a Live. Raises InvalidRequest."""
        check = _Check()
        action = message.WhichOneof("action")
        if action != "start":
            check.fail("start", f"must be the first message; got {action or 'an empty message'}")
            return check.passed(None)
        start = message.start
        codec = self._codec(check, start.codec, "start.codec")
        lead = self._lead(check, start.max_lead_seconds, "start.max_lead_seconds") or self._limits.live_lead_seconds
        size = self._message_bytes(check, start.max_message_bytes, f"start.{FIELD}")
        order = self._order(check, start, "start.", session_id, seed, codec, self._limits.max_stream_seconds, endless=True, lead=lead)
        return self._sized(check, order, size, "start.")

    def resume(self, message: pb.StreamRequest | pb.LiveStart, path: str, *, live: bool) -> tuple[float, int]:
        """A message with `resume` set, as far as can be said without the session. Raises InvalidRequest.

        Returns:
            The lead in seconds, and the largest message that the caller takes.
        """
        check = _Check()
        for name, given in (("spec", message.HasField("spec")), ("codec", message.codec != pb.CODEC_UNSPECIFIED)):
            if given:
                check.fail(f"{path}{name}", "must be unset with resume; got one")
        resume, path = message.resume, f"{path}resume."
        if not 0 < len(resume.token) <= _MAX_TOKEN_CHARS:
            check.fail(f"{path}token", f"must be a Started.resume_token; got {len(resume.token)} characters")
        for name, entries in (("acknowledged", resume.acknowledged), ("quality_changes", resume.quality_changes)):
            if len(entries) > _MAX_ACKNOWLEDGED:
                check.fail(f"{path}{name}", f"must be at most {_MAX_ACKNOWLEDGED}; got {len(entries)}")
        for ack in resume.acknowledged[:_MAX_ACKNOWLEDGED]:
            self._prompt(check, ack.prompt, f"{path}acknowledged.prompt")
            if ack.change > _MAX_CHANGE:
                check.fail(f"{path}acknowledged.change", f"must be at most {_MAX_CHANGE}; got {ack.change}")
        lead = self._lead(check, message.max_lead_seconds, f"{path.removesuffix('resume.')}max_lead_seconds")
        size = self._message_bytes(check, message.max_message_bytes, f"{path.removesuffix('resume.')}{FIELD}")
        return check.passed(((lead or self._limits.live_lead_seconds) if live else lead, size))

    def control(self, message: pb.LiveRequest) -> Control:
        """Which control a later message of a Live is. Raises InvalidRequest."""
        check = _Check()
        action = message.WhichOneof("action")
        match action:
            case "start":
                check.fail("start", "must be sent exactly once, as the first message; got a second one")
            case None:
                check.fail("action", "must be one of prompt, pause, resume, stop; got an empty message")
            case _:
                return cast("Control", action)
        return check.passed(None)

    def prompt(self, message: pb.PromptChange) -> None:
        """Raises InvalidRequest."""
        check = _Check()
        self._prompt(check, message.prompt, "prompt.prompt")
        check.passed(True)

    def _order(
        self,
        check: _Check,
        message: pb.GenerateRequest | pb.StreamRequest | pb.LiveStart,
        path: str,
        session_id: str,
        seed: int,
        codec: Codec,
        max_seconds: float,
        *,
        endless: bool,
        lead: float,
    ) -> Order | None:
        if not message.HasField("spec"):
            check.fail(f"{path}spec", "is required; got none")
            return None
        spec, path = message.spec, f"{path}spec."
        self._prompt(check, spec.prompt, f"{path}prompt")
        at_least = "0 (until stopped)" if endless else "more than 0"
        if not math.isfinite(spec.seconds) or spec.seconds < 0 or spec.seconds > max_seconds or (spec.seconds == 0 and not endless):
            check.fail(f"{path}seconds", f"must be a number from {at_least} to {max_seconds:g}; got {spec.seconds:g}")
        config = self._catalogue.models.get(spec.model or self._catalogue.default)
        if config is None:
            check.fail(f"{path}model", f"must be one of {', '.join(sorted(self._catalogue.models))}; got {_shown(spec.model)}")
            return None
        longest = config.grid.max_frames
        if longest is not None and spec.seconds * config.fps > longest + 0.5:
            check.fail(f"{path}seconds", f"must be at most {longest / config.fps:g}, a clip of model {config.name}; got {spec.seconds:g}")
        for name, value, offered in (("width", spec.width, config.width), ("height", spec.height, config.height)):
            if value not in (0, offered):
                check.fail(f"{path}{name}", f"must be {offered} for model {config.name}; got {value}")
        if spec.steps and not config.min_steps <= spec.steps <= config.max_steps:
            check.fail(f"{path}steps", f"must be from {config.min_steps} to {config.max_steps}, or 0 for the default; got {spec.steps}")
        self._guidance(check, spec, config, path)
        upload = self._upload(check, spec, config, path)
        if check.violations:
            return None
        request = SessionRequest(
            session_id=session_id,
            prompt=spec.prompt,
            seed=spec.seed if spec.HasField("seed") else seed,
            num_steps=spec.steps or config.num_steps,
            num_frames=max(1, round(spec.seconds * config.fps)) if spec.seconds else longest,
            codec=codec,
            guidance=spec.guidance if spec.HasField("guidance") else config.guidance,
            negative_prompt=spec.negative_prompt if spec.HasField("negative_prompt") else config.negative_prompt,
        )
        return Order(request, config, lead, upload=upload, path=path)

    def _guidance(self, check: _Check, spec: pb.VideoSpec, config: ModelConfig, path: str) -> None:
        scale = spec.guidance if spec.HasField("guidance") else config.guidance
        if not 1 <= scale <= config.max_guidance:  # nor is it NaN
            check.fail(f"{path}guidance", guidance_limit(scale, config))
        if not spec.HasField("negative_prompt"):
            return
        if scale == 1:
            check.fail(f"{path}negative_prompt", f"must be unset without guidance; got {_shown(spec.negative_prompt)}")
        else:
            self._text(check, spec.negative_prompt, f"{path}negative_prompt")

    def _upload(self, check: _Check, spec: pb.VideoSpec, config: ModelConfig, path: str) -> Upload | None:
        """The image or video, as far as its size and first bytes can be judged."""
        given = spec.WhichOneof("footage")
        if given is None:
            if config.needs_media:
                check.fail(f"{path}{config.media[0]}", f"is required by model {config.name}; got none")
            return None
        data: bytes = getattr(spec, given)  # each access copies it
        if given not in config.media:
            takes = " or ".join(f"{kind}" for kind in config.media) or "neither image nor video"
            check.fail(f"{path}{given}", f"must be unset: model {config.name} takes {takes}; got {len(data)} bytes")
            return None
        upload = Upload(given, data, f"{path}{given}", self._limits.uploads)
        if (problem := upload.problem()) is not None:
            check.fail(upload.field, problem)
        return upload

    def _prompt(self, check: _Check, prompt: str, path: str) -> None:
        if prompt.strip():
            self._text(check, prompt, path)
        else:
            check.fail(path, f"must hold at least 1 character that is not white space; got {_shown(prompt)}")

    def _text(self, check: _Check, prompt: str, path: str) -> None:
        """Its tokens are counted where it is embedded."""
        size = len(prompt.encode())
        if size > self._limits.max_prompt_bytes:
            check.fail(path, f"must be at most {self._limits.max_prompt_bytes} bytes of UTF-8; got {size}: {_shown(prompt)}")
        elif (control := _first_control(prompt)) is not None:
            check.fail(path, f"must hold no control character but tab and line breaks; got {control!a} in {_shown(prompt)}")

    def _lead(self, check: _Check, seconds: float, path: str) -> float:
        if not math.isfinite(seconds) or not 0 <= seconds <= self._limits.max_lead_seconds:
            check.fail(path, f"must be a number from 0 to {self._limits.max_lead_seconds:g}; got {seconds:g}")
            return 0.0
        return seconds

    def _message_bytes(self, check: _Check, stated: int, path: str) -> int:
        if 0 < stated < MIN_BYTES:
            check.fail(path, f"must be at least {MIN_BYTES}, or 0 for {DEFAULT_BYTES}; got {stated}")
        return stated or DEFAULT_BYTES

    def _sized(self, check: _Check, order: Order | None, size: int, path: str) -> Order:
        """`order` for a caller who takes messages of `size` bytes."""
        if order is not None and order.request.codec is Codec.RAW_RGB:
            problem = raw_frame_problem(order.config.width, order.config.height, size)
            if problem is not None:
                check.fail(f"{path}{FIELD}", problem)
        return replace(check.passed(order), max_message_bytes=size)

    def _codec(self, check: _Check, number: int, path: str) -> Codec:
        if number == pb.CODEC_UNSPECIFIED:
            return DEFAULT_CODEC
        for codec, known in CODECS.items():
            if number == known:
                return codec
        names = ", ".join(f"{pb.Codec.Name(known)} ({known})" for known in CODECS.values())
        check.fail(path, f"must be one of {names}, or 0 for the default; got {number}")
        return DEFAULT_CODEC


class _Check:
    """Collects violations."""

    def __init__(self) -> None:
        self.violations: list[FieldViolation] = []

    def fail(self, field: str, description: str) -> None:
        self.violations.append(FieldViolation(field, description))

    def passed(self, result: T | None) -> T:
        """`result`, if nothing failed."""
        if self.violations or result is None:
            raise InvalidRequest(tuple(self.violations))
        return result


def _first_control(text: str) -> str | None:
    return next((c for c in text if unicodedata.category(c) == "Cc" and c not in "\t\n\r"), None)


def _shown(text: str) -> str:
    """`text` short enough, and plain enough, for a status message."""
    shown = ascii(text[:_SHOWN_CHARS])
    return shown if len(text) <= _SHOWN_CHARS and len(shown) <= 2 * _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS]}...'"
