"""What each way to run the embedded model costs and gains here: `python -m bench.costs.optimisations --json FILE`.

One row a way: milliseconds of a denoise step in the smallest and the largest bucket and of decoding a chunk (the best of several, one
thread a process), bytes of the weights, and how far the frames of one session are from those of the reference, float32 and eager.
Then one row a cache: milliseconds of what asks for it, with the cache and without, in the smallest bucket; what both give is the same.
What clips gain by skipping steps is measured by `bench.costs.skipping`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils import _pytree as pytree

from model_core.config import EngineConfig, Execution, MillraceConfig, RuntimeConfig
from model_core.families.interface import Sampler
from model_core.families.millrace.parts import MillracePainter, MillraceSampler
from model_core.families.millrace.sentence import SentenceEmbedder
from model_core.families.parallel import ParallelSampler
from model_core.presets import millrace_64
from model_core.stages.text_encoder import LocalTextEncoder
from model_core.types import SessionContext
from model_core.weights import load_dit, load_vae

WAYS = {
    "float32": RuntimeConfig(),
    "8-bit weights": RuntimeConfig(weights="int8"),
    "fp8 weights": RuntimeConfig(weights="fp8"),
    "bfloat16": RuntimeConfig(dtype="bfloat16"),
    "channels last": RuntimeConfig(channels_last=True),
    "compiled": RuntimeConfig(compiled=True),
    "2 ranks": RuntimeConfig(ranks=2),
}
CHUNKS = 4
PROMPT = "a large red circle moves left over a blue background"


def best_ms(work: Callable[[], object], repeats: int) -> float:
    """The least of `repeats` runs, after one that does not count."""
    work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return round(1000 * min(times), 2)


def weight_bytes(network: nn.Module) -> int:
    """As they are stored: a quantised weight is a tensor around others."""
    total = 0
    for tensor in (*network.parameters(), *network.buffers()):
        names = tensor.__tensor_flatten__()[0] if hasattr(tensor, "__tensor_flatten__") else []
        total += sum(getattr(tensor, name).nbytes for name in names) if names else tensor.nbytes
    return total


@torch.inference_mode()
def measure(config: MillraceConfig, buckets: tuple[int, ...], repeats: int) -> tuple[dict[str, float], NDArray[np.uint8]]:
    """Figures of one way, and its frames."""
    dit, vae = load_dit(config), load_vae(config)
    ranks = config.execution.denoiser.ranks
    sampler: Sampler = MillraceSampler(dit, config, buckets) if ranks == 1 else ParallelSampler(config, EngineConfig(batch_buckets=buckets))
    painter = MillracePainter(vae, config)
    leg = sampler.open(SessionContext("bench", seed=7, num_steps=config.num_steps, embedding=sampler.blank()))
    memory, frames = painter.fresh(), []
    for chunk in range(CHUNKS):
        sampler.start(leg, chunk)
        for _ in range(config.num_steps):
            sampler.step([leg])
        pixels, memory = painter.paint(sampler.latents(leg), memory)
        frames.append(pixels)
        sampler.commit([leg])

    def step(rows: int) -> None:
        sampler.start(leg, CHUNKS)
        sampler.step([leg] * rows)

    row = {f"step_ms_{rows}": best_ms(lambda rows=rows: step(rows), repeats) for rows in (buckets[0], buckets[-1])}  # type: ignore[misc]
    row["decode_ms"] = best_ms(lambda: painter.paint(sampler.latents(leg), memory), repeats)
    row["weight_bytes"] = weight_bytes(dit) + weight_bytes(vae)
    return row, np.concatenate(frames)


@torch.inference_mode()
def caches(config: MillraceConfig, repeats: int) -> list[dict[str, Any]]:
    """What is kept, and what it would cost to make it anew each time that it is read."""
    sampler, embedder = MillraceSampler(load_dit(config), config, (1,)), LocalTextEncoder(SentenceEmbedder(config.text))
    with asyncio.Runner() as loop:
        embedding = loop.run(embedder.encode(PROMPT))
        hit = best_ms(lambda: loop.run(embedder.encode(PROMPT)), repeats)
        miss = best_ms(lambda: embedder._embed_one(PROMPT, 0.0), repeats)  # noqa: SLF001  past the cache
        again = embedder._embed_one(PROMPT, 0.0)  # noqa: SLF001
        loop.run(embedder.aclose())
    context = SessionContext("bench", seed=7, num_steps=config.num_steps, embedding=embedding)
    leg = sampler.open(context)
    suffix = []
    for chunk in range(config.dit.window):
        sampler.start(leg, chunk)
        sampler.commit([leg])
        suffix.append(sampler.latents(leg))
    moved = replace(context, next_chunk=len(suffix), suffix=tuple(suffix))
    sampler.start(leg, config.dit.window)

    def first_step() -> None:
        leg.step = 0
        sampler.step([leg])

    step = best_ms(first_step, repeats)
    text = best_ms(lambda: sampler.open(context), repeats)
    past = best_ms(lambda: sampler.open(moved), repeats) - text
    other = sampler.open(moved)
    same_text, same_past = (
        all(torch.equal(a, b) for a, b in zip(pytree.tree_leaves(ours), pytree.tree_leaves(theirs), strict=True))
        for ours, theirs in ((leg.text, other.text), (list(leg.window), list(other.window)))
    )
    return [
        {
            "cache": "prompt embeddings",
            "for": "prompt",
            "ms": hit,
            "ms_without": miss,
            "equal": bool((again.tokens == embedding.tokens).all()),
        },
        {"cache": "text keys and values", "for": "step", "ms": step, "ms_without": round(step + text, 2), "equal": same_text},
        {"cache": "keys and values of the window", "for": "step", "ms": step, "ms_without": round(step + past, 2), "equal": same_past},
    ]


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float | None:
    """In dB; None for equal frames."""
    error = float(np.mean((a.astype(np.float64) - b) ** 2))
    return round(10 * float(np.log10(255**2 / error)), 1) if error else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--buckets", type=int, nargs="+", default=list(EngineConfig().batch_buckets))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    torch.set_num_threads(1)
    reference: NDArray[np.uint8] | None = None
    rows = []
    for name in dict.fromkeys(["float32", *a.ways]):
        runtime = WAYS[name]
        config = replace(millrace_64(), execution=Execution(denoiser=runtime, decoder=replace(runtime, ranks=1)))
        figures, frames = measure(config, tuple(a.buckets), a.repeats)
        reference = frames if reference is None else reference
        rows.append({"way": name, **figures, "psnr_db": psnr(frames, reference), "equal": bool(np.array_equal(frames, reference))})
        print(rows[-1], flush=True)
    kept = caches(millrace_64(), a.repeats)
    for row in kept:
        print(row, flush=True)
    if a.json:
        a.json.write_text(json.dumps({"torch": torch.__version__, "threads": 1, "rows": rows, "caches": kept}, indent=1) + "\n")


if __name__ == "__main__":
    main()
