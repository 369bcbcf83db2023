"""A session inside one denoise replica: where it stands, and what its prompt contributes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model_core.config import MillraceConfig
from model_core.diffusion.flow_match import chunk_noise, timesteps
from model_core.engine.step_scheduler import RowView
from model_core.errors import FieldViolation, InvalidRequest
from model_core.nn.causal_dit import CausalDiT, Modulation, TextCondition
from model_core.types import SessionContext, StageTiming


@dataclass(frozen=True, slots=True)
class Conditioning:
    """Constants of a leg, for one row: the text, the times `[S + 1]` of its S steps, and a modulation for each step."""

    text: TextCondition
    times: Tensor
    steps: Modulation


def check(config: MillraceConfig, context: SessionContext) -> None:
    """Refuse what the graphs have no shape for. A replica must not die of a context, or reopening would carry it to the next one.

    Raises:
        InvalidRequest: naming each field, what it must be and what it is.
    """
    g, text, tokens, mask = config.dit, config.text, context.embedding.tokens.shape, context.embedding.mask.shape
    chunk = (g.latent_channels, g.latent_frames, g.latent_height, g.latent_width)
    suffix = [latents.shape for latents in context.suffix]
    rules: tuple[tuple[str, bool, str, object], ...] = (
        ("num_steps", 1 <= context.num_steps <= config.max_steps, f"from 1 to {config.max_steps}", context.num_steps),
        ("next_chunk", context.next_chunk >= 0, "0 or more", context.next_chunk),
        ("suffix", len(suffix) == min(g.window, max(0, context.next_chunk)), f"the last {g.window} chunks, or all", len(suffix)),
        ("suffix", all(shape == chunk for shape in suffix), f"latents of shape {chunk}", suffix),
        ("suffix", all(np.isfinite(latents).all() for latents in context.suffix), "finite", "NaN or infinity"),
        ("embedding.tokens", tokens == (text.max_tokens, g.text_width), f"of shape {(text.max_tokens, g.text_width)}", tokens),
        ("embedding.mask", mask == (text.max_tokens,), f"of shape {(text.max_tokens,)}", mask),
    )
    broken = tuple(FieldViolation(f"context.{field}", f"must be {limit}; got {value}") for field, kept, limit, value in rules if not kept)
    if broken:
        raise InvalidRequest(broken)


def prepare(model: CausalDiT, config: MillraceConfig, context: SessionContext) -> Conditioning:
    """Run the condition graph in its one shape.

    That is one session and `max_steps` times, those past its own steps set to 1: matrices of few rows round differently in other shapes.
    """
    embedding = context.embedding
    text = model.condition(torch.tensor(embedding.tokens)[None], torch.tensor(embedding.mask)[None])
    times = torch.tensor(timesteps(context.num_steps, config.shift))
    padded = F.pad(times[:-1], (0, config.max_steps - context.num_steps), value=1.0)
    return Conditioning(text, times, model.modulate(padded, text.pooled.expand(config.max_steps, -1)))


@dataclass(slots=True, eq=False)
class EngineSession:
    """Mutable state of one open leg; the engine's thread owns it.

    Attributes:
        end_chunk: one past the last chunk; None for an endless stream.
        shape: (C, F, H, W) of a chunk's latents.
        chunk_index: the chunk being made.
        step_index: denoise steps done on it.
        x_t: its noisy latents `[1, C, F, H, W]`.
        ready_since: when the current chunk could first have been worked on.
        waiting_chunks: finished chunks not yet taken.
        opened_at, chunk_s: the deadline of chunk k of a live session is `opened_at + due_s + (k - next_chunk) * chunk_s`.
        patience_s: the deadline of a job's chunk is so much later than it could have been started.
        last_turn: see `RowView`.
        service_s, device_s: see `StageTiming`.
    """

    context: SessionContext
    slot: int
    conditioning: Conditioning
    end_chunk: int | None
    shape: tuple[int, ...]
    opened_at: float
    chunk_s: float
    patience_s: float
    chunk_index: int = 0
    step_index: int = 0
    x_t: Tensor = field(default_factory=lambda: torch.empty(0))
    ready_since: float = 0.0
    waiting_chunks: int = 0
    last_turn: int = -1
    service_s: float = 0.0
    device_s: float = 0.0

    @property
    def finished(self) -> bool:
        return self.end_chunk is not None and self.chunk_index >= self.end_chunk

    def view(self) -> RowView:
        """What the step scheduler may know."""
        return RowView(
            self.slot, self.due, self.context.num_steps - self.step_index, self.waiting_chunks, self.last_turn, self.finished
        )  # fmt: skip

    @property
    def due(self) -> float:
        """When the current chunk is due."""
        if self.context.due_s is None:
            return self.ready_since + self.patience_s
        return self.opened_at + self.context.due_s + (self.chunk_index - self.context.next_chunk) * self.chunk_s

    def charge(self, seconds: float, rows: int) -> None:
        """Account for a forward shared by `rows` sessions."""
        self.service_s += seconds
        self.device_s += seconds / rows

    def timing(self, now: float) -> StageTiming:
        """Where the time of the chunk that ends now went."""
        return StageTiming("denoiser", max(0.0, now - self.ready_since - self.service_s), self.service_s, self.device_s)

    def start_chunk(self, index: int, now: float) -> None:
        """Draw the chunk's noise and begin at its first step."""
        self.chunk_index, self.step_index = index, 0
        self.x_t = chunk_noise(self.context.seed, index, self.shape)[None]
        self.ready_since, self.service_s, self.device_s = now, 0.0, 0.0
