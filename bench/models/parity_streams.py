"""The streaming families' rows of `bench.models.parity`: sessions of several chunks, compared latent by latent.

AnyFlow-FAR is compared with its pipeline. Causal Wan has none in diffusers: its first step of a late chunk is compared with diffusers'
whole network over the whole sequence (`bench.models.block_causal`), and its frames with the autoencoder's own `decode`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKLWan
from numpy.typing import NDArray

from bench.models.block_causal import velocity, whole_network
from model_core.config import EngineConfig
from model_core.diffusion.flow_match import chunk_noise
from model_core.engine.engine import Engine
from model_core.engine.session import EngineSession
from model_core.families.causal_wan.parts import CausalWanSampler
from model_core.families.checkpoints.loading import load_module
from model_core.families.common.config import CheckpointConfig
from model_core.families.common.pixels import bytes_of
from model_core.families.interface import Painter, Sampler
from model_core.families.registry import family
from model_core.local import LocalPipeline
from model_core.pipeline import SessionRequest
from model_core.types import FrameChunk, Latents, SessionContext

LATE = 5  # a chunk of causal Wan whose window has rolled, and whose cache has not been renewed

Chunks = list[Latents]


def compare_stream(
    config: CheckpointConfig, context: Callable[[str, int, int], SessionContext], painter: Painter, engine: EngineConfig
) -> dict[str, float]:
    """Largest differences; see `bench.models.parity`. `context` is of a prompt, a seed and a number of steps."""
    sampler, chunks = family(config.family).parts.sampler(config, engine), config.grid.chunks or config.context_chunks + 3
    frames = config.grid.first_frame(chunks)

    def made(*contexts: SessionContext) -> list[Chunks]:
        return _made(Engine(sampler, config, engine), contexts)

    ours = replace(context("a red circle moves left over a blue background", 7, 5), num_frames=frames)
    (alone,) = made(ours)
    others = replace(context("a dog", 8, 4), num_frames=frames), replace(context("", 9, 3), num_frames=frames)
    with torch.inference_mode():
        whole = _painted(painter, [np.concatenate(alone, 1)])
        network, picture = _theirs(config, ours, alone, sampler)
    return {
        "diffusers": network,
        "frames": _apart(whole, picture),
        "in-process": _apart(np.concatenate(asyncio.run(_staged(config, ours, engine)), 1), np.concatenate(alone, 1)),
        "batched": _apart(np.concatenate(made(others[0], ours, others[1])[1], 1), np.concatenate(alone, 1)),
        "streamed": _apart(_painted(painter, alone), whole),
        "resumed": max(_resumed(config, ours, alone, chunk, made, painter) for chunk in range(1, chunks)),
    }


def _theirs(config: CheckpointConfig, ours: SessionContext, alone: Chunks, sampler: Sampler) -> tuple[float, NDArray[Any]]:
    """How far the network is from diffusers', and diffusers' frames of our latents or its own, in levels of 255."""
    if isinstance(sampler, CausalWanSampler):
        autoencoder = load_module(config.checkpoint, "vae", AutoencoderKLWan)
        mean, std = (
            torch.tensor(values).view(1, -1, 1, 1, 1) for values in (autoencoder.config.latents_mean, autoencoder.config.latents_std)
        )
        decoded = autoencoder.decode(torch.tensor(np.concatenate(alone, 1))[None] / (1.0 / std) + mean, return_dict=False)[0]
        return _network_apart(config, ours, alone, sampler), bytes_of(decoded)[0].numpy()
    pipeline = diffusers.AnyFlowFARPipeline.from_pretrained(config.checkpoint.path())
    pipeline.set_progress_bar_config(disable=True)
    asked = {
        "prompt": ours.embedding.prompt, "height": config.height, "width": config.width, "num_frames": ours.num_frames,
        "num_inference_steps": ours.num_steps, "max_sequence_length": config.max_tokens,
    }  # fmt: skip
    latents, frames = (
        pipeline(**asked, generator=torch.Generator().manual_seed(ours.seed), output_type=kind).frames[0] for kind in ("latent", "np")
    )
    return _apart(np.concatenate(alone, 1), latents.numpy()), (frames * 255).round()


def _network_apart(config: CheckpointConfig, ours: SessionContext, alone: Chunks, sampler: CausalWanSampler) -> float:
    leg = sampler.open(replace(ours, next_chunk=LATE, suffix=tuple(alone[:LATE])))
    sampler.start(leg, LATE)
    noise, t_next = leg.x_t.clone(), float(leg.times[1])
    sampler.step([leg])
    clean, text = [torch.tensor(latents) for latents in alone[:LATE]], torch.tensor(ours.embedding.tokens)
    theirs = noise - velocity(whole_network(config.checkpoint), clean, noise, 1000.0, text, config.attention)
    fresh = chunk_noise(ours.seed, LATE, config.latent_shape(LATE), step=1)
    return _apart(leg.x_t.numpy(), ((1 - t_next) * theirs + t_next * fresh).numpy())


def _resumed(
    config: CheckpointConfig, ours: SessionContext, alone: Chunks, chunk: int, made: Callable[..., list[Chunks]], painter: Painter
) -> float:
    """The next chunk of a session that goes on elsewhere, latents and frames, against the undisturbed one's."""
    first = max(0, chunk - config.context_chunks)
    suffix, sink = tuple(alone[first:chunk]), tuple(alone[: min(config.sink_chunks, first)])
    frames = config.grid.first_frame(chunk + 1)
    ((latents,),) = made(replace(ours, next_chunk=chunk, suffix=suffix, sink=sink, num_frames=frames))
    last = config.grid.frames(chunk)
    with torch.inference_mode():
        rebuilt, undisturbed = (_painted(painter, [*before, latents])[-last:] for before in (suffix, alone[:chunk]))
    return max(_apart(latents, alone[chunk]), _apart(rebuilt, undisturbed))


def _made(engine: Engine, contexts: tuple[SessionContext, ...]) -> list[Chunks]:
    """The chunks of each context's session, each opened two steps after the one before."""
    made: dict[EngineSession, Chunks] = {}

    def emit(session: EngineSession, chunk: Any) -> None:
        made[session].append(chunk.latents)
        engine.taken(session)

    for context in contexts:
        made[engine.open(context)] = []
        for _ in range(2):
            engine.step(emit)
    while engine.step(emit):
        pass
    for session in made:
        engine.close(session)
    return list(made.values())


async def _staged(config: CheckpointConfig, ours: SessionContext, engine: EngineConfig) -> Chunks:
    pipeline = LocalPipeline(config, engine)
    try:
        request = SessionRequest("parity", ours.embedding.prompt, ours.seed, ours.num_steps, ours.num_frames)
        async with aclosing((await pipeline.pipeline.open(request)).events()) as events:
            return [event.latents async for event in events if isinstance(event, FrameChunk)]
    finally:
        await pipeline.aclose()


def _painted(painter: Painter, chunks: Chunks) -> NDArray[np.uint8]:
    memory, frames = painter.fresh(), []
    for latents in chunks:
        made, memory = painter.paint(latents, memory)
        frames.append(made)
    return cast("NDArray[np.uint8]", np.concatenate(frames))


def _apart(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.abs(a.astype(np.float64) - b).max())
