"""Trained weights into the form that is shipped. `python -m training.export OUT` prints the digests to pin in `model_core/presets.py`."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch
from safetensors.torch import save

from training.run import load_checkpoint


def export(out: Path, to: Path) -> dict[str, str]:
    """Averaged weights of both checkpoints in `out` as float16 `vae.safetensors` and `dit.safetensors` in `to`; their sha256 by name.

    Raises:
        FileNotFoundError: one of them has not been trained.
    """
    states = {name: load_checkpoint(out, name, torch.device("cpu"))["modules"]["ema"] for name in ("vae", "dit")}
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
    a = parser.parse_args()
    for name, digest in export(a.out, a.to or a.out).items():
        print(f'{name}_sha256="{digest}",')


if __name__ == "__main__":
    main()
