"""A prompt of more tokens than the model reads is refused, and says so: the rest of it would change nothing."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from headrace.client import BadRequest, HeadraceClient
from headrace.v1 import video_pb2 as pb
from model_core.config import ModelConfig
from model_core.errors import InvalidRequest
from model_core.families.millrace.sentence import SentenceEmbedder
from model_core.presets import millrace_64
from model_core.request import within_tokens
from model_core.stages.text_encoder import LocalTextEncoder
from tests import checkpoints
from tests.fakes import FakeStages
from tests.served import serving

LONG = "word " * 33  # the fake encoder's tokens are words; millrace-64 reads 32
SAID = "must be at most 32 tokens, with those that model millrace-64 adds; got 33"


async def ask(client: HeadraceClient, method: str) -> None:
    match method:
        case "generate":
            await client.generate(LONG, seconds=0.1)
        case "stream":
            async for _ in client.stream(LONG, seconds=0.1):
                pass
        case _:
            async with client.live(LONG, seconds=0.1) as session:
                async for _ in session:
                    pass


@pytest.mark.parametrize(("method", "field"), [("generate", "spec.prompt"), ("stream", "spec.prompt"), ("live", "start.spec.prompt")])
async def test_a_call_with_too_many_tokens_is_refused_by_field_limit_and_count(method: str, field: str) -> None:
    async with serving() as served:
        with pytest.raises(BadRequest) as refused:
            await ask(served.client, method)
        assert [(v.field, v.description) for v in refused.value.violations] == [(field, SAID)]
        (model,) = await served.client.list_models()
        assert model.max_prompt_tokens == 32
        await served.still_serves()
        await served.nothing_left()
        assert len(served.stages.denoiser.contexts) == 1  # of `still_serves`


async def test_a_live_plays_on_with_its_prompt_when_the_next_one_is_too_long() -> None:
    async with serving() as served, served.client.live("a dog", seconds=2.0) as session:
        refused: list[pb.PromptRefused] = []
        frames = 0
        async for event in session:
            match event:
                case pb.Frames():
                    frames += event.frame_count
                    if event.chunk_index == 0:
                        await session.set_prompt(LONG)
                case pb.PromptRefused():
                    refused.append(event)
        assert frames == 48
        assert [(v.field, v.description) for answer in refused for v in answer.violations] == [("prompt.prompt", SAID)]


async def test_a_session_in_this_process_is_refused_as_well() -> None:
    stages = FakeStages()
    from model_core.pipeline import SessionRequest

    with pytest.raises(InvalidRequest, match=f"prompt: {SAID}"):
        await stages.pipeline.open(SessionRequest("s", LONG, 7, 4, 8))
    session = await stages.pipeline.open(SessionRequest("s", "a dog", 7, 4, 8))
    async with aclosing(session.events()):
        with pytest.raises(InvalidRequest, match=f"prompt: {SAID}"):
            await session.set_prompt(LONG)


async def test_the_embedded_model_counts_as_it_reads() -> None:
    """Two scenes that only differ beyond the limit have one embedding, which is why they are refused; up to it, nothing is cut."""
    config = millrace_64()
    encoder = LocalTextEncoder(SentenceEmbedder(config.text))
    try:
        just = await encoder.encode("a " * 30)
        assert (just.count, int(just.mask.sum())) == (32, 32)
        within_tokens(just, config, "prompt")
        longer = [await encoder.encode("a red circle moves left and " * 8 + end) for end in ("a red dog", "a blue cat, then nothing")]
        assert (longer[0].tokens == longer[1].tokens).all()
        assert [embedding.count for embedding in longer] == [8 * 6 + 3 + 2, 8 * 6 + 6 + 2]
        for embedding in longer:
            with pytest.raises(InvalidRequest, match="prompt: must be at most 32 tokens"):
                within_tokens(embedding, config, "prompt")
    finally:
        await encoder.aclose()


@pytest.mark.parametrize(("name", "limit"), [("wan", 512), ("ltx", 128), ("cogvideox", 226)])
async def test_checkpoints_count_as_their_pipelines_read(name: str, limit: int) -> None:
    """The small checkpoints' tokens are bytes, and a mark at the end."""
    config: ModelConfig = checkpoints.config(name)
    assert config.max_prompt_tokens == limit
    _, embedder, _ = checkpoints.parts(name)
    assert [embedder.count(text) for text in ("", "a dog", "x" * (limit - 1), "x" * limit)] == [1, 6, limit, limit + 1]
    cut = [embedder.embed(["x" * limit + end])[0] for end in ("a", "b")]
    whole = [embedder.embed(["x" * (limit - 2) + end])[0] for end in ("a", "b")]
    assert (cut[0] == cut[1]).all()
    assert not (whole[0] == whole[1]).all()
    if name == "wan":
        assert embedder.count("  a   dog ") == 6  # cleaned as the pipeline cleans it
