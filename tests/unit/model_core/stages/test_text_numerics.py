"""Text stages on two kinds of processor: a session's prompts go to those that round alike, also when it is resumed."""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from deployments.links.remote import RemoteTextEncoder
from deployments.replicas.stages import numerics
from model_core.pipeline import Session, SessionRequest, VideoPipeline
from model_core.presets import millrace_64
from model_core.session_log import PromptEntry, SessionRecord
from model_core.stages.text_encoder import LocalTextEncoder
from model_core.types import Codec, FrameChunk, Numerics, TextEmbedding
from observability.metrics import Metrics
from observability.session_meter import SessionMeter
from tests.fakes import FakeEncoder, FakeStages
from tests.routers import OURS, THEIRS, StubReplica, chosen


class Rounding(FakeEncoder):
    """A text stage whose device rounds in its own way: its features, and so the frames, are others than those of another `kind`."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    async def encode(self, prompt: str, numerics: str = "") -> TextEmbedding:
        embedding = await super().encode(prompt, numerics)
        return replace(embedding, tokens=embedding.tokens + int(self.kind, 16), numerics=self.kind)


class TextCalls:
    """Stands for Serve's handle of a deployment of text stages; `there` are its replicas."""

    def __init__(self, there: Mapping[str, Rounding]) -> None:
        self.there = there

    @property
    def encode(self) -> TextCalls:
        return self

    def remote(self, *arguments: Any) -> Coroutine[Any, Any, TextEmbedding]:
        return self._answer(arguments)

    async def _answer(self, arguments: tuple[Any, ...]) -> TextEmbedding:
        replicas = [StubReplica(name, stage.kind, sessions=None, stage="text_encoder") for name, stage in self.there.items()]
        taken = await chosen(replicas, *arguments)
        assert taken is not None
        return await self.there[taken].encode(arguments[0])


def led() -> SessionRequest:
    return SessionRequest("s", "a red circle", 3, 2, 8 * _LED.frames_per_chunk, guidance=3.0, negative_prompt="grey")


_LED = replace(millrace_64(), max_guidance=5.0)


class Texts:
    """A pipeline in front of text stages of one kind, or of two, of which calls for no kind go to the first."""

    def __init__(self, *kinds: str) -> None:
        stages = FakeStages(config=_LED)
        self.handle = TextCalls({kind: Rounding(kind) for kind in kinds})
        self.encoder = RemoteTextEncoder(cast("Any", self.handle), "text_encoder", 1.0, 60.0, 60.0)
        self.pipeline = VideoPipeline(_LED, self.encoder, stages.decoder, keep_chunks=4)

    @property
    def calls(self) -> list[int]:
        return [stage.calls for stage in self.handle.there.values()]


async def shown(session: Session, chunks: int = 8, switch_at: int = -1) -> list[FrameChunk]:
    made: list[FrameChunk] = []
    async with aclosing(session.events()) as events:
        async for event in events:
            made += [event] if isinstance(event, FrameChunk) else []
            if len(made) == chunks:
                break
            if isinstance(event, FrameChunk) and event.index + 1 == switch_at:
                await session.set_prompt("a blue square")
    return made


def data(chunks: Sequence[FrameChunk]) -> list[tuple[bytes, ...]]:
    return [chunk.data for chunk in chunks]


async def test_a_sessions_prompts_are_embedded_where_devices_round_as_for_its_first_one() -> None:
    undisturbed = await shown(await Texts(OURS).pipeline.open(led()), switch_at=3)
    assert {chunk.numerics.text_encoder for chunk in undisturbed} == {OURS}

    texts = Texts(OURS)
    session = await texts.pipeline.open(led())
    texts.handle.there = {THEIRS: Rounding(THEIRS), **texts.handle.there}  # where the router would go first
    assert data(await shown(session, switch_at=3)) == data(undisturbed)
    assert texts.calls == [0, 3]  # prompt, negative prompt, and the other prompt


async def test_a_session_that_is_resumed_has_its_prompts_embedded_again_where_devices_round_alike() -> None:
    begun = await Texts(OURS).pipeline.open(led())
    first = await shown(begun, 5, switch_at=3)
    record = SessionRecord.from_bytes(begun.record().to_bytes())
    assert record.numerics.text_encoder == OURS
    undisturbed = await shown(await Texts(OURS).pipeline.restore(record, begun.next_frame))

    texts = Texts(THEIRS, OURS)
    restored = await texts.pipeline.restore(record, begun.next_frame)
    rest = await shown(restored)
    assert texts.calls[0] == 0
    assert (len(first), len(rest)) == (5, 3)
    assert data(rest) == data(undisturbed)
    assert restored.record().numerics.text_encoder == OURS


async def test_where_none_rounds_alike_a_session_goes_on_with_another_text_stage_and_its_log_says_so() -> None:
    begun = await Texts(OURS).pipeline.open(led())
    await shown(begun, 5)
    restored = await Texts(THEIRS).pipeline.restore(begun.record(), begun.next_frame)
    assert restored.context().numerics.text_encoder == OURS
    assert len(await shown(restored)) == 3
    assert restored.record().numerics.text_encoder == THEIRS


def test_a_record_of_before_text_stages_told_is_read() -> None:
    older = _recorded().to_bytes().replace(b'"text_numerics"', b'"whatever_else"')
    assert SessionRecord.from_bytes(older).numerics == Numerics(OURS, OURS)
    assert SessionRecord.from_bytes(_recorded().to_bytes()).numerics == Numerics(OURS, OURS, THEIRS)


def _recorded() -> SessionRecord:
    return SessionRecord(
        "m", "f", "s", 1, 2, None, Codec.RAW_RGB, 0, (), (PromptEntry(0, "a red circle"),), ((0, 2),), numerics=Numerics(OURS, OURS, THEIRS)
    )


class Embedder:
    """Features of one value."""

    def __init__(self, value: float) -> None:
        self.value = np.float32(value)

    def embed(self, prompts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        return np.full((len(prompts), 4, 2), self.value, np.float32), np.ones((len(prompts), 4), np.bool_)

    def count(self, prompt: str) -> int:
        return len(prompt.split())


async def test_a_text_stage_tells_how_it_rounds_with_each_prompt_and_to_the_router() -> None:
    one = np.float32(1.0)
    encoders = [LocalTextEncoder(Embedder(float(value))) for value in (one, one, np.nextafter(one, np.float32(2)))]
    told = [(await encoder.encode("a red circle")).numerics for encoder in encoders]
    assert told[0] == told[1] != told[2]
    assert (await encoders[0].encode("a red circle")).numerics == told[0]  # from its cache, too
    assert [numerics({"text_encoder": encoder}) for encoder in encoders] == [{"text_encoder": digest} for digest in told]
    for encoder in encoders:
        await encoder.aclose()


@pytest.mark.parametrize(
    ("before", "other"),
    [
        (Numerics(), False),
        (Numerics(text_encoder=OURS), False),
        (Numerics("", OURS, OURS), False),
        (Numerics(text_encoder=THEIRS), True),
        (Numerics(THEIRS, OURS, OURS), True),
    ],
)
def test_the_front_door_that_resumes_a_session_logs_what_rounds_otherwise_as_far_as_it_is_known(
    before: Numerics, other: bool, caplog: pytest.LogCaptureFixture
) -> None:
    frames = FrameChunk(3, 24, 8, 8, 8, Codec.JPEG, (b"",) * 8, np.zeros((1, 1, 1, 1), np.float32), numerics=Numerics(OURS, OURS, OURS))
    with caplog.at_level(logging.INFO, "observability.session_meter"):
        meter = SessionMeter(Metrics(CollectorRegistry()).of("m"), "default", 24, paced=False, numerics=before)
        for _ in range(2):
            meter.sent(frames, 0.0, 0.0, 0.0)
    assert [record.message.partition(" the")[0] for record in caplog.records] == (["from frame 24 on"] if other else [])
