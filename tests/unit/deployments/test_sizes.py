"""Messages between stages are known to fit before anything starts."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from deployments.cluster.local import FUSED_CONFIG, STAGED_CONFIG
from deployments.config.application import AppConfig
from deployments.config.sizes import largest_messages, record_bytes
from model_core.config import ModelConfig
from model_core.pipeline import SessionRequest
from model_core.presets import millrace_64
from model_core.types import Codec, FrameChunk, Guidance, SessionContext, TextEmbedding
from tests import checkpoints
from tests.fakes import FakeStages

MODELS = ["causal-wan", "wan", "ltx", "cogvideox-1.5", "anyflow-far"]


def model(name: str) -> ModelConfig:
    return checkpoints.config(name) if name else millrace_64()


@pytest.mark.parametrize("name", ["", *MODELS])
def test_no_raw_chunk_is_larger_than_what_is_counted_on(name: str) -> None:
    config = model(name)
    counted = largest_messages(config)[0].size_bytes
    last = (config.grid.chunks or 3) - 1
    for index in {0, min(1, last), last}:
        frame = bytes(config.height * config.width * 3)
        chunk = FrameChunk(
            index=index, first_frame=0, num_frames=config.grid.frames(index), height=config.height, width=config.width, codec=Codec.RAW_RGB,
            data=tuple(bytes(bytearray(frame)) for _ in range(config.grid.frames(index))),
            latents=np.zeros(config.latent_shape(index), np.float32),
        )  # fmt: skip
        assert len(pickle.dumps(chunk)) <= counted


async def test_no_context_and_no_record_is_larger_than_what_is_counted_on() -> None:
    config = millrace_64()
    stages = FakeStages(keep_chunks=4)
    session = await stages.pipeline.open(SessionRequest("s", "red" * 1300, 1, 4, None))
    events = session.events()
    for _ in range(config.context_chunks + 8):
        await anext(events)
        assert len(pickle.dumps(session.context())) <= largest_messages(config)[1].size_bytes
        assert len(session.record().to_bytes()) <= record_bytes(config, 4)
    await events.aclose()


@pytest.mark.parametrize("name", ["wan", "causal-wan"])
def test_the_features_of_every_text_are_counted_at_the_width_of_the_widest_encoder(name: str) -> None:
    config = model(name)
    tokens = config.max_prompt_tokens
    text = TextEmbedding("a dog", np.zeros((1, tokens, 4096), np.float32), np.ones((1, tokens), np.bool_))
    away = replace(text, tokens=text.tokens.copy(), mask=text.mask.copy())
    guidance = Guidance(config.guidance, away) if config.guidance > 1 else Guidance()
    suffix = tuple(np.zeros(config.latent_shape(chunk), np.float32) for chunk in range(config.context_chunks))
    context = SessionContext("s", 1, 4, text, next_chunk=len(suffix), suffix=suffix, guidance=guidance)
    assert len(pickle.dumps(context)) <= largest_messages(config)[1].size_bytes


def test_a_clip_that_no_message_holds_is_refused_with_its_size() -> None:
    """As LTX makes it: 121 frames of 1216x704 are 310 MB."""
    folder = str(checkpoints.folder("ltx"))
    clip = {"folder": folder, "height": 704, "width": 1216, "frames": 121}
    with pytest.raises(ValidationError) as refused:
        AppConfig.model_validate({"model": clip})
    told = str(refused.value)
    assert "stage_message_bytes must be at least 31" in told
    assert "a chunk of 121 raw frames of 1216x704 with its latents; got 268435456" in told
    AppConfig.model_validate({"model": clip, "stage_message_bytes": 400_000_000})
    AppConfig.model_validate({"model": clip | {"frames": 97}})


def test_a_store_that_holds_no_record_is_refused() -> None:
    size = record_bytes(millrace_64(), AppConfig().session_store.keep_chunks(millrace_64()))
    AppConfig.model_validate({"session_store": {"memory_bytes": size}})
    told = f"session_store.memory_bytes must hold a session's record, {size} bytes for millrace-64; got {size - 1}"
    with pytest.raises(ValidationError, match=told):
        AppConfig.model_validate({"session_store": {"memory_bytes": size - 1}})


@pytest.mark.parametrize("path", [STAGED_CONFIG, FUSED_CONFIG], ids=lambda path: path.stem)
def test_the_shipped_files_set_the_transport_to_what_is_counted_on(path: Path) -> None:
    (app,) = yaml.safe_load(path.read_text())["applications"]
    told = int(app["runtime_env"]["env_vars"]["RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH"])
    assert told == AppConfig.model_validate(app.get("args") or {}).stage_message_bytes


def test_the_longest_chunk_counts() -> None:
    config = millrace_64()
    larger = replace(config, dit=replace(config.dit, latent_frames=4))
    assert largest_messages(larger)[0].size_bytes > largest_messages(config)[0].size_bytes
