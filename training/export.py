"""Trained weights into the form that is shipped. `python -m training.export OUT` prints the digests to pin in `model_core/presets.py`."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save

from training.run import load_checkpoint

RUNS = {"vae": "vae", "dit": "dit"}
WORLD_RUNS = {"dit": "world"}  # a world shares the autoencoder


def export(out: Path, to: Path, runs: Mapping[str, str] = RUNS) -> dict[str, str]:
    """Averaged weights of checkpoints in `out` as float16 safetensors in `to`; their sha256 by name.

    Args:
        runs: the name of the run that each file comes from.

    Raises:
        FileNotFoundError: one of them has not been trained.
    """
    states = {name: load_checkpoint(out, run, torch.device("cpu"))["modules"]["ema"] for name, run in runs.items()}
    to.mkdir(parents=True, exist_ok=True)
    digests = {}
    for name, state in states.items():
        data = save({key: value.to(torch.float16).contiguous() for key, value in state.items()}, metadata={"format": "pt"})
        (to / f"{name}.safetensors").write_bytes(data)
        digests[name] = hashlib.sha256(data).hexdigest()
    return digests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder that train_vae and train_dit wrote to")
    parser.add_argument("--to", type=Path, default=None, help="folder for the safetensors; OUT if not given")
    parser.add_argument("--world", action="store_true", help="what train_world wrote, and nothing else")
    a = parser.parse_args()
    for name, digest in export(a.out, a.to or a.out, WORLD_RUNS if a.world else RUNS).items():
        print(f'{name}_sha256="{digest}",')


if __name__ == "__main__":
    main()
