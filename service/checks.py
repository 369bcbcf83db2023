"""Checks requests and makes orders of them. Pure: everything wrong with a request is found at once.

Each violation names the field as the caller wrote it, the limit, and the value.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from model_core.acts import Keys, keys_held
from model_core.config import ModelConfig
from model_core.enhancement import FRAMES, SIZES
from model_core.errors import FieldViolation, InvalidRequest
from model_core.request import SessionRequest, guidance_limit, no_enhancer
from model_core.types import Codec
from model_core.uploads.upload import Upload, UploadLimits, bounded
from service.orders import Doorway, Mode, Order, ResumeRequest, VideoRequest

T = TypeVar("T")

# Of a job, where the server does not say. Nobody waits for it, its file grows on disk, and its checkpoints are written in pieces.
MAX_JOB_SECONDS = 600.0

_SHOWN_CHARS = 64
_MAX_TOKEN_CHARS = 256
_MAX_ACKNOWLEDGED = 32
_MAX_KEYS = 32  # more than any model takes
_MAX_LATER_PROMPTS = 31
_MOST_SOURCE_BYTES = 32 * 1024 * 1024  # gRPC takes messages of twice that
_MAX_CHANGE = 2**32 - 1  # the session counts on from it
# Of the file that a video is scaled to. H.264 needs even sides; beyond 4K, scaling and encoding would cost more than the video itself.
_MIN_FILE_SIDE, _MAX_FILE_SIDE, _MAX_FILE_PIXELS = 16, 3840, 3840 * 2160


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
        stall_timeout_seconds: a reader that takes nothing for so long is ended; so is a call whose one request has not come by then, and
            a session that has waited so long for frames that it is to restyle.
        max_unanswered_controls: controls of a Live that may wait to be acknowledged; further ones are not read meanwhile.
        max_source_bytes: of the frames of a source that come in one message.
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
    max_source_bytes: int = 4 * 1024 * 1024
    uploads: UploadLimits = field(default_factory=UploadLimits)

    def __post_init__(self) -> None:
        """Raises ValueError where a limit would let nothing through, or more than one message can hold."""
        for name in ("max_prompt_bytes", "max_generate_seconds", "max_stream_seconds", "start_timeout_seconds", "stall_timeout_seconds"):
            bounded(name, getattr(self, name), 1024 * 1024 if name == "max_prompt_bytes" else math.inf)
        bounded("max_unanswered_controls", self.max_unanswered_controls)
        bounded("max_source_bytes", self.max_source_bytes, _MOST_SOURCE_BYTES)
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
    """The models served, by name, and the one meant by an empty name.

    Attributes:
        aliases: further names, and the names of the models that they mean. One that ends in `*` stands for all names that begin so. A
            served model's own name comes first, then a whole alias, then the longest alias that fits.
        enhancing: those of the models whose frames may be enhanced.
    """

    models: Mapping[str, ModelConfig]
    default: str
    aliases: Mapping[str, str] = field(default_factory=dict)
    enhancing: frozenset[str] = frozenset()

    def find(self, name: str) -> ModelConfig | None:
        """The model that a caller means by `name`; None for none."""
        served = self.models.get(name or self.default)
        return self.models.get(self._meant(name)) if served is None else served

    def _meant(self, name: str) -> str:
        if name in self.aliases:
            return self.aliases[name]
        fitting = [alias for alias in self.aliases if alias.endswith("*") and name.startswith(alias[:-1])]
        return self.aliases[max(fitting, key=len)] if fitting else ""


class Problems:
    """Collects what is wrong with one request. A door adds what it finds itself."""

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []

    def __bool__(self) -> bool:
        return bool(self._violations)

    def add(self, field: str, description: str) -> None:
        self._violations.append(FieldViolation(field, description))

    def check(self) -> None:
        """Raises InvalidRequest if there is any."""
        if self._violations:
            raise InvalidRequest(tuple(self._violations))

    def passed(self, checked: T | None) -> T:
        """Return `checked`, which is None only where a problem was found. Raises InvalidRequest if there is any."""
        if self._violations or checked is None:
            raise InvalidRequest(tuple(self._violations))
        return checked


class Validator:
    """Checks requests against a catalogue and limits.

    Args:
        max_job_seconds: length of a job.
    """

    def __init__(self, catalogue: Catalogue, limits: Limits, max_job_seconds: float = MAX_JOB_SECONDS) -> None:
        self._catalogue = catalogue
        self._limits = limits
        self._longest_s = {
            Mode.FILE: limits.max_generate_seconds, Mode.JOB: max_job_seconds, Mode.STREAM: limits.max_stream_seconds,
            Mode.LIVE: limits.max_stream_seconds,
        }  # fmt: skip

    def order(self, request: VideoRequest, doorway: Doorway, session_id: str, seed: int, problems: Problems | None = None) -> Order:
        """The order for a new session. It uses `seed` where the caller asked for none.

        Args:
            problems: what the door found already.

        Raises:
            InvalidRequest: with everything that is wrong.
        """
        problems = Problems() if problems is None else problems
        lead_s = self.lead(request.max_lead_seconds, doorway, problems)
        self._prompt(problems, request.prompt, doorway.path("prompt"))
        config = self._model(problems, request, doorway)
        if config is not None:
            self._shape(problems, request, config, doorway)
            self._guidance(problems, request, config, doorway)
            self._later_prompts(problems, request, config, doorway)
            self._strength(problems, request, config, doorway)
            self._enhance(problems, request, config, doorway)
            self._keys(problems, request.keys, config, doorway.path("keys"))
        upload = None if config is None else self._upload(problems, request, config, doorway)
        codec, more = Codec.RAW_RGB if doorway.mode.whole else request.codec, request.enhance.frames
        if config is not None and not problems:
            config = config.shown(request.enhance)
            for violation in doorway.lacks(codec, config):
                problems.add(violation.field, violation.description)
        config = problems.passed(config)
        made = SessionRequest(
            session_id=session_id,
            prompt=request.prompt,
            seed=seed if request.seed is None else request.seed,
            num_steps=request.steps or config.num_steps,
            num_frames=more * max(1, round(request.seconds * config.fps / more)) if request.seconds else config.grid.max_frames,
            codec=codec,
            guidance=config.guidance if request.guidance is None else request.guidance,
            negative_prompt=config.negative_prompt if request.negative_prompt is None else request.negative_prompt,
            later_prompts=tuple((round(seconds * config.fps), prompt) for seconds, prompt in request.later_prompts),
            strength=request.strength,
            enhance=request.enhance,
            keys=request.keys,
        )
        return Order(made, config, lead_s, doorway, upload=upload)

    def resume(self, request: ResumeRequest, doorway: Doorway, problems: Problems | None = None) -> float:
        """Check a resume as far as that is possible without the session.

        Returns:
            The lead in seconds.

        Raises:
            InvalidRequest: with everything that is wrong; `problems` as in `order`.
        """
        problems = Problems() if problems is None else problems
        self.token(request.token, doorway, problems)
        for name, entries in (("acknowledged", request.acknowledged), ("quality_changes", request.quality_changes)):
            if len(entries) > _MAX_ACKNOWLEDGED:
                problems.add(doorway.path(name), f"must be at most {_MAX_ACKNOWLEDGED}; got {len(entries)}")
        for entry in request.acknowledged[:_MAX_ACKNOWLEDGED]:
            self._prompt(problems, entry.prompt, doorway.path("acknowledged.prompt"))
            if len(entry.keys) > _MAX_KEYS:
                problems.add(doorway.path("acknowledged.keys"), f"must be at most {_MAX_KEYS}; got {len(entry.keys)}")
            if entry.change > _MAX_CHANGE:
                problems.add(doorway.path("acknowledged.change"), f"must be at most {_MAX_CHANGE}; got {entry.change}")
        lead_s = self.lead(request.max_lead_seconds, doorway, problems)
        problems.check()
        return lead_s

    def token(self, token: str, doorway: Doorway, problems: Problems) -> None:
        """Add what is wrong with a token that a session is looked up by."""
        if not 0 < len(token) <= _MAX_TOKEN_CHARS:
            problems.add(doorway.path("token"), f"must be a Started.resume_token; got {len(token)} characters")

    def _model(self, problems: Problems, request: VideoRequest, doorway: Doorway) -> ModelConfig | None:
        """The model, with the length checked, since a model may have the shorter limit."""
        most, endless = self._longest_s[doorway.mode], doorway.mode is Mode.LIVE
        seconds, path = request.seconds, doorway.path("seconds")
        at_least = "0 (until stopped)" if endless else "more than 0"
        if not math.isfinite(seconds) or seconds < 0 or seconds > most or (seconds == 0 and not endless):
            problems.add(path, f"must be a number from {at_least} to {most:g}; got {seconds:g}")
        config = self._catalogue.find(request.model)
        if config is None:
            served = ", ".join(sorted(self._catalogue.models))
            problems.add(doorway.path("model"), f"must be one of {served}; got {_shown(request.model)}")
            return None
        longest = config.grid.max_frames
        if longest is not None and seconds * config.fps > longest + 0.5:
            problems.add(path, f"must be at most {longest / config.fps:g}, a clip of model {config.name}; got {seconds:g}")
        return config

    def _shape(self, problems: Problems, request: VideoRequest, config: ModelConfig, doorway: Doorway) -> None:
        for name, value, offered in (("width", request.width, config.width), ("height", request.height, config.height)):
            if value not in (0, offered):
                problems.add(doorway.path(name), f"must be {offered} for model {config.name}; got {value}")
        least, most, steps = config.min_steps, config.max_steps, request.steps
        if steps and not least <= steps <= most:
            problems.add(doorway.path("steps"), f"must be from {least} to {most}, or 0 for the default; got {steps}")

    def presentation(self, width: int, height: int, doorway: Doorway, problems: Problems) -> None:
        """The size of a file that the video is scaled to fit; 0 by 0 keeps the model's own."""
        if (width, height) == (0, 0):
            return
        sides = {"width": width, "height": height}
        bad = {name: side for name, side in sides.items() if not _MIN_FILE_SIDE <= side <= _MAX_FILE_SIDE or side % 2}
        for name, side in bad.items():
            problems.add(doorway.path(name), f"must be an even number of pixels from {_MIN_FILE_SIDE} to {_MAX_FILE_SIDE}; got {side}")
        if not bad and width * height > _MAX_FILE_PIXELS:
            problems.add(doorway.path("width"), f"must be at most {_MAX_FILE_PIXELS} pixels with the height; got {width}x{height}")

    def _guidance(self, problems: Problems, request: VideoRequest, config: ModelConfig, doorway: Doorway) -> None:
        scale, away = config.guidance if request.guidance is None else request.guidance, request.negative_prompt
        if not 1 <= scale <= config.max_guidance:  # nor is it NaN
            problems.add(doorway.path("guidance"), guidance_limit(scale, config))
        if away is None:
            return
        useless = f"must be unset without guidance; got {_shown(away)}"
        problem = useless if scale == 1 else _text_problem(away, self._limits.max_prompt_bytes)
        if problem is not None:
            problems.add(doorway.path("negative_prompt"), problem)

    def _later_prompts(self, problems: Problems, request: VideoRequest, config: ModelConfig, doorway: Doorway) -> None:
        """Each must come after the one before, before the end, and with a chunk of its own left to be made."""
        if (count := len(request.later_prompts)) > _MAX_LATER_PROMPTS:
            problems.add(doorway.path("later_prompts"), f"must be at most {_MAX_LATER_PROMPTS}; got {count}")
            return
        before, end, chunks = 0.0, request.seconds if request.seconds > 0 else math.inf, config.grid.chunks
        for number, (seconds, prompt) in enumerate(request.later_prompts):
            path = doorway.path(f"later_prompts[{number}]")
            if not before < seconds < end:  # nor is it NaN
                problems.add(path, f"must begin after {before:g} and before {end:g} seconds; got {seconds:g}")
                return
            if chunks is not None and config.grid.chunk_from(round(seconds * config.fps)) >= chunks:
                problems.add(path, f"must be unset: model {config.name} begins no chunk at {seconds:g} seconds or later")
            self._prompt(problems, prompt, path)
            before = seconds

    def _enhance(self, problems: Problems, request: VideoRequest, config: ModelConfig, doorway: Doorway) -> None:
        enhance, path = request.enhance, doorway.path("enhance")
        if not enhance:
            return
        for name, value, offered in (("frames", enhance.frames, FRAMES), ("size", enhance.size, SIZES)):
            if value not in offered:
                problems.add(f"{path}.{name}", f"must be one of {', '.join(map(str, offered))}; got {value}")
        if config.name not in self._catalogue.enhancing:
            problems.add(path, no_enhancer(enhance, config))
        if request.strength is not None:
            problems.add(path, f"must be unset for a session that restyles a source; got {enhance}")

    def _strength(self, problems: Problems, request: VideoRequest, config: ModelConfig, doorway: Doorway) -> None:
        strength, path = request.strength, doorway.path("strength")
        if strength is None:
            return
        if not 0 < strength <= 1:  # nor is it NaN
            problems.add(path, f"must be above 0 and at most 1; got {strength:g}")
        if not config.restyles:
            problems.add(path, f"must be unset: model {config.name} restyles no video; got {strength:g}")
        if doorway.mode is not Mode.LIVE:
            problems.add(path, f"must be unset but in Live, where the client sends what is restyled; got {strength:g}")
        if request.footage is not None:
            problems.add(path, f"must be unset with an image or a video to begin with; got {strength:g}")

    def _keys(self, problems: Problems, keys: Keys, config: ModelConfig, path: str) -> None:
        if keys:
            try:
                keys_held(keys, config.keys, path)
            except InvalidRequest as error:
                for violation in error.violations:
                    problems.add(violation.field, violation.description)

    def _upload(self, problems: Problems, request: VideoRequest, config: ModelConfig, doorway: Doorway) -> Upload | None:
        """The image or video, as far as its size and first bytes can be judged."""
        if request.footage is None:
            if config.needs_media:
                problems.add(doorway.path(config.media[0]), f"is required by model {config.name}; got none")
            return None
        kind, data = request.footage
        if kind not in config.media:
            takes = " or ".join(f"{kind}" for kind in config.media) or "neither image nor video"
            problems.add(doorway.path(kind), f"must be unset: model {config.name} takes {takes}; got {len(data)} bytes")
            return None
        upload = Upload(kind, data, doorway.path(kind), self._limits.uploads)
        if (problem := upload.problem()) is not None:
            problems.add(upload.field, problem)
        return upload

    def _prompt(self, problems: Problems, prompt: str, path: str) -> None:
        if (problem := prompt_problem(prompt, self._limits.max_prompt_bytes)) is not None:
            problems.add(path, problem)

    def lead(self, seconds: float, doorway: Doorway, problems: Problems) -> float:
        """The lead that the session gets, if there is nothing wrong with it."""
        if not math.isfinite(seconds) or not 0 <= seconds <= self._limits.max_lead_seconds:
            problems.add(doorway.path("max_lead_seconds"), f"must be a number from 0 to {self._limits.max_lead_seconds:g}; got {seconds:g}")
        return seconds or (self._limits.live_lead_seconds if doorway.mode is Mode.LIVE else 0.0)


def prompt_problem(prompt: str, max_bytes: int) -> str | None:
    """What is wrong with a prompt; None for nothing. Its tokens are counted where it is embedded."""
    if not prompt.strip():
        return f"must hold at least 1 character that is not white space; got {_shown(prompt)}"
    return _text_problem(prompt, max_bytes)


def _text_problem(text: str, max_bytes: int) -> str | None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # JSON can hold one half of a pair
        return f"must be text that UTF-8 can hold; got {_shown(text)}"
    if size > max_bytes:
        return f"must be at most {max_bytes} bytes of UTF-8; got {size}: {_shown(text)}"
    if (control := _first_control(text)) is not None:
        return f"must hold no control character but tab and line breaks; got {control!a} in {_shown(text)}"
    return None


def _first_control(text: str) -> str | None:
    return next((c for c in text if unicodedata.category(c) == "Cc" and c not in "\t\n\r"), None)


def _shown(text: str) -> str:
    """`text` short enough, and plain enough, for a status message."""
    shown = ascii(text[:_SHOWN_CHARS])
    return shown if len(text) <= _SHOWN_CHARS and len(shown) <= 2 * _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS]}...'"
