"""Each clip family against the diffusers pipeline of that family: same weights, seed, noise schedule; equal but for rounding."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch

from model_core.config import EngineConfig
from model_core.engine.session import check
from model_core.errors import InvalidRequest
from model_core.families.registry import family
from model_core.local import LocalPipeline
from model_core.pipeline import Session, SessionRequest
from model_core.session_log import SessionRecord
from model_core.types import Conditioning, Footage, FrameChunk
from tests import checkpoints
from tests.models import Collector, make
from tests.rounding import assert_same_picture

CLIPS = ("wan", "wan-2.2", "wan-2.2-5b", "wan-image", "wan-image-2.2", "ltx", "cogvideox", "cogvideox-2b", "cogvideox-1.5")
PROMPT = "a red circle moves left"
_TERMS = 512  # text tokens that attention sums over; no other sum of the small networks is as long
_SUMS = 3 * 24 + 40  # 3 steps, each of 2 layers of 10 products and 4 more, and a decoder of fewer than 40 convolutions


@pytest.mark.parametrize("name", CLIPS)
def test_a_clip_is_the_one_that_diffusers_makes(name: str) -> None:
    settings, _, _ = checkpoints.parts(name)
    pipeline = getattr(diffusers, settings.checkpoint.index()["_class_name"]).from_pretrained(checkpoints.folder(name))
    pipeline.set_progress_bar_config(disable=True)
    torch.manual_seed(0)  # LTX's decoder draws from the global generator, which ours seeds
    image = {"image": checkpoints.image(name, 7)} if settings.needs_media else {}
    expected = pipeline(
        **image,
        prompt=PROMPT, negative_prompt="", height=settings.height, width=settings.width, num_frames=9, num_inference_steps=3,
        guidance_scale=settings.guidance, generator=torch.Generator().manual_seed(7), max_sequence_length=settings.max_tokens,
        output_type="np",
    ).frames[0]  # fmt: skip
    latents = make(checkpoints.engine(name), checkpoints.context(name, PROMPT, seed=7))
    painter = family(settings.family).parts.painter(settings)
    with torch.inference_mode():
        frames, _ = painter.paint(latents[0], painter.fresh())
    assert len(latents) == 1
    assert frames.shape == (9, settings.height, settings.width, 3)
    assert_same_picture(frames, (expected * 255).round(), terms=_TERMS, sums=_SUMS)
    assert frames.std() > 1  # there is something to see


@pytest.mark.parametrize("name", CLIPS)
def test_a_clip_does_not_notice_the_others_in_its_batch(name: str) -> None:
    """Three clips with other prompts, seeds and step counts, each a step ahead of the next."""
    contexts = [checkpoints.context(name, f"clip {i}" * i, seed=i, steps=2 + i) for i in range(3)]
    collector = Collector(checkpoints.engine(name))
    sessions = []
    for context in contexts:
        sessions.append(collector.open(context))
        collector.step()
    collector.run()
    for session, context in zip(sessions, contexts, strict=True):
        np.testing.assert_array_equal(collector.latents(session), make(checkpoints.engine(name), context))


def test_both_transformers_of_wan_2_2_have_their_steps() -> None:
    collector = Collector(checkpoints.engine("wan-2.2"))
    session = collector.open(checkpoints.context("wan-2.2", PROMPT, seed=7))
    _, _, sampler = checkpoints.parts("wan-2.2")
    groups = []
    while not session.finished:
        groups.append(sampler.group(session.leg))
        collector.step()
    assert groups == [0, 1, 1]


def test_wan_is_decoded_chunk_by_chunk_as_the_clip_at_once() -> None:
    settings, _, _ = checkpoints.parts("wan")
    painter = family("wan").parts.painter(settings)
    latents = np.random.default_rng(3).standard_normal((settings.channels, 7, 4, 6), np.float32)
    with torch.inference_mode():
        whole, _ = painter.paint(latents, painter.fresh())
        memory, streamed = painter.fresh(), []
        for part in np.split(latents, (1, 3, 4), axis=1):
            frames, memory = painter.paint(part, memory)
            streamed.append(frames)
    assert [len(frames) for frames in streamed] == [1, 8, 4, 12]
    np.testing.assert_array_equal(np.concatenate(streamed), whole)


async def test_a_clip_with_an_image_is_the_same_wherever_it_goes_on() -> None:
    """Its record is enough: the other pipeline's text stage never sees the image."""
    settings = checkpoints.config("wan-image")
    footage = Footage(np.asarray(checkpoints.image("wan-image", 7))[None])
    request = SessionRequest("s1", PROMPT, seed=7, num_steps=2, num_frames=9, footage=footage)
    here, there = (LocalPipeline(settings, EngineConfig(batch_buckets=(1,))) for _ in range(2))
    try:
        session = await here.pipeline.open(request)
        record = SessionRecord.from_bytes(session.record().to_bytes())
        frames = await played(session)
        again = await played(await there.pipeline.restore(record, 0))
        assert frames == again
        assert len(frames) == 9
        assert (here.encoder.statistics().footage_misses, there.encoder.statistics().footage_misses) == (1, 0)
        other = await played(await there.pipeline.open(replace(request, footage=Footage(255 - footage.frames))))
        assert frames != other
    finally:
        for pipeline in (here, there):
            await pipeline.aclose()


async def played(session: Session) -> list[bytes]:
    async with aclosing(session.events()) as events:
        return [frame async for event in events if isinstance(event, FrameChunk) for frame in event.data]


def test_a_clip_that_needs_an_image_is_refused_without_one_or_with_another_shape() -> None:
    settings, _, sampler = checkpoints.parts("wan-image")
    context = checkpoints.context("wan-image", PROMPT, seed=7)
    check(settings, sampler, context)
    assert context.given is not None
    for given in (None, Conditioning(guides={}), Conditioning(guides={**context.given.guides, "features": np.zeros((4, 32), np.float32)})):
        with pytest.raises(InvalidRequest, match=r"given.guides: must be {'condition': \(8, 3, 4, 6\), 'features': \(5, 32\)}; got"):
            check(settings, sampler, replace(context, given=given))


@pytest.mark.parametrize("name", ["ltx", "cogvideox"])
def test_a_clip_whose_frames_are_no_numbers_is_not_shown(name: str) -> None:
    """An autoencoder in 16 bits may overflow on latents that are all finite; as bytes, its frames would be black."""
    settings, _, _ = checkpoints.parts(name)
    painter = family(settings.family).parts.painter(settings)
    latents = np.full(settings.latent_shape(0), 3e38, np.float32)
    with torch.inference_mode(), pytest.raises(FloatingPointError, match="the frames of the clip are not finite"):
        painter.paint(latents, painter.fresh())
