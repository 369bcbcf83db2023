"""Causal Wan 2.1 as in Self-Forcing, CausVid and LongLive: chunks of a few latent frames, a few steps each, a window that rolls.

A committed chunk saw the chunks before it, which saw the chunks before them: its keys and values depend on the whole session, which the
log does not hold. So whenever a multiple of `renewal` chunks is done, the window is replaced by one of which the first chunk saw nothing
before it but the sink: what LongLive makes of its cache when the prompt changes, on a fixed grid of chunks. Between, chunks are committed
one by one, as the networks were trained. A leg that opens repeats exactly that from its suffix, with its own prompt; so it goes on as if
undisturbed, and after a change of prompt the whole cache speaks of the new one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from model_core.config import EngineConfig, ModelConfig
from model_core.diffusion.flow_match import chunk_noise, timesteps
from model_core.families.causal_wan.keys import load_transformer
from model_core.families.causal_wan.settings import NOISE
from model_core.families.common.config import CheckpointConfig
from model_core.families.common.streaming import StreamLeg, StreamSampler, joined, modulation, row_of, texts
from model_core.families.interface import Sampler, VideoEncoder
from model_core.families.wan.parts import embedder, graphs_beside, painter
from model_core.families.wan.source import load_video_encoder
from model_core.graphs import DENOISER, Bucket, GraphSpec, Inputs
from model_core.nn.causal_dit import MASKED, KeyValue, Modulation
from model_core.nn.wan import CausalWan, Rotary, rotary
from model_core.nn.window import ChunkKeyValues, filled, gather

__all__ = ["CausalWanSampler", "embedder", "graphs", "painter", "sampler", "video_encoder"]


def video_encoder(config: ModelConfig) -> VideoEncoder:
    return load_video_encoder(_own(config))


def sampler(config: ModelConfig, engine: EngineConfig) -> Sampler:
    return CausalWanSampler(_transformer(_own(config)), _own(config), engine.batch_buckets)


def graphs(config: ModelConfig, engine: EngineConfig) -> list[GraphSpec]:
    own = _own(config)
    return [*denoiser_graphs(_transformer(own), own, engine.batch_buckets), *graphs_beside(own)]


def _transformer(config: CheckpointConfig) -> Any:
    return load_transformer(config.checkpoint, averaged=config.attention.averaged)


def _own(config: ModelConfig) -> CheckpointConfig:
    return cast("CheckpointConfig", config)


@dataclass(frozen=True, slots=True)
class Shape:
    """Of chunk, window and network; see `model_core.nn.window.WindowShape`.

    Attributes:
        frames, rows, columns: of a chunk's tokens.
        window: chunks that the graphs see, sink and rolling ones.
        rolling: of those, the last ones.
        depth, width, head_dim: of the network.
    """

    frames: int
    rows: int
    columns: int
    window: int
    rolling: int
    depth: int
    width: int
    head_dim: int

    @property
    def tokens_per_chunk(self) -> int:
        return self.frames * self.rows * self.columns

    @classmethod
    def of(cls, transformer: Any, config: CheckpointConfig) -> Shape:
        settings = transformer.config
        _, frames, height, width = config.latent_shape(0)
        _, down, across = settings.patch_size
        rolling = config.attention.window or max(1, config.context_chunks - 1)
        heads, head_dim = settings.num_attention_heads, settings.attention_head_dim
        window, grid = rolling + config.attention.sink, (height // down, width // across)
        return cls(frames, *grid, window, rolling, settings.num_layers, heads * head_dim, head_dim)

    def position(self, chunk: int) -> Rotary:
        """Frames are counted from the session's first, without end."""
        first = chunk * self.frames
        return rotary(self.head_dim, range(first, first + self.frames), self.rows, self.columns)


@dataclass(slots=True)
class Cache:
    """Committed chunks, oldest first.

    Attributes:
        sink: the session's first ones.
        window: the last ones, which the graphs see after the sink.
        heir: what `window` is replaced by at the next renewal: the last ones, of which the first saw nothing before it but the sink.
    """

    sink: list[ChunkKeyValues]
    window: deque[ChunkKeyValues]
    heir: deque[ChunkKeyValues]


@dataclass(slots=True)
class Commit:
    """One row of the commit graph: the clean chunk `x_0` `[1, C, F, H, W]`, which sees the sink and `window`, and is appended to it."""

    leg: StreamLeg
    window: deque[ChunkKeyValues]
    chunk: int
    x_0: Tensor

    def seen(self) -> list[ChunkKeyValues]:
        return [*self.leg.state.sink, *self.window]


class CausalWanSampler(StreamSampler):
    """`CausalWan` as a `Sampler`. Rows at any chunk and step share a forward: what lacks in a window is masked."""

    def __init__(self, transformer: Any, config: CheckpointConfig, buckets: Sequence[int]) -> None:
        super().__init__(config, buckets, denoiser_graphs(transformer, config, buckets), transformer.config.text_dim)
        self._shape = Shape.of(transformer, config)
        self._sink, self._renewal = config.attention.sink, config.attention.renewal
        empty = torch.zeros(1, self._shape.tokens_per_chunk, self._shape.width, dtype=transformer.proj_out.weight.dtype)
        self._empty = self.program.put(empty)

    def times(self, num_steps: int) -> Tensor:
        attention = self.config.attention
        listed = [share for _, share in attention.listed(num_steps)]
        return torch.tensor([*listed, 0.0] if listed else timesteps(num_steps, attention.shift), dtype=torch.float64)

    def modulated(self, times: Tensor, num_steps: int) -> tuple[Tensor, ...]:
        attention, thousandths = self.config.attention, NOISE * times
        listed = [time for time, _ in attention.listed(num_steps)]
        thousandths[: len(listed)] = torch.tensor(listed)
        thousandths[-1] = attention.context_noise
        return (thousandths.float(),)

    def noise(self, leg: StreamLeg, chunk: int) -> Tensor:
        return self._noise(leg, chunk, 0)

    def position(self, chunk: int) -> Rotary:
        return self._shape.position(chunk)

    def remember(self, leg: StreamLeg) -> None:
        """Commit from the suffix what an undisturbed leg would have committed since the cache was last renewed."""
        context, rolling = leg.context, self._shape.rolling
        leg.state = cache = Cache([], deque(maxlen=rolling), deque(maxlen=rolling))
        held = {context.next_chunk - len(context.suffix) + i: latents for i, latents in enumerate(context.suffix)}
        held |= dict(enumerate(context.sink))
        renewed = context.next_chunk - context.next_chunk % self._renewal if self._renewal else 0
        first = max(0, renewed - rolling)
        for chunk in (*range(min(self._sink, first)), *range(first, context.next_chunk)):
            x_0 = self.program.put(torch.tensor(held[chunk])[None])
            windows = [cache.window] if chunk < renewed else self._windows(cache, chunk)
            self._run_commit([Commit(leg, window, chunk, x_0) for window in windows])

    def advance(self, rows: Sequence[StreamLeg], x_t: Tensor, t: Tensor, t_next: Tensor, step: Modulation, position: Rotary) -> Any:
        noise = self.program.put(torch.cat([self._noise(leg, leg.chunk, leg.step + 1) for leg in rows]))
        past, mask = self._past([[*leg.state.sink, *leg.state.window] for leg in rows])
        return self.program.run("denoise", x_t, noise, t, t_next, step, position, texts(rows), past, mask)

    def commit(self, legs: Sequence[StreamLeg]) -> None:
        self._run_commit([Commit(leg, window, leg.chunk, leg.x_t) for leg in legs for window in self._windows(leg.state, leg.chunk)])
        for leg in legs:
            cache = cast("Cache", leg.state)
            if cache.heir and (leg.chunk + 1) % self._renewal == 0:
                cache.window, cache.heir = cache.heir, deque(maxlen=self._shape.rolling)

    def _windows(self, cache: Cache, chunk: int) -> list[deque[ChunkKeyValues]]:
        """That `chunk` is appended to. Before a renewal that would change anything they are two, so that no chunk has to wait for it."""
        renewal = (chunk // self._renewal + 1) * self._renewal if self._renewal else 0
        first = renewal - self._shape.rolling
        return [cache.window, cache.heir] if self._sink < first <= chunk else [cache.window]

    def _run_commit(self, commits: Sequence[Commit]) -> None:
        largest = self.buckets[-1]
        made: list[ChunkKeyValues] = []
        for start in range(0, len(commits), largest):
            part = commits[start : start + largest]
            rows = filled(part, self.buckets)
            step = modulation([row.leg.steps for row in rows], [-1] * len(rows))
            position = self.program.put(joined([self._shape.position(row.chunk) for row in rows]))
            past, mask = self._past([row.seen() for row in rows])
            inputs = (torch.cat([row.x_0 for row in rows]), step, position, texts([row.leg for row in rows]), past, mask)
            ticket = self.program.run("commit", *inputs)
            ticket.wait()
            made += [row_of(ticket.state, i) for i in range(len(part))]
        for row, slots in zip(commits, made, strict=True):
            if row.chunk < self._sink:
                row.leg.state.sink[row.chunk :] = [slots]
            else:
                row.window.append(slots)

    def _past(self, windows: Sequence[Sequence[ChunkKeyValues]]) -> tuple[list[KeyValue], Tensor]:
        past, mask = gather(self._shape, windows, self._empty)
        return past, self.program.put(mask)

    def _noise(self, leg: StreamLeg, chunk: int, step: int) -> Tensor:
        return chunk_noise(leg.context.seed, chunk, self.config.latent_shape(chunk), step)[None]


# -- graphs -------------------------------------------------------------------------------------------------------------------


def denoiser_graphs(transformer: Any, config: CheckpointConfig, batches: Sequence[int]) -> list[GraphSpec]:
    """`condition` and `modulate` in their one shape, `denoise` and `commit` for each batch size."""
    network, shape = CausalWan(transformer), Shape.of(transformer, config)
    settings = transformer.config
    listed = [
        GraphSpec(
            DENOISER, "condition", Bucket(1, tokens=config.max_tokens), network, "condition",
            partial(_noise_inputs, 1, config.max_tokens, settings.text_dim),
        ),
        GraphSpec(DENOISER, "modulate", Bucket(config.max_steps + 1), network, "modulate", partial(_times, config.max_steps + 1)),
    ]  # fmt: skip
    for rows in batches:
        bucket, of = Bucket(rows, *config.latent_shape(0)[1:]), (transformer, config, shape, rows)
        listed += [
            GraphSpec(DENOISER, "denoise", bucket, network, "advance", partial(_denoise_inputs, *of), shared=True),
            GraphSpec(DENOISER, "commit", bucket, network, "commit", partial(_commit_inputs, *of), shared=True),
        ]
    return listed


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Plausible values for an input."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def key_values(depth: int, rows: int, tokens: int, width: int, dtype: torch.dtype) -> list[KeyValue]:
    return [KeyValue(draw(rows, tokens, width, seed=1, dtype=dtype), draw(rows, tokens, width, seed=2, dtype=dtype))] * depth


def step_of(transformer: Any, rows: int, dtype: torch.dtype) -> Modulation:
    """What `modulate` makes in a program of `dtype`. Networks that were loaded in `dtype` keep their last table's own."""
    width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
    last = transformer.scale_shift_table.dtype if transformer.proj_out.weight.dtype is dtype else dtype
    return Modulation(draw(rows, 6, width, seed=3, dtype=dtype) * 0.1, draw(rows, 2, width, seed=4, dtype=last) * 0.1)


def _noise_inputs(*inputs: Any) -> Inputs:
    *shape, _ = inputs
    return (draw(*shape),)


def _times(rows: int, _: torch.dtype) -> Inputs:
    return (torch.linspace(1000, 0, rows),)


def _commit_inputs(transformer: Any, config: CheckpointConfig, shape: Shape, rows: int, dtype: torch.dtype) -> Inputs:
    """Half the window in use, as in a session's first chunks."""
    span = shape.window * shape.tokens_per_chunk
    position = joined([shape.position(0)] * rows)
    words = key_values(shape.depth, rows, config.max_tokens, shape.width, dtype)
    unused = torch.arange(span)[None].expand(rows, -1) < span // 2
    mask = torch.where(unused, MASKED, 0.0)
    past = key_values(shape.depth, rows, span, shape.width, dtype)
    return draw(rows, *config.latent_shape(0)), step_of(transformer, rows, dtype), position, words, past, mask


def _denoise_inputs(transformer: Any, config: CheckpointConfig, shape: Shape, rows: int, dtype: torch.dtype) -> Inputs:
    x_t, *rest = _commit_inputs(transformer, config, shape, rows, dtype)
    noise = draw(rows, *config.latent_shape(0), seed=5)
    return (x_t, noise, torch.linspace(1, 0.5, rows), torch.linspace(0.8, 0.2, rows), *rest)
