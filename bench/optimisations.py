"""What each way to run the embedded model costs and gains here: `python -m bench.optimisations --json FILE`.

One row a way: milliseconds of a denoise step in the smallest and the largest bucket and of decoding a chunk (the best of several, one
thread), bytes of the weights, and how far the frames of one session are from those of the reference, float32 and eager. What clips gain by
skipping steps is measured by `bench.skipping`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from model_core.config import EngineConfig, Execution, MillraceConfig, RuntimeConfig
from model_core.families.millrace import MillracePainter, MillraceSampler
from model_core.presets import millrace_64
from model_core.types import SessionContext
from model_core.weights import load_dit, load_vae

WAYS = {
    "float32": RuntimeConfig(),
    "8-bit weights": RuntimeConfig(weights="int8"),
    "bfloat16": RuntimeConfig(dtype="bfloat16"),
    "compiled": RuntimeConfig(compiled=True),
}
CHUNKS = 4


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
    sampler, painter = MillraceSampler(dit, config, buckets), MillracePainter(vae, config)
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
        config = replace(millrace_64(), execution=Execution(denoiser=runtime, decoder=runtime))
        figures, frames = measure(config, tuple(a.buckets), a.repeats)
        reference = frames if reference is None else reference
        rows.append({"way": name, **figures, "psnr_db": psnr(frames, reference), "equal": bool(np.array_equal(frames, reference))})
        print(rows[-1], flush=True)
    if a.json:
        a.json.write_text(json.dumps({"torch": torch.__version__, "threads": 1, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
