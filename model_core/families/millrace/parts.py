"""The embedded model's family: our own networks in `model_core.nn`, with weights that come with the package."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from model_core.acts import counting
from model_core.config import EngineConfig, MillraceConfig, ModelConfig
from model_core.diffusion.flow_match import chunk_noise, first_step, mixed, timesteps
from model_core.errors import FieldViolation
from model_core.families.interface import Conditioner, Embedder, Painter, Sampler, VideoEncoder
from model_core.families.millrace.sentence import SentenceEmbedder
from model_core.graphs import GraphSpec
from model_core.nn.causal_dit import CausalDiT, KeyValue, Modulation, TextCondition, with_keys
from model_core.nn.graphs import causal_denoiser_graphs, decoder_graphs, text_encoder_graphs
from model_core.nn.vae import VAE, Memory
from model_core.nn.window import ChunkKeyValues, filled, gather, side_by_side
from model_core.runtimes.load import load_program
from model_core.runtimes.program import DTYPES
from model_core.types import Conditioning, Latents, SessionContext, TextEmbedding
from model_core.weights import load_dit, load_vae


def embedder(config: ModelConfig) -> Embedder:
    return SentenceEmbedder(_own(config).text, partial(load_program, config))


def conditioner(config: ModelConfig) -> Conditioner:
    return MillraceConditioner(load_vae(_own(config)), _own(config))


def video_encoder(config: ModelConfig) -> VideoEncoder:
    return MillraceVideoEncoder(load_vae(_own(config)), _own(config))


def sampler(config: ModelConfig, engine: EngineConfig) -> Sampler:
    own, runtime = _own(config), config.execution.denoiser
    network = load_dit(own)
    if runtime.ranks > 1:
        from model_core.nn.sharded import share  # noqa: PLC0415  few need it, and what it stands on

        network = share(network.to(torch.device(runtime.name), DTYPES[runtime.dtype]))
    return MillraceSampler(network, own, engine.batch_buckets)


def painter(config: ModelConfig) -> Painter:
    return MillracePainter(load_vae(_own(config)), _own(config))


def graphs(config: ModelConfig, engine: EngineConfig) -> list[GraphSpec]:
    own = _own(config)
    return [
        *text_encoder_graphs(SentenceEmbedder(own.text).network, own.text),
        *causal_denoiser_graphs(load_dit(own), own, engine.batch_buckets),
        *decoder_graphs(load_vae(own), own),
    ]


def _own(config: ModelConfig) -> MillraceConfig:
    return cast("MillraceConfig", config)


@dataclass(slots=True, eq=False)
class MillraceLeg:
    """One row of the graphs.

    Attributes:
        seed: of the noise.
        text, times, steps: constants of the leg: the text, the times `[S + 1]` of its S steps, and a modulation for each step.
        window: committed chunks, oldest first.
        x_t: noisy latents `[1, C, F, H, W]`.
        step: denoise steps done.
    """

    seed: int
    text: TextCondition
    times: Tensor
    steps: Modulation
    window: deque[ChunkKeyValues]
    x_t: Tensor = field(default_factory=lambda: torch.empty(0))
    step: int = 0


class MillraceSampler:
    """`CausalDiT` as a `Sampler`.

    Rows do not mix, and where a device would round a row by its company, its runtime sees to that: see `model_core.runtimes.rows`.
    Padding rows repeat the first row; their results are dropped.
    """

    def __init__(self, network: CausalDiT, config: MillraceConfig, buckets: Sequence[int]) -> None:
        """Blocks for as long as loading takes."""
        self._config = config
        self._buckets = tuple(buckets)
        self._program = load_program(config, causal_denoiser_graphs(network, config, buckets))
        empty = torch.zeros(1, config.dit.tokens_per_chunk, network.cache_width, dtype=self._program.capabilities.dtype)
        self._empty = self._program.put(empty)

    def warm(self) -> None:
        self._program.warm()

    def violations(self, context: SessionContext) -> tuple[FieldViolation, ...]:
        shape = (self._config.text.max_tokens, self._config.dit.text_width)
        tokens, mask = context.embedding.tokens.shape, context.embedding.mask.shape
        rules = (("tokens", tokens, shape), ("mask", mask, shape[:1]))
        wrong = [
            FieldViolation(f"context.embedding.{name}", f"must be of shape {must}; got {got}") for name, got, must in rules if got != must
        ]
        known = self._config.keys
        wrong += [FieldViolation("context.keys", f"must be among {known}; got {key!r}") for key in context.keys if key not in known]
        return tuple(wrong)

    def blank(self) -> TextEmbedding:
        tokens, width = self._config.text.max_tokens, self._config.dit.text_width
        return TextEmbedding("", np.zeros((tokens, width), np.float32), np.ones(tokens, np.bool_))

    def open(self, context: SessionContext) -> MillraceLeg:
        """The condition graph runs in its one shape: one session and `max_steps` times, those past its own steps set to 1.

        Matrices of few rows round differently in other shapes.
        """
        config, embedding, program = self._config, context.embedding, self._program
        tokens, mask = program.put((torch.tensor(embedding.tokens)[None], torch.tensor(embedding.mask)[None]))
        text: TextCondition = program.run("condition", tokens, mask).state
        if config.keys:
            down = torch.tensor([[float(key in counting(context.keys)) for key in config.keys]])
            text = with_keys(text, program.run("hold", program.put(down)).state)
        times = torch.tensor(timesteps(context.num_steps, config.shift))
        padded = F.pad(times[:-1], (0, config.max_steps - context.num_steps), value=1.0)
        steps: Modulation = program.run("modulate", program.put(padded), text.pooled.expand(config.max_steps, -1)).state
        past = self._run_commit([program.put(torch.tensor(latents)[None]) for latents in context.suffix])
        return MillraceLeg(context.seed, text, times, steps, deque(past, maxlen=config.dit.window))

    def start(self, leg: MillraceLeg, chunk: int) -> None:
        leg.x_t, leg.step = self._program.put(chunk_noise(leg.seed, chunk, self._config.latent_shape(chunk))[None]), 0

    def start_from(self, leg: MillraceLeg, chunk: int, source: Latents, strength: float) -> int:
        """Mixed on the host, so that it is the same on every device."""
        leg.step = first_step(leg.times.tolist(), strength)
        noise = chunk_noise(leg.seed, chunk, self._config.latent_shape(chunk))
        leg.x_t = self._program.put(mixed(torch.tensor(source), noise, float(leg.times[leg.step]))[None])
        return leg.step

    def group(self, leg: MillraceLeg) -> Hashable:
        return None

    def step(self, legs: Sequence[MillraceLeg]) -> None:
        rows = filled(legs, self._buckets)
        modulation = Modulation(
            torch.stack([leg.steps.blocks[leg.step] for leg in rows]),
            torch.stack([leg.steps.final[leg.step] for leg in rows]),
        )
        layers, mask = gather(self._config.dit, [leg.window for leg in rows], self._empty)
        x_t = torch.cat([leg.x_t for leg in rows])
        times = (torch.stack([leg.times[leg.step + after] for leg in rows]) for after in (0, 1))
        t, t_next, mask = self._program.put((*times, mask))
        ticket = self._program.run("denoise", x_t, t, t_next, modulation, _text([leg.text for leg in rows]), layers, mask)
        ticket.wait()  # the engine measures what a step takes
        for leg, x in zip(legs, ticket.state.split(1), strict=False):
            leg.x_t = x
            leg.step += 1

    def latents(self, leg: MillraceLeg) -> Latents:
        return cast("Latents", self._program.fetch(leg.x_t)[0].numpy().copy())

    def commit(self, legs: Sequence[MillraceLeg]) -> None:
        for leg, chunk in zip(legs, self._run_commit([leg.x_t for leg in legs]), strict=True):
            leg.window.append(chunk)

    def _run_commit(self, latents: Sequence[Tensor]) -> list[ChunkKeyValues]:
        """The commit graph on chunks `[1, C, F, H, W]`, padded to a bucket; for each chunk its keys and values a layer."""
        largest = self._buckets[-1]
        out: list[ChunkKeyValues] = []
        for start in range(0, len(latents), largest):
            part = latents[start : start + largest]
            ticket = self._program.run("commit", torch.cat(filled(part, self._buckets)))
            ticket.wait()
            # Cloned, so that a chunk does not keep the whole batch's memory alive.
            out += [[KeyValue(k[i : i + 1].clone(), v[i : i + 1].clone()) for k, v in ticket.state] for i in range(len(part))]
        return out


class MillraceConditioner:
    """`VAE`'s encoder as a `Conditioner`: what is given becomes the first chunks of the log. It runs eagerly on the CPU, once a session."""

    def __init__(self, vae: VAE, config: MillraceConfig) -> None:
        self._vae, self._config = vae, config

    def condition(self, frames: NDArray[np.uint8]) -> Conditioning:
        """An image stands still for one chunk. `frames` are otherwise whole chunks."""
        if len(frames) == 1:
            frames = frames.repeat(self._config.grid.first_frame(1), axis=0)
        pixels = torch.tensor(frames).permute(0, 3, 1, 2)[None].float() / 255
        return Conditioning(head=self._vae.encode(pixels)[0].numpy().copy())


class MillraceVideoEncoder:
    """`VAE`'s encoder as a `VideoEncoder`, eagerly on the CPU. With the chunk before it, a chunk's latents are those of the whole video."""

    def __init__(self, vae: VAE, config: MillraceConfig) -> None:
        self._vae, self._latents = vae, config.dit.latent_frames

    def encode(self, frames: NDArray[np.uint8], _: int) -> Latents:
        pixels = torch.tensor(frames).permute(0, 3, 1, 2)[None].float() / 255
        return cast("Latents", self._vae.encode(pixels)[0, :, -self._latents :].numpy().copy())


class MillracePainter:
    """`VAE`'s decoder as a `Painter`: one session, one shape."""

    def __init__(self, vae: VAE, config: MillraceConfig) -> None:
        self._vae, self._config = vae, config
        self._program = load_program(config, decoder_graphs(vae, config))

    def fresh(self) -> Memory:
        return self._vae.new_memory(self._vae.decoder, 1, self._config.height, self._config.width)

    def paint(self, latents: Latents, memory: Memory) -> tuple[NDArray[np.uint8], Memory]:
        pixels, after = self._program.run("decode", self._program.put(torch.tensor(latents)[None]), memory).state
        return self._program.fetch(pixels)[0].numpy(), after


def _text(rows: Sequence[TextCondition]) -> TextCondition:
    return TextCondition(side_by_side([r.layers for r in rows]), torch.cat([r.mask for r in rows]), torch.cat([r.pooled for r in rows]))
