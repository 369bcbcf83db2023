"""Families that come as checkpoints, through runtimes: graphs that compile whole, programs of fixed shapes, weights in bfloat16."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from model_core.config import EngineConfig, Execution, RuntimeConfig
from model_core.engine.engine import Engine
from model_core.errors import ShapeNotServed
from model_core.families.registry import family, tiny_checkpoints
from model_core.graphs import DECODER, DENOISER, TEXT_ENCODER
from model_core.local import LocalPipeline
from model_core.pipeline import SessionRequest
from model_core.types import Footage, FrameChunk
from tests import checkpoints
from tests.models import make
from tests.rounding import assert_rounds_alike, assert_same_picture

PROMPT = "a red circle moves left"
STAGES = (TEXT_ENCODER, DENOISER, DECODER)
_TERMS = 512  # text tokens that attention sums over; no other sum of the small networks is as long


def test_every_graph_of_wan_is_listed_and_those_that_run_most_compile_whole_and_compute_the_same() -> None:
    """Traced as for any compiler, and run by PyTorch's own operators."""
    graphs = family("wan").parts.graphs(checkpoints.config("wan"), EngineConfig(batch_buckets=(2,)))
    assert [(g.stage, g.name) for g in graphs] == [
        (DENOISER, "denoise"), (TEXT_ENCODER, "features"), (DECODER, "decode_first"), (DECODER, "decode_second"), (DECODER, "decode"),
    ]  # fmt: skip
    for graph in (graphs[0], graphs[-1]):  # the others take long, and `headrace compile` has them
        torch.compiler.reset()
        module, inputs = graph.module(), graph.inputs(torch.float32)
        compiled = torch.compile(module, fullgraph=True, dynamic=False, backend="eager")
        with torch.inference_mode():
            for got, expected in zip(*(pytree.tree_leaves(call(*inputs)) for call in (compiled, module)), strict=True):
                if expected.dtype is torch.uint8:
                    assert_same_picture(got, expected, terms=_TERMS, sums=40)
                else:
                    assert_rounds_alike(got, expected, terms=_TERMS, sums=40)
    torch.compiler.reset()


@torch.inference_mode()
def test_wan_in_bfloat16_runs_in_programs_of_fixed_shapes_and_is_close() -> None:
    exact = checkpoints.config("wan")
    runtime = RuntimeConfig(dtype="bfloat16")
    execution = Execution(text_encoder=runtime, denoiser=runtime, decoder=runtime)
    config = replace(exact, checkpoint=replace(exact.checkpoint, dtype="bfloat16"), execution=execution)
    parts, buckets = family("wan").parts, EngineConfig(batch_buckets=(1, 2))
    embedder = parts.embedder(config)
    sampler = parts.sampler(config, buckets)
    expected = checkpoints.context("wan", PROMPT, seed=7)
    led = checkpoints.guidance(embedder, config.guidance)
    context = replace(expected, embedding=checkpoints.embedded(embedder, PROMPT), guidance=led)
    (a,), (b,) = make(checkpoints.engine("wan"), expected), make(Engine(sampler, config, buckets), context)
    assert b.dtype == np.float32
    assert 0.99 < float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())) < 1
    painter = parts.painter(config)
    frames, memory = painter.paint(b[:, :2], painter.fresh())
    more, _ = painter.paint(b[:, 2:], memory)
    assert [len(frames), len(more)] == [5, 4]
    with pytest.raises(ShapeNotServed, match=r"'denoise' is compiled for shapes"):
        cast("Any", sampler)._program.run("denoise", *(torch.zeros(3, *size) for size in ((4, 3, 4, 6), (), (512, 32))))  # noqa: SLF001


@pytest.mark.parametrize("name", sorted(tiny_checkpoints()))
async def test_every_family_is_served_whole_in_programs_of_fixed_shapes(name: str) -> None:
    """From the warm-up to the last chunk, which may be shorter than the others: no shape comes that was not listed."""
    runtime, small = RuntimeConfig(dtype="bfloat16"), checkpoints.config(name)
    config = replace(small, checkpoint=replace(small.checkpoint, dtype="bfloat16"), execution=Execution(**dict.fromkeys(STAGES, runtime)))
    pipeline = LocalPipeline(config, EngineConfig(batch_buckets=(1,)))
    footage = Footage(np.asarray(checkpoints.image(name, 7))[None]) if config.needs_media else None
    frames = config.grid.max_frames or config.grid.first_frame(4)
    try:
        session = await pipeline.pipeline.open(SessionRequest("s", PROMPT, 7, num_steps=2, num_frames=frames, footage=footage))
        async with aclosing(session.events()) as events:
            assert sum([event.num_frames async for event in events if isinstance(event, FrameChunk)]) == frames
    finally:
        await pipeline.aclose()
