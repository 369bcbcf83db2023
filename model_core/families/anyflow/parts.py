"""AnyFlow-FAR on diffusers' network (https://huggingface.co/papers/2605.13724): a clip of limited length, made chunk by chunk.

Every chunk sees all chunks before it, the last ones in full, older ones in larger patches. After each chunk the whole past passes through
anew, so the cache is a function of the clean latents and the prompt, whatever happened before. A leg that opens does that once. An image or
a video to go on from is no special case: its latents are the first chunks of the log.

Chunks of one index share a forward: their caches are of one shape. Noise of the whole clip is drawn at once, as diffusers' pipeline does.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from diffusers import AnyFlowFARPipeline, AnyFlowFARTransformer3DModel, AutoencoderKLWan, FlowMapEulerDiscreteScheduler
from diffusers.utils.torch_utils import randn_tensor
from numpy.typing import NDArray
from torch import Tensor

from model_core.chunk_grid import ChunkGrid
from model_core.config import EngineConfig, ModelConfig
from model_core.families.anyflow.flow_map import FlowMapFAR
from model_core.families.causal_wan.parts import draw, key_values, step_of
from model_core.families.checkpoints.loading import load_module, load_noise_schedule
from model_core.families.common.config import CheckpointConfig
from model_core.families.common.streaming import StreamLeg, StreamSampler, joined, modulation, row_of, texts
from model_core.families.interface import Conditioner, Sampler, VideoEncoder
from model_core.families.wan.parts import embedder, graphs_beside, painter
from model_core.families.wan.source import load_video_encoder
from model_core.graphs import DENOISER, Bucket, GraphSpec, Inputs
from model_core.nn.causal_dit import MASKED, KeyValue, Modulation
from model_core.nn.wan import Rotary, rotary
from model_core.nn.window import filled, side_by_side
from model_core.types import Conditioning

__all__ = ["AnyFlowConditioner", "AnyFlowSampler", "conditioner", "embedder", "graphs", "painter", "sampler", "video_encoder"]


def conditioner(config: ModelConfig) -> Conditioner:
    own = _own(config)
    vae = load_module(own.checkpoint, "vae", AutoencoderKLWan)
    return AnyFlowConditioner(AnyFlowFARPipeline(None, None, None, vae, None), own)


def video_encoder(config: ModelConfig) -> VideoEncoder:
    return load_video_encoder(_own(config))


def sampler(config: ModelConfig, engine: EngineConfig) -> Sampler:
    own = _own(config)
    return AnyFlowSampler(_transformer(own), own, engine.batch_buckets, load_noise_schedule(own.checkpoint, FlowMapEulerDiscreteScheduler))


def graphs(config: ModelConfig, engine: EngineConfig) -> list[GraphSpec]:
    own = _own(config)
    return [*denoiser_graphs(_transformer(own), own, engine.batch_buckets), *graphs_beside(own)]


def _transformer(config: CheckpointConfig) -> Any:
    return load_module(config.checkpoint, "transformer", AnyFlowFARTransformer3DModel)


def _own(config: ModelConfig) -> CheckpointConfig:
    return cast("CheckpointConfig", config)


@dataclass(frozen=True, slots=True)
class Past:
    """How the network sees a session's chunks while chunk `chunk` is made.

    Attributes:
        distant, recent: latent frames before it that are seen in large patches, and in small ones.
        frames: latent frames of the chunk itself.
        large, small: patches of a latent frame, rows and columns.
        pool: small patches along a side of a large one.
        ends: of the chunks before it, in latent frames.
        head_dim: of the network.
    """

    distant: int
    recent: int
    frames: int
    large: tuple[int, int]
    small: tuple[int, int]
    pool: int
    ends: tuple[int, ...]
    head_dim: int

    @classmethod
    def of(cls, transformer: Any, config: CheckpointConfig, chunk: int) -> Past:
        settings, grid = transformer.config, config.grid
        _, height, width = config.latent_size
        ends = tuple(latents_before(grid, after) for after in range(1, chunk + 1))
        distant = latents_before(grid, max(0, chunk + 1 - settings.full_chunk_limit))
        small, large = settings.patch_size, settings.compressed_patch_size
        return cls(
            distant=distant, recent=latents_before(grid, chunk) - distant, frames=grid.latents(chunk),
            large=(height // large[1], width // large[2]), small=(height // small[1], width // small[2]), pool=large[1] // small[1],
            ends=ends, head_dim=settings.attention_head_dim,
        )  # fmt: skip

    @property
    def tokens(self) -> int:
        """Of all chunks before it."""
        return self.distant * self.large[0] * self.large[1] + self.recent * self.small[0] * self.small[1]

    def position(self) -> Rotary:
        """Of the chunk's tokens."""
        first = self.distant + self.recent
        return rotary(self.head_dim, range(first, first + self.frames), *self.small)

    def positions(self) -> Rotary:
        """Of the tokens before it."""
        recent = rotary(self.head_dim, range(self.distant, self.distant + self.recent), *self.small)
        if not self.distant:
            return recent
        distant = rotary(self.head_dim, range(self.distant), *self.large, pool=self.pool)
        return Rotary(torch.cat((distant.cos, recent.cos), 1), torch.cat((distant.sin, recent.sin), 1))

    def mask(self) -> Tensor:
        """Additive `[1, 1, M, M]`: a token sees its own chunk and those before."""
        frames = torch.arange(self.distant + self.recent)
        chunk = (frames[:, None] >= torch.tensor(self.ends)).sum(1)
        patches = torch.where(frames < self.distant, self.large[0] * self.large[1], self.small[0] * self.small[1])
        chunk = chunk.repeat_interleave(patches)
        return torch.where(chunk[:, None] >= chunk, 0.0, MASKED)[None, None]


def latents_before(grid: ChunkGrid, chunk: int) -> int:
    return sum(grid.latents(earlier) for earlier in range(chunk))


@dataclass(slots=True)
class Memory:
    """What a leg remembers.

    Attributes:
        noise: of the whole clip `[1, C, F, H, W]`, on the host.
        clean: latents of the chunks that are done.
        past: keys and values a layer, of all of them.
    """

    noise: Tensor
    clean: list[Tensor] = field(default_factory=list)
    past: list[KeyValue] = field(default_factory=list)


class AnyFlowConditioner:
    """A `Conditioner`: the footage becomes the first chunks of the log. `pipeline` is AnyFlow's with an autoencoder and no other part."""

    def __init__(self, pipeline: Any, config: CheckpointConfig) -> None:
        self._pipeline, self._config = pipeline, config

    def condition(self, frames: NDArray[np.uint8]) -> Conditioning:
        """Frames of whole chunks, of which the first has one."""
        pixels = torch.tensor(frames).permute(0, 3, 1, 2)[None].float() / 255
        latents = self._pipeline.encode_video(pixels, self._config.height, self._config.width)
        return Conditioning(head=latents[0].transpose(0, 1).float().numpy().copy())


class AnyFlowSampler(StreamSampler):
    """`FlowMapFAR` as a `Sampler`."""

    def __init__(self, transformer: Any, config: CheckpointConfig, buckets: Sequence[int], schedule: Any) -> None:
        super().__init__(config, buckets, denoiser_graphs(transformer, config, buckets), transformer.config.text_dim)
        self._schedule = schedule
        self._pasts = [Past.of(transformer, config, chunk) for chunk in range((config.grid.chunks or 0) + 1)]
        self._nothing = self.program.put(_nothing(transformer, transformer.proj_out.weight.dtype))

    def times(self, num_steps: int) -> Tensor:
        self._schedule.set_timesteps(num_steps)
        return cast("Tensor", self._schedule.sigmas)

    def modulated(self, times: Tensor, num_steps: int) -> tuple[Tensor, ...]:
        thousandths = (times * self._schedule.config.num_train_timesteps).float()
        return thousandths, torch.nn.functional.pad(thousandths[1:], (0, 1))

    def noise(self, leg: StreamLeg, chunk: int) -> Tensor:
        first = latents_before(self.config.grid, chunk)
        return cast("Memory", leg.state).noise[:, :, first : first + self.config.grid.latents(chunk)]

    def position(self, chunk: int) -> Rotary:
        return self._pasts[chunk].position()

    def group(self, leg: StreamLeg) -> Hashable:
        return leg.chunk

    def start(self, leg: StreamLeg, chunk: int) -> None:
        """A chunk that was committed and is made again, as in the warm-up, does not look at itself."""
        memory = cast("Memory", leg.state)
        if len(memory.clean) > chunk:
            del memory.clean[chunk:]
            memory.past = self._committed([leg])[0] if memory.clean else []
        super().start(leg, chunk)

    def remember(self, leg: StreamLeg) -> None:
        grid, (channels, height, width) = self.config.grid, self.config.latent_size
        shape = (1, channels, latents_before(grid, grid.chunks or 0), height, width)
        draw_from = torch.Generator().manual_seed(leg.context.seed)
        noise: Tensor = randn_tensor(shape, generator=draw_from, dtype=torch.float32)
        leg.state = Memory(noise, [self.program.put(torch.tensor(latents)[None]) for latents in leg.context.suffix])
        if leg.state.clean:
            leg.state.past = self._committed([leg])[0]

    def advance(self, rows: Sequence[StreamLeg], x_t: Tensor, t: Tensor, t_next: Tensor, step: Modulation, position: Rotary) -> Any:
        past = side_by_side([leg.state.past or self._nothing for leg in rows])
        return self.program.run("denoise", x_t, t, t_next, step, position, texts(rows), past)

    def commit(self, legs: Sequence[StreamLeg]) -> None:
        for leg in legs:
            leg.state.clean[leg.chunk :] = [leg.x_t]
        for leg, past in zip(legs, self._committed(legs), strict=True):
            leg.state.past = past

    def _committed(self, legs: Sequence[StreamLeg]) -> list[list[KeyValue]]:
        """Keys and values of all that `legs`, all of them as far, have made; a layer each."""
        rows = filled(legs, self.buckets)
        seen = self._pasts[len(rows[0].state.clean)]
        clean = torch.cat([torch.cat(leg.state.clean, 2) for leg in rows])
        distant, recent = clean.split((seen.distant, seen.recent), 2)
        step = modulation([leg.steps for leg in rows], [-1] * len(rows))
        position, mask = self.program.put((joined([seen.positions()] * len(rows)), seen.mask()))
        inputs = (recent, [distant] if seen.distant else [], step, position, texts(rows), mask)
        ticket = self.program.run("commit", *inputs)
        ticket.wait()
        return [row_of(ticket.state, i) for i in range(len(legs))]


def _nothing(transformer: Any, dtype: torch.dtype) -> list[KeyValue]:
    """Before the first chunk."""
    width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
    return [KeyValue(torch.empty(1, 0, width, dtype=dtype), torch.empty(1, 0, width, dtype=dtype))] * transformer.config.num_layers


# -- graphs -------------------------------------------------------------------------------------------------------------------


def denoiser_graphs(transformer: Any, config: CheckpointConfig, batches: Sequence[int]) -> list[GraphSpec]:
    """`condition` and `modulate` in their one shape; `denoise` and `commit` for each chunk and batch size. A bucket counts the past too."""
    network, settings = FlowMapFAR(transformer), transformer.config
    times, (_, height, width) = config.max_steps + 1, config.latent_size
    words = (1, config.max_tokens, settings.text_dim)
    listed = [
        GraphSpec(DENOISER, "condition", Bucket(1, tokens=config.max_tokens), network, "condition", lambda _: (draw(*words),)),
        GraphSpec(DENOISER, "modulate", Bucket(times), network, "modulate", lambda _: (torch.linspace(1000, 0, times),) * 2),
    ]
    for chunk in range(config.grid.chunks or 0):
        seen = Past.of(transformer, config, chunk)
        for rows in batches:
            inputs = partial(_inputs, transformer, config, seen, rows)
            bucket = Bucket(rows, seen.distant + seen.recent + seen.frames, height, width)
            listed.append(GraphSpec(DENOISER, "denoise", bucket, network, "follow", partial(inputs, commit=False), shared=True))
            if chunk:
                past = Bucket(rows, seen.distant + seen.recent, height, width)
                listed.append(GraphSpec(DENOISER, "commit", past, network, "recommit", partial(inputs, commit=True), shared=True))
    return listed


def _inputs(transformer: Any, config: CheckpointConfig, seen: Past, rows: int, dtype: torch.dtype, *, commit: bool) -> Inputs:
    settings, (channels, height, width) = transformer.config, config.latent_size
    across = settings.num_attention_heads * settings.attention_head_dim
    step, words = step_of(transformer, rows, dtype), key_values(settings.num_layers, rows, config.max_tokens, across, dtype)
    if commit:
        recent, distant = (draw(rows, channels, frames, height, width) for frames in (seen.recent, seen.distant))
        return recent, [distant] if seen.distant else [], step, joined([seen.positions()] * rows), words, seen.mask()
    past = key_values(settings.num_layers, rows, seen.tokens, across, dtype)
    x_t, position = draw(rows, channels, seen.frames, height, width), joined([seen.position()] * rows)
    return x_t, torch.linspace(1, 0.5, rows), torch.linspace(0.8, 0.2, rows), step, position, words, past
