"""The small checkpoint of AnyFlow-FAR."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import AnyFlowFARPipeline, AnyFlowFARTransformer3DModel, FlowMapEulerDiscreteScheduler

from model_core.families.common.tiny import TEXT_WIDTH, byte_tokenizer, umt5
from model_core.families.wan.tiny import wan_vae


def make(_: str, folder: Path) -> None:
    transformer = AnyFlowFARTransformer3DModel(
        num_attention_heads=2, attention_head_dim=24, in_channels=4, out_channels=4, text_dim=TEXT_WIDTH, freq_dim=32, ffn_dim=64,
        num_layers=2, rope_max_seq_len=64, full_chunk_limit=2, chunk_partition=(1, 3, 3, 2),
    )  # fmt: skip
    schedule = FlowMapEulerDiscreteScheduler(shift=5.0)
    pipeline: Any = AnyFlowFARPipeline(byte_tokenizer(512), umt5(), transformer, wan_vae(), schedule)
    pipeline.save_pretrained(folder, safe_serialization=True)
