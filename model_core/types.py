"""Frozen messages that cross stage boundaries.

Arrays are numpy, so a message pickles cheaply and needs no torch to be read; for other versions of the program that read it, see
`model_core.messages`. Shapes use
B batch · C latent channels · F latent frames of a chunk · N pixel frames of a chunk · H, W height and width · T text tokens · D width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from model_core.acts import Keys
from model_core.chunk_grid import ChunkGrid
from model_core.enhancement import AS_RENDERED, Enhancement
from model_core.messages import Message, MessageEnum

Latents = NDArray[np.float32]
Chunk = TypeVar("Chunk", bound="LatentChunk | FrameChunk")


class Codec(MessageEnum):
    """How frames leave the decode stage."""

    RAW_RGB = "raw"
    JPEG = "jpeg"
    FMP4_H264 = "fmp4"


@dataclass(frozen=True, slots=True)
class TextEmbedding(Message):
    """What the denoiser knows of a prompt.

    Attributes:
        prompt: the text it was made from.
        tokens: float32 `[T, D]`, token features, zero where `mask` is False.
        mask: bool `[T]`, True for real tokens.
        count: tokens that the text has, cut or not, with those that the model adds; 0 if the stage does not say.
        timing: what the text stage took for the call that this answers; None if it does not say.
        numerics: of the device that made it, as in `Numerics`.
    """

    prompt: str
    tokens: NDArray[np.float32]
    mask: NDArray[np.bool_]
    timing: StageTiming | None = None
    count: int = 0
    numerics: str = ""


@dataclass(frozen=True, slots=True)
class Guidance(Message):
    """What leads a session beside its prompt: classifier-free guidance, the same for all of its chunks.

    Attributes:
        scale: 1 for none.
        away: the text that it leads away from; None where the scale is 1.
    """

    scale: float = 1.0
    away: TextEmbedding | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Footage(Message):
    """What a caller gives a session to begin with.

    Attributes:
        frames: uint8 `[N, H, W, 3]` at the size that is served. An image is one frame.
        digest: SHA-256 of shape and pixels; taken when it is made, which is where there is time for that.
    """

    frames: NDArray[np.uint8]
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        pixels = np.ascontiguousarray(self.frames)
        digest = hashlib.sha256(repr(pixels.shape).encode())
        digest.update(pixels.data)
        object.__setattr__(self, "digest", digest.hexdigest())


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning(Message):
    """What the denoise stage knows of the image or video that a session begins with.

    Attributes:
        head: clean latents `[C, F, H, W]` that the session's log begins with, for models that continue a video. Chunks that it fills
            are not denoised.
        guides: float32 by name, for models that look at the footage in every step of a clip. Their shapes are the family's.
        timing: the text stage's timing of the call that made this; None if the stage does not say.
    """

    head: Latents | None = None
    guides: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    timing: StageTiming | None = None

    def chunks(self, grid: ChunkGrid) -> int:
        """Whole chunks that `head` fills."""
        return 0 if self.head is None else grid.chunks_in(self.head.shape[1])

    def chunk(self, grid: ChunkGrid, index: int) -> Latents:
        """The latents of one of them."""
        if self.head is None:
            raise ValueError("the conditioning has no head: the log begins with nothing of it")
        start = sum(grid.latents(earlier) for earlier in range(index))
        return np.ascontiguousarray(self.head[:, start : start + grid.latents(index)])

    def arrays(self) -> tuple[NDArray[np.float32], ...]:
        """All of it."""
        return (*(() if self.head is None else (self.head,)), *self.guides.values())

    def needed_until(self, grid: ChunkGrid) -> int | None:
        """The first chunk that can be made without it; None if there is none."""
        return None if self.guides else self.chunks(grid)


@dataclass(frozen=True, slots=True, eq=False)
class SourceFootage(Message):
    """Frames of a source that one chunk is made from, and those just before them that its encoder looks at.

    Attributes:
        chunk: index of the chunk in the session.
        frames: uint8 `[N, H, W, 3]` at the size that is served. The chunk's own are the last ones.
    """

    chunk: int
    frames: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class SourceOffer(Message):
    """Where the denoise stage asks for the latents of a session's source. `host` is empty where that is in the same process."""

    token: bytes
    host: str = ""
    port: int = 0


@dataclass(frozen=True, slots=True)
class Restyle(Message):
    """That each chunk of a session is made from the same chunk of a source.

    Attributes:
        strength: above 0, at most 1: a chunk begins at the first step whose share of noise is not above it, or at the last step.
        source: has the latents of the source's chunks.
    """

    strength: float
    source: SourceOffer


@dataclass(frozen=True, slots=True)
class Numerics(Message):
    """How the devices round that made a session's newest chunk, and the text that it is of.

    A digest a stage, equal on devices that give equal bits. Empty: unknown.
    """

    denoiser: str = ""
    decoder: str = ""
    text_encoder: str = ""
    enhancer: str = ""

    def after(self, before: Numerics) -> Numerics:
        """With what is unknown here as it was `before`."""
        return Numerics(
            self.denoiser or before.denoiser, self.decoder or before.decoder, self.text_encoder or before.text_encoder,
            self.enhancer or before.enhancer,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SessionContext(Message):
    """Everything a replica needs to make a session's next chunks: the latent log's tail plus constants.

    A prompt change, a crash, a drain or a pause ends one *leg* of a session; the next leg is opened with a
    new context, on any replica, and yields the frames an undisturbed session would have yielded.

    Attributes:
        session_id: one viewer's stream.
        seed: with a chunk's index, the only source of noise.
        num_steps: denoise steps per chunk.
        embedding: the prompt of this leg.
        next_chunk: index of the first chunk to make.
        num_frames: length of the whole session in pixel frames as they are decoded; None for an endless stream. The decode stage cuts the
            last chunk to it.
        suffix: the clean latents `[C, F, H, W]` of the chunks just before `next_chunk`, oldest first, at most `window` of them.
        sink: the session's first chunks, as far as the model attends to them for good and they are not in `suffix`.
        codec: how the decode stage hands out frames.
        due_s: seconds from now until the first frame of `next_chunk` is due on the viewer's screen; None for a job, which has no deadline.
        suspect_chunk: a chunk that could not be made before; if it cannot be made now either, the session is at fault, and ends.
        given: the session's conditioning beside its prompt, as long as chunks are made from it.
        numerics: of its newest chunk; replicas with the same are preferred.
        guidance: what leads it beside its prompt.
        restyle: for a session that restyles a source.
        enhance: what is done to its frames after they are decoded.
        keys: that are held in this leg.
    """

    session_id: str
    seed: int
    num_steps: int
    embedding: TextEmbedding
    next_chunk: int = 0
    num_frames: int | None = None
    suffix: tuple[Latents, ...] = ()
    sink: tuple[Latents, ...] = ()
    codec: Codec = Codec.RAW_RGB
    due_s: float | None = None
    suspect_chunk: int | None = None
    given: Conditioning | None = None
    numerics: Numerics = Numerics()
    guidance: Guidance = Guidance()
    restyle: Restyle | None = None
    enhance: Enhancement = AS_RENDERED
    keys: Keys = ()

    def end_chunk(self, grid: ChunkGrid) -> int | None:
        """One past the last chunk to make; None for an endless stream."""
        return None if self.num_frames is None else grid.chunk_from(self.num_frames)


@dataclass(frozen=True, slots=True)
class StageTiming(Message):
    """Where one chunk's time went in one stage, in seconds.

    Attributes:
        stage: text_encoder, denoiser, decoder or enhancer.
        queue_s: ready to be worked on, but waiting: for the device, or for its turn among other sessions.
        service_s: on the device. A forward shared with other sessions counts in full.
        device_s: on the device, shared forwards divided by the sessions in them: what it costs.
        transfer_s: on its way to whoever pulled the stage, as far as that one was waiting for it; whoever pulled it fills this in.
        left_at: when the stage was done, on the wall clock, because its reader may be on another machine; None if unknown.
        steps_s: how long before that each denoise step was done; empty for stages that have none.
    """

    stage: str
    queue_s: float
    service_s: float
    device_s: float
    transfer_s: float = 0.0
    left_at: float | None = None
    steps_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class LatentChunk(Message):
    """One denoised chunk: `latents` is float32 `[C, F, H, W]`; `numerics` as in `Numerics`, empty for one that was given."""

    index: int
    latents: Latents
    timings: tuple[StageTiming, ...] = ()
    numerics: str = ""


@dataclass(frozen=True, slots=True)
class FrameChunk(Message):
    """One decoded chunk, or an enhanced one.

    Attributes:
        index: chunk index in the session.
        first_frame: index of its first frame in the session.
        num_frames: frames in this chunk.
        height, width: pixels.
        codec: how `data` is coded.
        data: RAW_RGB and JPEG: one item a frame (raw is `H*W*3` bytes, row major); FMP4_H264: one item, a fragment.
        latents: the chunk's clean latents `[C, F, H, W]`, for the session's log.
        timings: one entry for each stage it went through.
        numerics: of the devices that made it.
        before: the frame before its first one, raw, where a stage after the decoder needs it; empty elsewhere.
        keys: that were held; its session fills this in.
    """

    index: int
    first_frame: int
    num_frames: int
    height: int
    width: int
    codec: Codec
    data: tuple[bytes, ...]
    latents: Latents
    timings: tuple[StageTiming, ...] = ()
    numerics: Numerics = Numerics()
    before: bytes = b""
    keys: Keys = ()

    def pixels(self) -> NDArray[np.uint8]:
        """RGB frames `[N, H, W, 3]`; only for RAW_RGB chunks.

        Raises:
            ValueError: the chunk is coded.
        """
        if self.codec is not Codec.RAW_RGB:
            raise ValueError(f"pixels() needs RAW_RGB frames, this chunk is {self.codec.value}")
        flat = np.frombuffer(b"".join(self.data), dtype=np.uint8)
        return flat.reshape(self.num_frames, self.height, self.width, 3)


def received(chunk: Chunk, asked_at: float, now: float) -> Chunk:
    """`chunk` with the transfer time of the stage that it left last, for a reader that asked for it and got it at these moments.

    Moments are the wall clock's. What was done before it was asked for is counted from the question on: until then nobody waited. So no
    disagreement of clocks makes it negative, or longer than the wait.
    """
    if not chunk.timings or (left_at := chunk.timings[-1].left_at) is None:
        return chunk
    last = replace(chunk.timings[-1], transfer_s=max(0.0, now - max(asked_at, left_at)))
    return replace(chunk, timings=(*chunk.timings[:-1], last))
