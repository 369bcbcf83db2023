"""Requests of the KServe v2 protocol to plain ones. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from doors.grpc.triton import kserve_pb2 as pb
from doors.grpc.triton.contract import FRAMES, VERSION, VIDEO, accepted, default_seconds
from doors.grpc.triton.tensors import Plain, Value, parameters, single_values
from doors.wire.statuses import UnknownName
from model_core.config import Media, ModelConfig
from model_core.errors import FieldViolation
from model_core.types import Codec
from service.checks import Catalogue, Problems
from service.orders import Doorway, Mode, VideoRequest

MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # of an answer, unless the request says otherwise; stock clients take 2 GiB
ROOM_BYTES = 4096  # for all of an answer but its media
_MAX_ID_CHARS = 256
_NAMES = {"model": "model_name", "codec": "outputs", "max_lead_seconds": "parameters.max_lead_seconds"}


@dataclass(frozen=True, slots=True)
class Sequence:
    """Which sequence a request belongs to, and whether it begins or ends it."""

    id: str
    start: bool
    end: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request, read. Of what is wrong with it, `problems` has what was found so far.

    Attributes:
        id: repeated in its responses.
        outputs: that it wants; empty for the default.
        sequence: None for a request that stands alone.
        wants_end: whether an empty last response is to say that there is no more.
        values: of its inputs, by name.
        max_message_bytes: of an answer.
    """

    id: str
    model: str
    outputs: tuple[str, ...]
    sequence: Sequence | None
    wants_end: bool
    values: dict[str, Value]
    max_message_bytes: int
    lead_seconds: float
    replace_from: int | None
    problems: Problems

    def text(self, name: str) -> str | None:
        """The text of an input; None where there is none."""
        value = self.values.get(name)
        if not isinstance(value, bytes):
            return None
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            self.problems.add(f"inputs.{name}", f"must be UTF-8; got {value[:32]!r} ({error.reason} at byte {error.start})")
            return "?"  # which is not looked at

    def video_request(self, config: ModelConfig, codec: Codec, mode: Mode) -> VideoRequest:
        """What is asked for. A live session without a length goes on until its sequence ends."""
        values = self.values
        unstated = 0.0 if mode is Mode.LIVE else default_seconds(config)
        media: tuple[Media, ...] = ("image", "video")
        footage = next(((kind, data) for kind in media if isinstance(data := values.get(kind), bytes)), None)
        guidance = values.get("guidance")
        return VideoRequest(
            prompt=self.text("prompt") or "",
            model=self.model,
            seconds=_number(values, "seconds", unstated),
            seed=self._whole("seed", 2**64 - 1) if "seed" in values else None,
            steps=self._whole("steps", 2**31 - 1) if "steps" in values else 0,
            guidance=None if guidance is None else float(guidance),
            negative_prompt=self.text("negative_prompt") if "negative_prompt" in values else None,
            footage=footage,
            codec=codec,
            max_lead_seconds=self.lead_seconds if mode is not Mode.FILE else 0.0,
        )

    def _whole(self, name: str, most: int) -> int:
        value = self.values[name]
        if isinstance(value, int) and 0 <= value <= most:
            return value
        self.problems.add(f"inputs.{name}", f"must be a whole number from 0 to {most}; got {value!r}")
        return 0


def doorway(mode: Mode, most_bytes: int | None = None) -> Doorway:
    """How errors name the fields. `most_bytes`: what a caller takes who gets chunk after chunk; None for others."""

    def lacks(codec: Codec, config: ModelConfig) -> tuple[FieldViolation, ...]:
        needed = raw_bytes(config, config.frames_per_chunk) + ROOM_BYTES
        if most_bytes is None or codec is not Codec.RAW_RGB or needed <= most_bytes:
            return ()
        sentence = f"must be at least {needed} for a chunk of {config.frames_per_chunk} raw frames; or ask for the output {VIDEO}"
        return (FieldViolation("parameters.max_message_bytes", f"{sentence}; got {most_bytes}"),)

    return Doorway(mode, "inputs.", _NAMES, lacks)


def raw_bytes(config: ModelConfig, frames: int) -> int:
    """Of raw frames."""
    return 3 * config.width * config.height * frames


def read(request: pb.ModelInferRequest) -> Asked:
    """`request`, as plain values."""
    problems, given = Problems(), parameters(request)
    if len(request.id) > _MAX_ID_CHARS:
        problems.add("id", f"must have at most {_MAX_ID_CHARS} characters; got {len(request.id)}")
    outputs = tuple(dict.fromkeys(output.name for output in request.outputs))
    for name in outputs:
        if name not in (FRAMES, VIDEO):
            problems.add("outputs", f"must be {FRAMES} or {VIDEO}; got {name[:64]!a}")
    size = _whole_parameter(given, "max_message_bytes", problems)
    replace_from = _whole_parameter(given, "replace_from", problems)
    return Asked(
        id=request.id,
        model=request.model_name,
        outputs=outputs,
        sequence=_sequence(given, problems),
        wants_end=given.get("triton_enable_empty_final_response") is True,
        values=single_values(request, accepted(), problems),
        max_message_bytes=MAX_MESSAGE_BYTES if size is None else max(1, size),
        lead_seconds=_lead(given, problems),
        replace_from=replace_from,
        problems=problems,
    )


def served(catalogue: Catalogue, name: str, version: str) -> ModelConfig:
    """The model of that name; an empty one means the default model.

    Raises:
        UnknownName: it is not served, or not in that version.
    """
    config = catalogue.find(name)
    if config is None:
        known = ", ".join(sorted(catalogue.models))
        raise UnknownName((FieldViolation("model_name", f"must be one of {known}; got {name[:64]!a}"),))
    if version not in ("", VERSION):
        raise UnknownName((FieldViolation("model_version", f"must be {VERSION} or empty; got {version[:64]!a}"),))
    return config


def _number(values: dict[str, Value], name: str, default: float) -> float:
    value = values.get(name, default)
    return float(value) if isinstance(value, int | float) else default


def _sequence(given: dict[str, Plain], problems: Problems) -> Sequence | None:
    """A sequence's id is a number or a text; 0 and the empty one are none."""
    told = given.get("sequence_id", 0)
    if isinstance(told, bool | float) or len(name := str(told or "")) > _MAX_ID_CHARS:
        problems.add("parameters.sequence_id", f"must be a whole number, or text of at most {_MAX_ID_CHARS} characters")
        return None
    return Sequence(name, given.get("sequence_start") is True, given.get("sequence_end") is True) if name else None


def _whole_parameter(given: dict[str, Plain], name: str, problems: Problems) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        problems.add(f"parameters.{name}", f"must be a whole number from 0 to {2**31 - 1}; got {str(value)[:32]!a}")
        return None
    return value


def _lead(given: dict[str, Plain], problems: Problems) -> float:
    """Stock clients send whole numbers and texts, and no fractions."""
    value = given.get("max_lead_seconds", 0)
    try:
        return float(value)
    except ValueError:
        problems.add("parameters.max_lead_seconds", f"must be a number; got {str(value)[:32]!a}")
        return 0.0
