"""How large the messages between stages can become, for one model: what a chunk weighs when nothing is coded. Pure numbers, no torch.

One chunk of one session is one message. A chunk above the transport's limit would be made, refused, and made again. So a model with such
chunks is refused before anything starts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from model_core.chunk_grid import ChunkGrid
from model_core.config import ModelConfig
from model_core.enhancement import FRAMES, SIZES, Enhancement

_FLOAT = 4
_TEXT_WIDTH = 4096  # of the widest text encoder here, UMT5-XXL
_EYE = 257 * 1280 * _FLOAT  # what the largest image encoder here says of an image
_WRAPPING = 64 * 1024  # what pickling and the fields beside the arrays take, with room to spare


@dataclass(frozen=True, slots=True)
class Message:
    """One kind of message, at its largest."""

    what: str
    size_bytes: int


def largest_messages(model: ModelConfig, *, enhances: bool = False) -> tuple[Message, ...]:
    """Each kind that crosses from one process to another; with `enhances`, from an enhance stage too."""
    grid, (channels, _, _) = model.grid, model.latent_size
    frames = max(grid.frames(chunk) for chunk in _kinds(grid))
    latents = latents_bytes(model)
    picture = model.height * model.width * 3
    size = f"{model.width}x{model.height}"
    told = [
        Message(f"a chunk of {frames} raw frames of {size} with its latents", frames * picture + latents),
        Message(
            f"the context of a session, with the latents of {model.context_chunks + model.sink_chunks} chunks and what it was given",
            (model.context_chunks + model.sink_chunks) * latents + given_bytes(model) + _text_bytes(model),
        ),
    ]
    if enhances:
        shown = model.shown(Enhancement(max(FRAMES), max(SIZES)))
        most = frames * max(FRAMES)
        told.append(
            Message(
                f"{most} enhanced raw frames of {shown.width}x{shown.height} with their latents",
                most * shown.height * shown.width * 3 + latents,
            )
        )
    if model.media:
        told.append(Message(f"an upload of {model.media_frames} frames of {size}", model.media_frames * picture))
        told.append(Message(f"what is made of an upload for latents of {channels} channels", given_bytes(model)))
    if model.restyles:
        seen = frames + model.source_context
        told.append(Message(f"{seen} frames of {size} of a source, which a chunk is made from", seen * picture))
    return tuple(Message(message.what, message.size_bytes + _WRAPPING) for message in told)


def record_bytes(model: ModelConfig, keep_chunks: int) -> int:
    """A session's record in the store, at its largest."""
    return (model.context_chunks + keep_chunks + model.sink_chunks) * latents_bytes(model) + given_bytes(model) + _WRAPPING


def latents_bytes(model: ModelConfig) -> int:
    """Of the largest chunk."""
    return max(_FLOAT * math.prod(model.latent_shape(chunk)) for chunk in _kinds(model.grid))


def given_bytes(model: ModelConfig) -> int:
    """What the text stage makes of an image or video: latents of the beginning, or of a whole clip with a mask beside them."""
    if not model.media:
        return 0
    channels, height, width = model.latent_size
    grid = model.grid
    seen = max(grid.latents(0), 1 + (model.media_frames - 1) // grid.factor)
    return _FLOAT * (channels + grid.factor) * seen * height * width + _EYE


def _text_bytes(model: ModelConfig) -> int:
    """Of an embedding; of two, where there may be guidance."""
    return (2 if model.max_guidance > 1 else 1) * model.max_prompt_tokens * (_TEXT_WIDTH * _FLOAT + 1)


def _kinds(grid: ChunkGrid) -> tuple[int, ...]:
    """The first chunk, one that is like all others, and the last: there are no other sizes."""
    return (0,) if grid.chunks == 1 else (0, 1, grid.chunks - 1) if grid.chunks else (0, 1)
