"""What a model family builds: the parts of its stages. Everything else — engine, pipeline, wire — is the same for all.

    Embedder    prompts → token features                                     in the text stage
    Conditioner an image or video → what the sampler is given of it          in the text stage
    VideoEncoder chunks of a source → their latents                          in the text stage, where a model restyles
    Sampler     a leg's device state; the forwards that move its chunks on   in the denoise stage
    Painter     latents → frames, with what it remembers between chunks      in the decode stage

A leg's state is the sampler's own business; the engine only carries it. Whatever is batched, padded, cached or compiled happens
behind these methods; who is in a forward, and when, is the engine's decision.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from model_core.config import EngineConfig, ModelConfig
from model_core.errors import FieldViolation
from model_core.graphs import GraphSpec
from model_core.types import Conditioning, Latents, SessionContext, TextEmbedding

Leg = Any  # a sampler's state of one open leg, which only that sampler looks into
Memory = Any  # a painter's state of one session, immutable


class Embedder(Protocol):
    """The text network. Called from one thread at a time."""

    def embed(self, prompts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Features `[N, *, T, D]` of any texts, zero where padded, and the mask `[N, *, T]`; what exceeds T tokens is cut."""
        ...

    def count(self, prompt: str) -> int:
        """Tokens that a text has, uncut, with those that the model adds."""
        ...


class Conditioner(Protocol):
    """The networks that look at an image or video. Called from one thread at a time, under `torch.inference_mode`."""

    def condition(self, frames: NDArray[np.uint8]) -> Conditioning:
        """What sessions are given of `frames` `[N, H, W, 3]`, a function of them alone."""
        ...


class VideoEncoder(Protocol):
    """The autoencoder's encoder, for sources that come chunk by chunk. Called from one thread at a time, under `torch.inference_mode`."""

    def encode(self, frames: NDArray[np.uint8], chunk: int) -> Latents:
        """Latents `[C, F, H, W]` of `chunk`, whose frames are the last of `frames` `[N, H, W, 3]`; a function of these alone."""
        ...


class Sampler(Protocol):
    """The denoise network. Called from the engine's thread alone, under `torch.inference_mode`."""

    def warm(self) -> None:
        """See `Program.warm`: all graphs, also those that a session comes to only later, as Wan 2.2's second transformer."""
        ...

    def violations(self, context: SessionContext) -> tuple[FieldViolation, ...]:
        """What the graphs have no shape for in the context's embedding, and in what it is given; the rest is checked by the engine."""
        ...

    def blank(self) -> TextEmbedding:
        """An embedding of the right shapes, to warm up with."""
        ...

    def open(self, context: SessionContext) -> Leg:
        """A leg whose cache is rebuilt from the context's suffix. It is freed by being forgotten."""
        ...

    def start(self, leg: Leg, chunk: int) -> None:
        """Draw the noise of `chunk`, a function of seed and index alone, and go to its first step."""
        ...

    def group(self, leg: Leg) -> Hashable:
        """Legs whose next forward has the same graph and shapes are of one group, and may share it."""
        ...

    def step(self, legs: Sequence[Leg]) -> None:
        """One denoise step for `legs` of one group, in one forward padded to a bucket. To warm up, a leg is given several times.

        If it raises, no leg has moved, so that each can be stepped alone. What only one leg cannot do is raised by its `latents`.
        """
        ...

    def latents(self, leg: Leg) -> Latents:
        """The chunk `[C, F, H, W]` as it is now; clean after the last step. The caller may keep it. Raises what a step of it raised."""
        ...

    def commit(self, legs: Sequence[Leg]) -> None:
        """Write the clean chunks of `legs`, of one group, into their caches. If it raises, no cache has changed."""
        ...


@runtime_checkable
class RestylingSampler(Protocol):
    """A `Sampler` whose chunks may begin from a source."""

    def start_from(self, leg: Leg, chunk: int, source: Latents, strength: float) -> int:
        """As `Sampler.start`, but the chunk begins as `source` `[C, F, H, W]` and its noise, mixed, at the step that `strength` says.

        Returns that step. Steps before it are skipped.
        """
        ...


class Painter(Protocol):
    """The decode network. Called from the decode stage's thread alone, under `torch.inference_mode`."""

    def fresh(self) -> Memory:
        """What is remembered before the first chunk."""
        ...

    def paint(self, latents: Latents, memory: Memory) -> tuple[NDArray[np.uint8], Memory]:
        """One chunk `[C, F, H, W]` → frames `[N, H, W, 3]`, and what is remembered after it."""
        ...


class Parts(Protocol):
    """The module `parts` in a family's folder. Each function loads what it needs and no more, and raises `WeightsError`."""

    def embedder(self, config: ModelConfig) -> Embedder: ...

    def conditioner(self, config: ModelConfig) -> Conditioner:
        """Asked for, and needed, only where `config.media` names something."""
        ...

    def video_encoder(self, config: ModelConfig) -> VideoEncoder:
        """Asked for, and needed, only where `config.restyles`."""
        ...

    def sampler(self, config: ModelConfig, engine: EngineConfig) -> Sampler: ...

    def painter(self, config: ModelConfig) -> Painter: ...

    def graphs(self, config: ModelConfig, engine: EngineConfig) -> list[GraphSpec]:
        """Every graph that the parts above run, with its weights."""
        ...
