"""Compares each family with the diffusers pipeline of that family: `python -m bench.models.parity [NAME ...]`.

Same weights (small, random), seed and noise schedule, float32 on the CPU; largest absolute differences, of latents unless said otherwise.

    diffusers   our engine alone, against the pipeline
    frames      our decoder, against the pipeline's frames, in levels of 255
    in-process  the whole pipeline of stages, against the engine alone
    batched     with two clips of other prompts, seeds and step counts, each a step apart, against alone
    streamed    the decoder latent frame by latent frame, against the clip at once, in levels of 255; - where it only decodes whole clips
    resumed     a session that goes on elsewhere at any of its chunks, against the undisturbed one, latents and frames; - for clips

Below the families stand variants: the same checkpoints as people have them (`bench.models.parity_variants`). Other forms of their files are
compared by `bench.models.parity_forms`, and sessions one after another by `bench.models.parity_sequences`.

`causal-wan`, which diffusers does not have, is compared with its Wan network under a mask: see `bench.models.parity_streams`.
"""

from __future__ import annotations

import asyncio
import math
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from bench.models.parity_streams import compare_stream
from bench.models.parity_variants import VARIANTS, Variant
from model_core.config import EngineConfig, ModelConfig
from model_core.engine.engine import Engine
from model_core.engine.session import EngineSession
from model_core.families.checkpoints.checkpoint import Checkpoint
from model_core.families.common.clip import ClipSampler
from model_core.families.common.config import CheckpointConfig
from model_core.families.described import Choice, describe
from model_core.families.interface import Embedder, Painter
from model_core.families.registry import family, kinds, tiny_checkpoints
from model_core.families.tiny import make_tiny
from model_core.local import LocalPipeline
from model_core.pipeline import SessionRequest
from model_core.types import Footage, FrameChunk, Guidance, Latents, SessionContext, TextEmbedding

PROMPT, SEED, STEPS, FRAMES = "a red circle moves left over a blue background", 7, 5, 9  # of a clip
ENGINE = EngineConfig(batch_buckets=(1, 2, 4))


def together(engine: Engine, contexts: list[SessionContext]) -> list[Latents]:
    """One clip of each context, each opened a step after the one before."""
    made: dict[EngineSession, Latents] = {}
    sessions = []
    for context in contexts:
        sessions.append(engine.open(context))
        engine.step(lambda session, chunk: made.update({session: chunk.latents}))
    while engine.step(lambda session, chunk: made.update({session: chunk.latents})):
        pass
    for session in sessions:
        engine.close(session)
    return [made[session] for session in sessions]


def drawing(config: ModelConfig, shade: int = 0) -> Image.Image:
    """What a clip is given, where its model needs an image: at the size served, so that nobody resamples it."""
    image = Image.new("RGB", (config.width, config.height), (20 + shade, 40, 160))
    ImageDraw.Draw(image).ellipse((config.width // 4, config.height // 4, config.width // 2, config.height // 4 * 3), (220, 40, 40))
    return image


async def staged(config: CheckpointConfig) -> Latents:
    """The clip's latents, through the stages of one process."""
    pipeline = LocalPipeline(config, ENGINE)
    try:
        footage = Footage(np.asarray(drawing(config))[None]) if config.needs_media else None
        session = await pipeline.pipeline.open(SessionRequest("parity", PROMPT, SEED, STEPS, FRAMES, footage=footage))
        async with aclosing(session.events()) as events:
            (latents,) = [event.latents async for event in events if isinstance(event, FrameChunk)]
            return latents
    finally:
        await pipeline.aclose()


def parted(painter: Painter, clip: Latents) -> NDArray[np.uint8] | None:
    """The clip decoded latent frame by latent frame; None if the decoder remembers nothing."""
    memory, frames = painter.fresh(), []
    if memory is None:
        return None
    for latents in np.split(clip, clip.shape[1], axis=1):
        made, memory = painter.paint(latents, memory)
        frames.append(made)
    return np.concatenate(frames)


def apart(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.abs(a.astype(np.float64) - b).max())


def embedded(embedder: Embedder, prompt: str) -> TextEmbedding:
    tokens, mask = embedder.embed([prompt])
    return TextEmbedding(prompt, tokens[0], mask[0])


def compare(name: str, folder: Path) -> dict[str, float]:
    """`name` is that of a small checkpoint, or of a variant."""
    variant = VARIANTS.get(name) or Variant(name)
    make_tiny(variant.family, folder)
    variant.change(folder)
    where, frames = Checkpoint(folder=str(folder)), tiny_checkpoints()[variant.family].frames
    config = describe(Choice(checkpoint=where, height=64, width=96, frames=frames, steps=STEPS, **variant.choice))
    parts = family(config.family).parts
    embedder, painter = parts.embedder(config), parts.painter(config)

    conditioner = parts.conditioner(config) if config.needs_media else None

    def context(prompt: str, seed: int, steps: int) -> SessionContext:
        embedding, negative = embedded(embedder, prompt), embedded(embedder, config.negative_prompt)
        guidance = Guidance(config.guidance, negative if config.guidance > 1 else None)
        given = None
        if conditioner is not None:
            with torch.inference_mode():
                given = conditioner.condition(np.asarray(drawing(config, shade=seed - SEED))[None])
        return SessionContext(prompt, seed, steps, embedding, num_frames=FRAMES, given=given, guidance=guidance)

    if kinds()[config.family].streaming:
        return compare_stream(config, context, painter, ENGINE)
    sampler = cast("ClipSampler", parts.sampler(config, ENGINE))
    engine = Engine(sampler, config, ENGINE)
    ours = context(PROMPT, SEED, STEPS)
    (alone,) = together(engine, [ours])
    batched = together(engine, [context("a dog", 8, 4), ours, context("", 9, 3)])[1]
    pipeline = getattr(diffusers, config.checkpoint.index()["_class_name"]).from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    asked = {
        "prompt": PROMPT, "negative_prompt": "", "height": config.height, "width": config.width, "num_frames": FRAMES,
        "num_inference_steps": STEPS, "guidance_scale": config.guidance, "max_sequence_length": config.max_tokens,
    } | variant.told | ({"image": drawing(config)} if config.needs_media else {})  # fmt: skip
    theirs = []
    for kind in ("latent", "np"):
        torch.manual_seed(0)  # LTX's decoder draws from the global generator, which ours seeds
        theirs.append(pipeline(**asked, generator=torch.Generator().manual_seed(SEED), output_type=kind).frames[0])
    with torch.inference_mode():
        whole, _ = painter.paint(alone, painter.fresh())
        streamed = parted(painter, alone)
    return {
        "diffusers": apart(alone, sampler.clean(theirs[0][None]).numpy()),
        "frames": apart(whole, (theirs[1] * 255).round()),
        "in-process": apart(asyncio.run(staged(config)), alone),
        "batched": apart(batched, alone),
        "streamed": math.nan if streamed is None else apart(streamed, whole),
        "resumed": math.nan,
    }


def too_far(differences: dict[str, float]) -> bool:
    """Whether anything differs by 1e-4 or more. Latents that differ by less may round to the next level of a frame, no further."""
    levels = 1 if differences["diffusers"] > 0 else 0
    return any(value >= 1e-4 and not (column == "frames" and value <= levels) for column, value in differences.items())


def main() -> int:
    """Print the table; 1 if a family is too far from the other's."""
    torch.set_num_threads(1)
    began, failed = time.monotonic(), False
    with tempfile.TemporaryDirectory(prefix="headrace-parity-") as folder:
        for row, name in enumerate(sys.argv[1:] or [*sorted(tiny_checkpoints()), *VARIANTS]):
            differences = compare(name, Path(folder) / name)
            if row == 0:
                print(f"{'family':<22}" + "".join(f"{column:>12}" for column in differences))
            told = ("-" if math.isnan(value) else f"{value:.3g}" for value in differences.values())
            print(f"{name:<22}" + "".join(f"{value:>12}" for value in told), flush=True)
            failed = failed or too_far(differences)
    print(f"in {time.monotonic() - began:.0f} s")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
