"""Messages to plain requests and controls. Here are the checks that only this wire needs, and its names of the fields.

Nothing here keeps a message, which may hold an image or a video.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from doors.wire.message_size import DEFAULT_BYTES, FIELD, MIN_BYTES, raw_frame_problem
from doors.wire.messages import CODECS
from headrace.v1 import video_pb2 as pb
from model_core.config import Media, ModelConfig
from model_core.enhancement import Enhancement
from model_core.errors import FieldViolation, InvalidRequest
from model_core.session import PromptApplied, StepsApplied
from model_core.types import Codec
from service.checks import Problems
from service.controls import Act, ChangePrompt, Control, EndSource, GiveSource, Pause, Resume, Stop
from service.intake import Intake
from service.orders import DEFAULT_CODEC, Doorway, Mode, Order, ResumeRequest, VideoRequest
from service.replay import ReplayRequest

LEAD = "max_lead_seconds"
_MAX_TOKEN_CHARS = 256
_PLAIN: dict[str, Control] = {"pause": Pause(), "resume": Resume(), "stop": Stop()}


class Orders:
    """Orders out of messages. Each method also returns the largest message that the caller takes, and raises as `Intake` does.

    `tenant` is the caller's: another tenant's session is not found.
    """

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def generate(self, message: pb.GenerateRequest) -> tuple[Order, int]:
        problems, doorway = Problems(), Doorway(Mode.FILE, "spec.")
        size = _message_bytes(problems, message.max_message_bytes, FIELD)
        _require_spec(message, "", problems)
        return self._intake.order(_request(message.spec), doorway, problems), size

    async def stream(self, message: pb.StreamRequest, tenant: str) -> tuple[Order, int]:
        return await self._streamed(message, Mode.STREAM, "", tenant)

    async def live(self, message: pb.LiveRequest, tenant: str) -> tuple[Order, int]:
        """`message` is the first one of a Live."""
        action = message.WhichOneof("action")
        if action != "start":
            raise InvalidRequest((FieldViolation("start", f"must be the first message; got {action or 'an empty message'}"),))
        return await self._streamed(message.start, Mode.LIVE, "start.", tenant)

    async def replay(self, message: pb.ReplayRequest, tenant: str) -> tuple[Order, int]:
        problems = Problems()
        size = _message_bytes(problems, message.max_message_bytes, FIELD)
        codec = _codec(problems, message.codec, "codec")
        request = ReplayRequest(
            token=message.token, seconds=message.seconds, slow=message.slow, until_frame=message.until_frame, codec=codec,
            max_lead_seconds=message.max_lead_seconds,
        )  # fmt: skip
        return await self._intake.replay(request, Doorway(Mode.STREAM, lacks=_lacks(size, "")), tenant, problems), size

    async def _streamed(self, message: pb.StreamRequest | pb.LiveStart, mode: Mode, path: str, tenant: str) -> tuple[Order, int]:
        problems = Problems()
        size = _message_bytes(problems, message.max_message_bytes, f"{path}{FIELD}")
        resumes = message.HasField("resume")
        doorway = Doorway(mode, f"{path}{'resume.' if resumes else 'spec.'}", {LEAD: f"{path}{LEAD}"}, _lacks(size, path))
        if resumes:
            return await self._intake.resume(_resume(problems, message, path), doorway, tenant, problems), size
        codec = _codec(problems, message.codec, f"{path}codec")
        if not message.HasField("spec"):
            self._intake.validator.lead(message.max_lead_seconds, doorway, problems)
        _require_spec(message, path, problems)
        return self._intake.order(_request(message.spec, codec, message.max_lead_seconds), doorway, problems), size


def watched(message: pb.WatchRequest) -> tuple[str, int]:
    """The token, and the largest message that the caller takes. Raises InvalidRequest."""
    problems = Problems()
    size = _message_bytes(problems, message.max_message_bytes, FIELD)
    if not 0 < len(message.token) <= _MAX_TOKEN_CHARS:
        problems.add("token", f"must be a Started.watch_token; got {len(message.token)} characters")
    problems.check()
    return message.token, size


def _require_spec(message: pb.GenerateRequest | pb.StreamRequest | pb.LiveStart, path: str, problems: Problems) -> None:
    """Raises InvalidRequest: there is none."""
    if not message.HasField("spec"):
        problems.add(f"{path}spec", "is required; got none")
        problems.check()


def _request(spec: pb.VideoSpec, codec: Codec = DEFAULT_CODEC, max_lead_seconds: float = 0.0) -> VideoRequest:
    kind: Media | None = spec.WhichOneof("footage")
    return VideoRequest(
        prompt=spec.prompt, model=spec.model, seconds=spec.seconds, seed=spec.seed if spec.HasField("seed") else None,
        width=spec.width, height=spec.height, steps=spec.steps, guidance=spec.guidance if spec.HasField("guidance") else None,
        negative_prompt=spec.negative_prompt if spec.HasField("negative_prompt") else None,
        footage=None if kind is None else (kind, getattr(spec, kind)), codec=codec, max_lead_seconds=max_lead_seconds,
        strength=spec.strength if spec.HasField("strength") else None, keys=tuple(spec.keys),
        enhance=Enhancement(spec.enhance.frames or 1, spec.enhance.size or 1),
    )  # fmt: skip


def _resume(problems: Problems, message: pb.StreamRequest | pb.LiveStart, path: str) -> ResumeRequest:
    for name, given in (("spec", message.HasField("spec")), ("codec", message.codec != pb.CODEC_UNSPECIFIED)):
        if given:
            problems.add(f"{path}{name}", "must be unset with resume; got one")
    resume = message.resume
    return ResumeRequest(
        token=resume.token,
        next_frame=resume.next_frame,
        acknowledged=tuple(
            PromptApplied(ack.prompt, ack.first_frame, ack.request_id, ack.change, keys=tuple(ack.keys)) for ack in resume.acknowledged
        ),
        quality_changes=tuple(StepsApplied(change.steps, change.first_frame) for change in resume.quality_changes),
        max_lead_seconds=message.max_lead_seconds,
    )


def _message_bytes(problems: Problems, stated: int, path: str) -> int:
    if 0 < stated < MIN_BYTES:
        problems.add(path, f"must be at least {MIN_BYTES}, or 0 for {DEFAULT_BYTES}; got {stated}")
    return stated or DEFAULT_BYTES


def _lacks(size: int, path: str) -> Callable[[Codec, ModelConfig], Sequence[FieldViolation]]:
    """What cannot be sent in messages of `size` bytes: raw frames that are larger."""

    def lacks(codec: Codec, config: ModelConfig) -> Sequence[FieldViolation]:
        problem = raw_frame_problem(config.width, config.height, size) if codec is Codec.RAW_RGB else None
        return () if problem is None else (FieldViolation(f"{path}{FIELD}", problem),)

    return lacks


def _codec(problems: Problems, number: int, path: str) -> Codec:
    if number == pb.CODEC_UNSPECIFIED:
        return DEFAULT_CODEC
    for codec, known in CODECS.items():
        if number == known:
            return codec
    names = ", ".join(f"{pb.Codec.Name(known)} ({known})" for known in CODECS.values())
    problems.add(path, f"must be one of {names}, or 0 for the default; got {number}")
    return DEFAULT_CODEC


def control(message: pb.LiveRequest) -> Control:
    """A later message of a Live. Raises InvalidRequest: it is no control."""
    match message.WhichOneof("action"):
        case "prompt":
            return ChangePrompt(message.prompt.prompt, message.prompt.request_id, _replace_from(message.prompt))
        case "act":
            return Act(tuple(message.act.keys), message.act.request_id, _replace_from(message.act))
        case "pause" | "resume" | "stop" as name:
            return _PLAIN[name]
        case "source_frames":
            given = message.source_frames
            return GiveSource(given.first_frame, _source_codec(given.codec), tuple(given.data))
        case "source_end":
            return EndSource()
        case "start":
            problem = FieldViolation("start", "must be sent exactly once, as the first message; got a second one")
        case _:
            problem = FieldViolation(
                "action", "must be one of prompt, act, pause, resume, stop, source_frames, source_end; got an empty message"
            )
    raise InvalidRequest((problem,))


def _replace_from(change: pb.PromptChange | pb.Act) -> int | None:
    return change.replace_from if change.HasField("replace_from") else None


def _source_codec(number: int) -> Codec:
    """Raises InvalidRequest: a source does not come so."""
    if number == pb.CODEC_RAW_RGB:
        return Codec.RAW_RGB
    if number == pb.CODEC_JPEG:
        return Codec.JPEG
    names = f"{pb.Codec.Name(pb.CODEC_RAW_RGB)} ({pb.CODEC_RAW_RGB}) or {pb.Codec.Name(pb.CODEC_JPEG)} ({pb.CODEC_JPEG})"
    raise InvalidRequest((FieldViolation("source_frames.codec", f"must be {names}; got {number}"),))
