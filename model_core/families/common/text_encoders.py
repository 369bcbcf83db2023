"""The text encoders that video models are trained with, as far as they are known without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_core.families.checkpoints.networks import Network, Shape, words
from model_core.families.checkpoints.settings import COUNT, POSITIVE, TEXT, Settings

_T5: Settings = {
    "vocab_size": (COUNT, 32128), "d_model": (COUNT, 512), "d_kv": (COUNT, 64), "d_ff": (COUNT, 2048), "num_layers": (COUNT, 6),
    "num_heads": (COUNT, 8), "relative_attention_num_buckets": (COUNT, 32), "relative_attention_max_distance": (COUNT, 128),
    "layer_norm_epsilon": (POSITIVE, 1e-6), "feed_forward_proj": (TEXT, "relu"),
}  # fmt: skip


def _shapes(settings: Mapping[str, Any]) -> dict[str, Shape]:
    width, block = settings["d_model"], "encoder.block.0.layer"
    first = "wi_0" if settings["feed_forward_proj"].startswith("gated-") else "wi"
    return {
        "shared.weight": (settings["vocab_size"], width),
        "encoder.embed_tokens.weight": (settings["vocab_size"], width),
        f"{block}.0.SelfAttention.q.weight": (settings["num_heads"] * settings["d_kv"], width),
        f"{block}.0.SelfAttention.relative_attention_bias.weight": (settings["relative_attention_num_buckets"], settings["num_heads"]),
        f"{block}.1.DenseReluDense.{first}.weight": (settings["d_ff"], width),
    }


T5 = Network(
    name="T5EncoderModel", model_type="t5", settings=_T5, open=True, shapes=_shapes,
    parts=words("encoder"), optional=words("shared decoder"), blocks="encoder.block.",
)  # fmt: skip
UMT5 = Network(
    name="UMT5EncoderModel", model_type="umt5", open=True, shapes=_shapes,
    parts=words("encoder"), optional=words("shared"), blocks="encoder.block.",
    settings=_T5 | {
        "vocab_size": (COUNT, 250112), "d_ff": (COUNT, 1024), "num_layers": (COUNT, 8), "num_heads": (COUNT, 6),
        "feed_forward_proj": (TEXT, "gated-gelu"),
    },
)  # fmt: skip
