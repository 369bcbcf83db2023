"""The real network with small random weights, and contexts for it: quick, and sensitive to every input."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch

from model_core.config import DiTConfig, EngineConfig, MillraceConfig
from model_core.engine.engine import Engine
from model_core.engine.session import EngineSession
from model_core.families.millrace.parts import MillraceSampler
from model_core.nn.causal_dit import CausalDiT
from model_core.presets import millrace_64
from model_core.types import LatentChunk, Latents, SessionContext, TextEmbedding

SMALL_DIT = DiTConfig(
    latent_channels=4, latent_frames=2, latent_height=8, latent_width=8, patch=2,
    width=64, depth=2, heads=4, mlp_ratio=2, window=3, text_width=16,
)  # fmt: skip


def small_config() -> MillraceConfig:
    return replace(millrace_64(), dit=SMALL_DIT)


def random_dit(config: DiTConfig = SMALL_DIT) -> CausalDiT:
    """A denoiser whose every weight matters: the trained network's own initialisation starts with branches near zero."""
    model = CausalDiT(config)
    generator = torch.Generator().manual_seed(11)
    for parameter in model.parameters():
        scale = 0.2 if parameter.dim() < 2 else 1.5 * parameter.shape[-1] ** -0.5
        parameter.data.normal_(std=scale, generator=generator)
    return model.eval().requires_grad_(requires_grad=False)


def new_engine(network: CausalDiT, config: MillraceConfig, settings: EngineConfig | None = None) -> Engine:
    """An engine over the embedded model's family."""
    settings = settings or EngineConfig()
    return Engine(MillraceSampler(network, config, settings.batch_buckets), config, settings)


def random_embedding(prompt: str, config: MillraceConfig) -> TextEmbedding:
    """Token features that depend on `prompt` alone, and as many real tokens as it has characters, up to T."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(prompt.encode()).digest()))
    mask = np.arange(config.text.max_tokens) < len(prompt)
    tokens = rng.standard_normal((config.text.max_tokens, config.dit.text_width), dtype=np.float32) * mask[:, None]
    return TextEmbedding(prompt, tokens, mask)


def random_context(name: str, config: MillraceConfig, chunks: int | None = 3, num_steps: int = 2, seed: int = 5) -> SessionContext:
    """A new session of `chunks` chunks, whose prompt is its name."""
    frames = None if chunks is None else chunks * config.frames_per_chunk
    return SessionContext(name, seed, num_steps, random_embedding(name, config), num_frames=frames)


def resumed(context: SessionContext, made: list[Latents], window: int) -> SessionContext:
    """`context` with the log of a session that has made `made` so far."""
    return replace(context, next_chunk=len(made), suffix=tuple(made[-window:]))


class Collector:
    """Steps an engine by hand, and keeps what each session made. A chunk is taken as soon as it is out, unless its session is `held`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.chunks: dict[EngineSession, list[LatentChunk]] = {}
        self.held: set[EngineSession] = set()
        self.steps = 0

    def open(self, context: SessionContext) -> EngineSession:
        session = self.engine.open(context)
        self.chunks[session] = []
        return session

    def step(self) -> bool:
        self.steps += 1
        return self.engine.step(self.emit)

    def run(self) -> None:
        """Step until no session is ready."""
        while self.step():
            pass

    def close(self, sessions: Iterable[EngineSession]) -> None:
        for session in sessions:
            self.engine.close(session)

    def latents(self, session: EngineSession) -> list[Latents]:
        return [chunk.latents for chunk in self.chunks[session]]

    def emit(self, session: EngineSession, chunk: LatentChunk) -> None:
        self.chunks[session].append(chunk)
        if session not in self.held:
            self.engine.taken(session)


def make(engine: Engine, context: SessionContext) -> list[Latents]:
    """All chunks of one session that has the engine to itself."""
    collector = Collector(engine)
    session = collector.open(context)
    collector.run()
    engine.close(session)
    return collector.latents(session)
