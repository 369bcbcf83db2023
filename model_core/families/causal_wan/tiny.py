"""The small checkpoint of causal Wan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from model_core.families.checkpoints.checkpoint import read_json
from model_core.families.wan.names import to_wan
from model_core.families.wan.tiny import wan
from model_core.nn.taehv import TaehvDecoder


def make(_: str, folder: Path) -> None:
    """A Wan folder as published: the transformer by its authors' names, their settings in the index, and a TAEHV beside the autoencoder."""
    wan().save_pretrained(folder, safe_serialization=True)
    weights = folder / "transformer/diffusion_pytorch_model.safetensors"
    save_file({f"generator_ema.model.{to_wan(name)}": tensor for name, tensor in load_file(weights).items()}, weights)
    settings = {"_class_name": "CausalWanPipeline", "num_frame_per_block": 3, "local_attn_size": 12, "sink_size": 3, "timestep_shift": 5.0}
    (folder / "model_index.json").write_text(json.dumps(read_json(folder / "model_index.json") | settings, indent=2) + "\n")
    _add_taehv(folder)


def _add_taehv(folder: Path) -> None:
    (folder / "taehv").mkdir()
    decoder: Any = TaehvDecoder(channels=4, widths=(16, 12, 8, 8))
    save_file(decoder.state_dict(), folder / "taehv/taehv.safetensors")
