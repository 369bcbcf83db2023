"""A session that is given an image or a video: its log begins with it, or looks at it throughout, wherever the session goes on."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import grpc.aio
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from headrace.client import BadRequest
from headrace.v1 import video_pb2 as pb
from model_core.config import EngineConfig, ModelConfig
from model_core.errors import InvalidRequest, StageUnavailable
from model_core.families.millrace.parts import MillraceConditioner, MillracePainter, MillraceSampler
from model_core.families.millrace.sentence import SentenceEmbedder
from model_core.pipeline import Session, SessionRequest, VideoPipeline
from model_core.presets import millrace_64
from model_core.quality.words import BACKGROUNDS, COLOURS
from model_core.session_log import SessionRecord
from model_core.stages.denoiser import LocalDenoiser
from model_core.stages.text_encoder import FOOTAGE_CACHE_SIZE, LocalTextEncoder
from model_core.types import Conditioning, Footage, FrameChunk, Latents, SessionContext
from model_core.uploads.upload import Upload
from model_core.weights import load_vae
from tests.fakes import FakeDenoiser, FakeEncoder, FakeStages, eventually
from tests.models import make, new_engine, random_context, random_dit, small_config
from tests.pictures import bomb, encoded, moving, picture, video
from tests.served import Served, live_call, raw_call, read_all, serving, stream_call
from tests.stores import FakeStore
from tests.unit.doors.test_grpc_bad_input import fields_of, wrapped

SMALL = small_config()
CHUNKS = 5  # more than the window
REAL = millrace_64()
TAKES = replace(REAL, media_frames=48)
NEEDS = replace(REAL, media=("image",), needs_media=True)
NONE = replace(REAL, media=())
PNG = encoded(picture())


@pytest.fixture(scope="module")
def denoiser() -> Iterator[LocalDenoiser]:
    torch.set_num_threads(1)
    made = LocalDenoiser(MillraceSampler(random_dit(), SMALL, (1,)), SMALL, EngineConfig(batch_buckets=(1,)))
    yield made
    asyncio.run(made.aclose())


@pytest.fixture(scope="module", name="whole")
def made_whole() -> list[Latents]:
    """A session's chunks, undisturbed."""
    return make(new_engine(random_dit(), SMALL), random_context("a session", SMALL, CHUNKS))


def given(chunks: Sequence[Latents]) -> Conditioning:
    return Conditioning(head=np.concatenate(chunks, axis=1))


async def streamed(denoiser: LocalDenoiser, context: SessionContext) -> list[Latents]:
    async with asyncio.timeout(20), aclosing(denoiser.stream(context)) as stream:
        return [chunk.latents async for chunk in stream]


@pytest.mark.parametrize("count", [1, 2, 4])
async def test_what_is_given_is_the_beginning_of_the_log(denoiser: LocalDenoiser, whole: list[Latents], count: int) -> None:
    """A session that is given the first chunks of another one makes the rest of it, and those cost no forward."""
    context = replace(random_context("a session", SMALL, CHUNKS), given=given(whole[:count]))
    before = denoiser.statistics().chunks
    np.testing.assert_array_equal(await streamed(denoiser, context), whole)
    assert denoiser.statistics().chunks - before == CHUNKS - count


async def test_a_leg_may_begin_within_what_is_given_and_end_there(denoiser: LocalDenoiser, whole: list[Latents]) -> None:
    context = replace(random_context("a session", SMALL, CHUNKS), given=given(whole[:4]), next_chunk=2, suffix=tuple(whole[:2]))
    np.testing.assert_array_equal(await streamed(denoiser, context), whole[2:])
    short = replace(random_context("a session", SMALL, 2), given=given(whole[:4]))
    np.testing.assert_array_equal(await streamed(denoiser, short), whole[:2])
    await eventually(lambda: denoiser.statistics().sessions == 0)


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        (np.zeros((4, 3, 8, 8), np.float32), r"context.given.head: must be latents of whole chunks, \(4, 2, 8, 8\); got \(4, 3, 8, 8\)"),
        (np.zeros((4, 1, 8, 8), np.float32), r"must be latents of whole chunks, \(4, 2, 8, 8\)"),
        (np.zeros((4, 2, 8, 9), np.float32), r"must be latents of whole chunks, \(4, 2, 8, 8\)"),
        (np.full((4, 2, 8, 8), np.nan, np.float32), "context.given: must be finite; got NaN or infinity"),
    ],
)
async def test_what_does_not_fit_the_model_is_refused(denoiser: LocalDenoiser, head: Latents, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        await streamed(denoiser, replace(random_context("a session", SMALL), given=Conditioning(head=head)))
    denoiser.check_health()


# -- with the model that is shipped --------------------------------------------------------------------------------------------------


class Looking:
    """A `Conditioner` that counts."""

    def __init__(self) -> None:
        self.calls = 0

    def condition(self, frames: NDArray[np.uint8]) -> Conditioning:
        self.calls += 1
        return Conditioning(guides={"mean": np.array([frames.mean()], np.float32)})


@pytest.fixture(scope="module", name="embedder")
def made_embedder() -> SentenceEmbedder:
    return SentenceEmbedder(REAL.text)


async def test_footage_is_looked_at_once_and_remembered_by_its_pixels(embedder: SentenceEmbedder) -> None:
    eye = Looking()
    encoder = LocalTextEncoder(embedder, eye)
    shots = [Footage(moving(8) // (1 + i)) for i in range(FOOTAGE_CACHE_SIZE + 1)]
    first, again = await asyncio.gather(encoder.condition(shots[0]), encoder.condition(Footage(shots[0].frames.copy())))
    assert (first.guides["mean"] is again.guides["mean"], eye.calls) == (True, 1)
    assert (await encoder.condition(shots[0])).timing.service_s == 0  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="read-only"):
        first.guides["mean"][0] = 1
    for shot in shots[1:]:
        await encoder.condition(shot)
    await encoder.condition(shots[0])  # forgotten meanwhile
    counts = encoder.statistics()
    assert (eye.calls, counts.footage_hits, counts.footage_misses, counts.misses) == (len(shots) + 1, 2, len(shots) + 1, 0)
    await encoder.aclose()
    with pytest.raises(StageUnavailable):
        await encoder.condition(shots[0])


async def test_a_text_stage_without_a_conditioner_says_that_the_model_takes_none(embedder: SentenceEmbedder) -> None:
    encoder = LocalTextEncoder(embedder)
    with pytest.raises(InvalidRequest, match="this model takes neither image nor video"):
        await encoder.condition(Footage(moving(1)))
    await encoder.aclose()


def test_the_embedded_models_autoencoder_gives_back_what_is_given() -> None:
    """So what a viewer sees first is what was sent, if it is of the world that the model knows. An image stands still for one chunk."""
    vae = load_vae(REAL)
    painter = MillracePainter(vae, REAL)
    clip = np.empty((16, 64, 64, 3), np.uint8)
    clip[...] = BACKGROUNDS["navy"]
    for index, frame in enumerate(clip):
        frame[20:44, 4 + index : 28 + index] = COLOURS["red"]
    for frames in (clip, clip[:1]):
        head = MillraceConditioner(vae, REAL).condition(frames).head
        assert head is not None
        memory, shown = painter.fresh(), []
        for index in range(head.shape[1] // 2):
            pixels, memory = painter.paint(head[:, 2 * index : 2 * index + 2], memory)
            shown.append(pixels)
        expected = frames if len(frames) > 1 else frames.repeat(8, axis=0)
        assert np.abs(np.concatenate(shown).astype(int) - expected).mean() < 4


# -- in the log ----------------------------------------------------------------------------------------------------------------------


class Heads(FakeEncoder):
    """A text stage whose footage becomes the first two chunks of the log."""

    async def condition(self, footage: Footage) -> Conditioning:
        rng = np.random.default_rng(2)
        return given([rng.standard_normal(REAL.latent_shape(0), np.float32) for _ in range(2)])


async def played(session: Session) -> list[bytes]:
    async with aclosing(session.events()) as events:
        return [frame async for event in events if isinstance(event, FrameChunk) for frame in event.data]


def request(footage: Footage | None) -> SessionRequest:
    return SessionRequest("s1", "a red circle", 7, 4, 12 * REAL.frames_per_chunk, footage=footage)


async def test_frames_depend_on_what_is_given_and_a_record_holds_it() -> None:
    shots = (None, Footage(moving(8)), Footage(moving(9)))
    alone, one, other = [await played(await FakeStages().pipeline.open(request(footage))) for footage in shots]
    assert len({b"".join(frames) for frames in (alone, one, other)}) == 3

    session = await FakeStages(keep_chunks=2).pipeline.open(request(shots[1]))
    async with aclosing(session.events()) as events:
        got = [(await anext(events)) for _ in range(7)]
    record = SessionRecord.from_bytes(session.record().to_bytes())
    assert record.given is not None
    np.testing.assert_array_equal(record.given.guides["mean"], np.array([moving(8).mean()], np.float32))
    rest = await played(await FakeStages(keep_chunks=2).pipeline.restore(record, 7 * REAL.frames_per_chunk))
    assert [frame for event in got if isinstance(event, FrameChunk) for frame in event.data] + rest == one


async def test_the_log_forgets_a_beginning_that_no_chunk_can_be_made_from_any_more() -> None:
    keep, window = 2, REAL.context_chunks
    pipeline = VideoPipeline(REAL, Heads(), FakeStages().decoder, keep_chunks=keep)
    session = await pipeline.open(request(Footage(moving(16))))
    held = []
    async with aclosing(session.events()) as events:
        async for _ in events:
            record = session.record()
            held.append(record.given is not None)
            back = SessionRecord.from_bytes(record.to_bytes())
            assert (back.given is None) == (record.given is None)
            if back.given is not None:
                np.testing.assert_array_equal(back.given.head, record.given.head)  # type: ignore[union-attr]
    # Needed until chunk 2 can be made from latents alone, which is when chunk 0 has fallen out of `window + keep` of them.
    assert held == [made <= window + keep for made in range(1, len(held) + 1)]


# -- over gRPC -----------------------------------------------------------------------------------------------------------------------


def door(config: ModelConfig, store: FakeStore | None = None, delay_s: float = 0.0) -> Any:
    stages = FakeStages(FakeDenoiser(config, delay_s=delay_s), keep_chunks=4, config=config)
    return serving(stages, store=store)


@pytest.mark.parametrize("kind", ["image", "video"])
async def test_a_session_with_footage_goes_on_at_another_front_door(kind: str) -> None:
    content = {"image": PNG, "video": video(20)}[kind]
    spec = pb.VideoSpec(prompt="a red circle", seconds=10 * REAL.frames_per_chunk / REAL.fps, seed=3, **{kind: content})  # type: ignore[arg-type]
    store = FakeStore()

    def frames(events: Sequence[Any]) -> list[bytes]:
        return [bytes(data) for event in events for data in event.frames.data]

    async with door(TAKES, store, delay_s=0.1) as one, door(TAKES, store) as two:
        async with grpc.aio.insecure_channel(two.address) as channel:
            whole = frames(await read_all(stream_call(channel, pb.StreamRequest(spec=spec))))
            plain = pb.VideoSpec(prompt="a red circle", seconds=spec.seconds, seed=3)
            assert frames(await read_all(stream_call(channel, pb.StreamRequest(spec=plain)))) != whole
        async with grpc.aio.insecure_channel(one.address) as channel:
            call = stream_call(channel, pb.StreamRequest(spec=spec))
            token = (await call.read()).started.resume_token
            got = frames([await call.read() for _ in range(4)])
            call.cancel()
        await one.nothing_left()
        async with grpc.aio.insecure_channel(two.address) as channel:
            resume = pb.SessionResume(token=token, next_frame=len(got))
            events = await read_all(stream_call(channel, pb.StreamRequest(resume=resume)))
        assert got + frames(events) == whole
        await two.nothing_left()


BAD = [
    (TAKES, {"image": b"hello"}, "image", "must be one of PNG, JPEG, WEBP; got 5 bytes"),
    (TAKES, {"image": b""}, "image", "must be one of PNG, JPEG, WEBP; got nothing"),
    (TAKES, {"image": PNG[:-40]}, "image", "must be a whole PNG image; got one that cannot be decoded"),
    (TAKES, {"image": bomb(5000, 5000)}, "image", "must have 1 to 24000000 pixels; got 5000x5000"),
    (TAKES, {"image": PNG + bytes(9 * 1024 * 1024)}, "image", f"must be at most 8388608 bytes; got {len(PNG) + 9 * 1024 * 1024}"),
    (TAKES, {"video": PNG}, "video", "must be an MP4 file; got"),
    (TAKES, {"video": video(3)}, "video", "must last 8 to 48 frames at 24 a second for model millrace-64; got 3"),
    (NEEDS, {}, "image", "is required by model millrace-64; got none"),
    (NEEDS, {"video": video(8)}, "video", "must be unset: model millrace-64 takes image; got"),
    (NONE, {"image": PNG}, "image", "must be unset: model millrace-64 takes neither image nor video; got"),
]


@pytest.mark.parametrize("method", ["Generate", "Stream", "Live"])
async def test_bad_footage_is_named_and_then_the_server_still_serves(method: str) -> None:
    for config in (TAKES, NEEDS, NONE):
        async with door(config) as served:
            for _, fields, field, sentence in (row for row in BAD if row[0] is config):
                data, path = wrapped(method, pb.VideoSpec(prompt="a red circle", seconds=1.0, **fields))  # type: ignore[arg-type]
                error = await raw_call(served, method, data)
                assert fields_of(error) == [path + field]
                assert sentence in str(error)
            await served.nothing_left()
            await still_serves(served, config)


async def still_serves(served: Served, config: ModelConfig) -> None:
    image = PNG if config.media else None
    assert (await served.client.generate("a green square", seconds=0.5, image=image)).ended.usage.frames_sent == 12
    await served.nothing_left()


async def test_broken_text_beside_an_image_is_still_found() -> None:
    async with door(TAKES) as served:
        data, path = wrapped("Stream", pb.VideoSpec(prompt="a red circle", seconds=1.0, image=PNG))
        assert fields_of(await raw_call(served, "Stream", data.replace(b"red", b"\xff\xfe\xfd"))) == [path + "prompt"]


async def test_models_tell_what_they_take() -> None:
    async with door(TAKES) as served:
        (model,) = await served.client.list_models()
        assert (model.image.required, list(model.image.formats), model.image.max_bytes) == (False, ["PNG", "JPEG", "WEBP"], 8 * 1024 * 1024)
        assert (model.video.min_frames, model.video.max_frames, list(model.video.formats)) == (8, 48, ["MP4"])
    async with door(NEEDS) as served:
        (model,) = await served.client.list_models()
        assert model.image.required
        assert not model.HasField("video")


async def test_a_session_does_not_hold_the_file_that_it_began_with() -> None:
    async with door(TAKES) as served:
        stream = served.client.stream("a red circle", seconds=60.0, max_lead_s=1.0, image=PNG)
        async for event in stream:
            if isinstance(event, pb.Frames):
                break
        gc.collect()  # what sessions of other tests held may not have been collected yet
        held = [thing for thing in gc.get_objects() if type(thing) is Upload]
        await stream.aclose()
        assert [upload.field for upload in held] == ["spec.image"]
        assert [upload.data for upload in held] == [b""]


async def test_a_live_session_and_its_client_take_an_image() -> None:
    async with door(TAKES) as served:
        async with served.client.live("a red circle", seconds=1.0, seed=1, image=PNG) as session:
            sent = sum([event.frame_count async for event in session if isinstance(event, pb.Frames)])
        assert sent == 24
        with pytest.raises(BadRequest, match=r"spec\.image: must be one of"):
            await anext(served.client.stream("a red circle", seconds=1.0, image=b"GIF89a"))
        with pytest.raises(ValueError, match="not both"):
            served.client.live("a red circle", image=PNG, video=PNG)
        await served.nothing_left()
        async with grpc.aio.insecure_channel(served.address) as channel:
            call = live_call(channel)
            await call.write(pb.LiveRequest(start=pb.LiveStart(spec=pb.VideoSpec(prompt="a", image=b"x"))))
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await read_all(call)
            assert fields_of(error.value) == ["start.spec.image"]
