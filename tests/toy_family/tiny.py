"""The toy's small checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors.torch import save_file

from model_core.families.common.tiny import TEXT_WIDTH, byte_tokenizer, umt5
from model_core.families.wan.tiny import wan_vae
from tests.toy_family.parts import ToyNetwork


def make(_: str, folder: Path) -> None:
    network = ToyNetwork(4, TEXT_WIDTH)
    byte_tokenizer(16).save_pretrained(folder / "tokenizer")
    umt5().save_pretrained(folder / "text_encoder")
    wan_vae().save_pretrained(folder / "vae")
    schedule: Any = FlowMatchEulerDiscreteScheduler(shift=3.0)
    schedule.save_pretrained(folder / "scheduler")
    (folder / "transformer").mkdir()
    settings = {"_class_name": "ToyTransformer", "in_channels": 4, "out_channels": 4, "text_dim": TEXT_WIDTH}
    (folder / "transformer/config.json").write_text(json.dumps(settings))
    save_file(network.state_dict(), folder / "transformer/diffusion_pytorch_model.safetensors")
    index = {
        "_class_name": "ToyPipeline", "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"], "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "transformer": ["toy", "ToyTransformer"], "vae": ["diffusers", "AutoencoderKLWan"],
    }  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps(index))
