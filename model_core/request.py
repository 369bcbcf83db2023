"""What a request asks of a session, and the checks of it that only the text stage can make."""

from __future__ import annotations

from dataclasses import dataclass

from model_core.acts import Keys
from model_core.config import ModelConfig
from model_core.enhancement import AS_RENDERED, Enhancement
from model_core.errors import FieldViolation, InvalidRequest
from model_core.stages.interface import TextEncoder
from model_core.types import Codec, Footage, Guidance, TextEmbedding


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """A validated opening message.

    Attributes:
        num_frames: as they are shown, a multiple of `enhance.frames`; None for a stream that runs until stopped.
        footage: the image or video that the session is given besides its prompt.
        guidance, negative_prompt: None for the model's own.
        later_prompts: each is in force from the first chunk that begins with its frame or later.
        strength: of a session that restyles a source; see `Restyle`. None for any other.
        enhance: what is done to decoded frames. Frames are counted as they are shown, here and by the session.
        keys: that are held from the first chunk on.
    """

    session_id: str
    prompt: str
    seed: int
    num_steps: int
    num_frames: int | None
    codec: Codec = Codec.RAW_RGB
    footage: Footage | None = None
    guidance: float | None = None
    negative_prompt: str | None = None
    later_prompts: tuple[tuple[int, str], ...] = ()
    strength: float | None = None
    enhance: Enhancement = AS_RENDERED
    keys: Keys = ()

    def scale(self, config: ModelConfig) -> float:
        """Of its guidance."""
        return config.guidance if self.guidance is None else self.guidance


async def guidance_for(request: SessionRequest, encoder: TextEncoder, config: ModelConfig, numerics: str) -> Guidance:
    """What leads the session of `request` beside its prompt. `numerics` as in `TextEncoder.encode`.

    Raises:
        StageUnavailable: the text encoder is away.
        InvalidRequest: the model does not take so much guidance, or reads no negative prompt of that length.
    """
    scale = request.scale(config)
    if not 1 <= scale <= config.max_guidance:
        raise InvalidRequest((FieldViolation("guidance", guidance_limit(scale, config)),))
    if scale == 1:
        return Guidance()
    away = config.negative_prompt if request.negative_prompt is None else request.negative_prompt
    return Guidance(scale, within_tokens(await encoder.encode(away, numerics), config, "negative_prompt"))


def guidance_limit(scale: float, config: ModelConfig) -> str:
    """The sentence for a scale that is out of range."""
    if config.max_guidance == 1:
        return f"must be unset or 1: model {config.name} has no guidance; got {scale:g}"
    return f"must be from 1 (none) to {config.max_guidance:g} for model {config.name}; got {scale:g}"


def no_enhancer(enhance: Enhancement, config: ModelConfig) -> str:
    """The sentence for what cannot be enhanced."""
    return f"must be unset: nothing here enhances frames of model {config.name}; got {enhance}"


def within_tokens(embedding: TextEmbedding, config: ModelConfig, field: str) -> TextEmbedding:
    """`embedding`, if nothing of its text was cut.

    Raises:
        InvalidRequest: the text was cut, so its rest would change nothing, and nobody would be told.
    """
    most = config.max_prompt_tokens
    if embedding.count > most:
        told = f"must be at most {most} tokens, with those that model {config.name} adds; got {embedding.count}"
        raise InvalidRequest((FieldViolation(field, told),))
    return embedding
