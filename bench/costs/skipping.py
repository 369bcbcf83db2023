"""What skipping forwards saves and costs: `python -m bench.costs.skipping [--json FILE]`, for each clip family and a few thresholds.

Forwards of a clip of 50 steps, its seconds in the engine (the best of several, one thread), how far its frames are from those without
skipping, and whether they are the same beside another clip. The weights are small and random: forwards and seconds are what the rule
does with such networks, and the distance says nothing of the quality that trained ones keep.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.costs.optimisations import psnr
from bench.models.parity import together
from model_core.config import EngineConfig
from model_core.engine.engine import Engine
from model_core.families.checkpoints.checkpoint import Checkpoint
from model_core.families.common.clip import ClipLeg, ClipSampler
from model_core.families.common.config import CheckpointConfig
from model_core.families.described import Choice, describe
from model_core.families.registry import family
from model_core.families.tiny import make_tiny
from model_core.types import Guidance, SessionContext, TextEmbedding

FAMILIES, THRESHOLDS, STEPS = ("wan", "ltx", "cogvideox"), (0.0, 0.1, 0.2, 0.4), 50
ENGINE = EngineConfig(batch_buckets=(1, 2))


def measure(config: CheckpointConfig, contexts: Sequence[SessionContext], repeats: int) -> tuple[dict[str, object], NDArray[np.uint8]]:
    """A row of the table, and the first context's clip alone, as frames."""
    parts = family(config.family).parts
    sampler, painter = cast("ClipSampler", parts.sampler(config, ENGINE)), parts.painter(config)
    engine, rows, predict = Engine(sampler, config, ENGINE), [0], sampler.predict

    def counting(legs: Sequence[ClipLeg], x_t: Tensor, t: Tensor) -> Tensor:
        rows[0] += 1
        return predict(legs, x_t, t)

    sampler.predict = counting  # type: ignore[method-assign]
    seconds = []
    for _ in range(repeats):
        rows[0], started = 0, time.perf_counter()
        (alone,) = together(engine, [contexts[0]])
        seconds.append(time.perf_counter() - started)
    forwards = rows[0]
    beside = together(engine, list(contexts))[0]
    with torch.inference_mode():
        frames, _ = painter.paint(alone, painter.fresh())
    row: dict[str, object] = {
        "forwards": forwards,
        "seconds": round(min(seconds), 3),
        "same_beside_another": bool(np.array_equal(alone, beside)),
    }
    return row, frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--thresholds", type=float, nargs="+", default=list(THRESHOLDS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    torch.set_num_threads(1)
    table = []
    for name in FAMILIES:
        with tempfile.TemporaryDirectory(prefix="headrace-skipping-") as folder:
            make_tiny(name, Path(folder) / name)
            config = describe(
                Choice(checkpoint=Checkpoint(folder=f"{folder}/{name}"), height=64, width=96, frames=9, steps=STEPS),
            )
            embedder = family(config.family).parts.embedder(config)
            tokens, mask = embedder.embed(["a red circle", "a dog", config.negative_prompt])
            *prompts, away = (TextEmbedding(f"{i}", tokens[i], mask[i]) for i in range(3))
            led = Guidance(config.guidance, away)
            contexts = [
                SessionContext(f"{i}", 7 + i, STEPS - 3 * i, prompt, num_frames=9, guidance=led) for i, prompt in enumerate(prompts)
            ]
            plain = None
            for threshold in dict.fromkeys([0.0, *a.thresholds]):
                row, frames = measure(replace(config, skip_threshold=threshold), contexts, a.repeats)
                plain = frames if plain is None else plain
                table.append({"family": name, "threshold": threshold, **row, "psnr_db": psnr(frames, plain)})
                print(table[-1], flush=True)
    if a.json:
        a.json.write_text(json.dumps({"torch": torch.__version__, "threads": 1, "steps": STEPS, "rows": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
