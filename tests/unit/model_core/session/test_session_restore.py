"""A session that another process continues from its record shows exactly what was still to be shown."""

import asyncio
import json
import struct
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

import numpy as np
import pytest

from model_core.fingerprint import model_fingerprint
from model_core.pipeline import Paused, PromptApplied, Session, SessionEvent, SessionRequest
from model_core.presets import millrace_64
from model_core.reconcile import Acknowledged, reconcile
from model_core.session_log import PromptEntry, SessionRecord
from model_core.types import Codec, FrameChunk
from tests.fakes import FakeStages

CONFIG = millrace_64()
PER_CHUNK = CONFIG.frames_per_chunk
WINDOW = CONFIG.context_chunks
KEEP = 4
SWITCH_AT = 7  # chunk
CHUNKS = 12
SWITCHED = PromptEntry(SWITCH_AT, "a blue square", change=1, request_id=1)
TAIL = 3  # frames of the last, shorter chunk


def stages() -> FakeStages:
    return FakeStages(keep_chunks=KEEP)


def request(codec: Codec = Codec.RAW_RGB) -> SessionRequest:
    return SessionRequest("s1", "a red circle", seed=7, num_steps=4, num_frames=CHUNKS * PER_CHUNK + TAIL, codec=codec)


async def play(session: Session, switch_at: int | None = None) -> tuple[list[SessionEvent], list[SessionRecord]]:
    """Everything, and the record after each chunk; record k has k chunks made. `switch_at` is a chunk."""
    records = [session.record()]
    got: list[SessionEvent] = []
    async with aclosing(session.events()) as events:
        async for event in events:
            got.append(event)
            if isinstance(event, FrameChunk):
                if event.index + 1 == switch_at:
                    await session.set_prompt("a blue square", 1)
                records.append(session.record())
    return got, records


def frames(events: Sequence[SessionEvent]) -> list[bytes]:
    return [frame for event in events if isinstance(event, FrameChunk) for frame in event.data]


async def disturbed(record: SessionRecord, next_frame: int, told: tuple[PromptEntry, ...] = ()) -> list[SessionEvent]:
    other = stages()
    story = reconcile(SessionRecord.from_bytes(record.to_bytes()), CONFIG.grid.chunk_from(next_frame), Acknowledged(told))
    assert story.chunk == CONFIG.grid.chunk_from(next_frame)
    events, _ = await play(await other.pipeline.restore(story.record, next_frame))
    assert other.open_streams == 0
    return events


@pytest.fixture(name="whole")
async def played_whole() -> tuple[list[SessionEvent], list[SessionRecord]]:
    return await play(await stages().pipeline.open(request()), SWITCH_AT)


Whole = tuple[list[SessionEvent], list[SessionRecord]]


async def test_any_frame_within_reach_of_any_record_is_the_next_one(whole: Whole) -> None:
    events, records = whole
    all_frames = frames(events)
    tried = 0
    for record in records:
        first, last = stages().pipeline.restorable(record)
        # A record made before the switch needs to be told of it, unless the viewer has not come so far.
        told = (SWITCHED,)
        for next_frame in {first, first + 1, (first + last) // 2, max(first, last - 5), last}:
            rest = await disturbed(record, next_frame, told)
            assert frames(rest) == all_frames[next_frame:]
            shown = [event for event in rest if isinstance(event, FrameChunk)]
            assert not shown or shown[0].first_frame == next_frame
            tried += 1
    assert tried > 40


async def test_a_prompt_that_the_record_knows_of_needs_no_telling_wherever_the_viewer_stands(whole: Whole) -> None:
    events, records = whole
    record = records[SWITCH_AT + 2]
    assert record.timeline == (PromptEntry(0, "a red circle"), SWITCHED)
    for chunk in range(SWITCH_AT - 1, SWITCH_AT + 3):
        assert frames(await disturbed(record, chunk * PER_CHUNK)) == frames(events)[chunk * PER_CHUNK :]


async def test_the_record_stays_bounded_and_forgets_prompts_that_no_chunk_it_holds_was_made_for(whole: Whole) -> None:
    _, records = whole
    assert max(len(record.latents) for record in records) == WINDOW + KEEP
    assert records[-1].timeline == (SWITCHED,) or records[-1].first_chunk < SWITCH_AT
    session = await stages().pipeline.open(request())
    for n in range(100):
        await session.set_prompt(f"prompt {n}")
    assert session.record().timeline == (PromptEntry(0, "prompt 99", 100),)


async def test_frames_out_of_reach_are_refused_with_the_reach(whole: Whole) -> None:
    _, records = whole
    pipeline = stages().pipeline
    assert pipeline.restorable(records[0]) == (0, KEEP * PER_CHUNK)
    newest = records[CHUNKS]
    assert newest.first_chunk == CHUNKS - WINDOW - KEEP
    assert pipeline.restorable(newest) == ((CHUNKS - KEEP) * PER_CHUNK, CHUNKS * PER_CHUNK + TAIL)
    for frame in ((CHUNKS - KEEP) * PER_CHUNK - 1, CHUNKS * PER_CHUNK + TAIL + 1):
        with pytest.raises(ValueError, match=r"restores frames 64 to 99 of millrace-64"):
            await pipeline.restore(newest, frame)


async def test_a_session_seen_to_its_end_has_nothing_more(whole: Whole) -> None:
    _, records = whole
    assert await disturbed(records[-1], CHUNKS * PER_CHUNK + TAIL) == []
    assert await disturbed(records[-3], CHUNKS * PER_CHUNK + TAIL) == []


async def test_fragments_start_at_the_chunk_that_holds_the_frame() -> None:
    events, records = await play(await stages().pipeline.open(request(Codec.FMP4_H264)))
    rest = await disturbed(records[5], 4 * PER_CHUNK + 3)
    assert [event.first_frame for event in rest if isinstance(event, FrameChunk)][:2] == [4 * PER_CHUNK, 5 * PER_CHUNK]
    assert frames(rest) == frames(events)[4:]


async def test_a_record_of_other_weights_is_refused(whole: Whole) -> None:
    other = replace(CONFIG, weights=replace(CONFIG.weights, dit_sha256="0" * 64))
    assert model_fingerprint(other) != model_fingerprint(CONFIG)
    with pytest.raises(ValueError, match="restores frames"):
        await stages().pipeline.restore(replace(whole[1][4], fingerprint=model_fingerprint(other)), 32)


async def test_a_record_whose_fingerprint_is_of_another_version_is_refused(whole: Whole) -> None:
    with pytest.raises(ValueError, match="must be of version 2; got version 1"):
        await stages().pipeline.restore(replace(whole[1][4], fingerprint_version=1), 32)


async def test_a_new_prompt_waits_for_the_first_chunk_of_which_nothing_was_seen(whole: Whole) -> None:
    """The record lags by two chunks, and the viewer stands inside a third."""
    events, records = whole
    next_frame = 5 * PER_CHUNK + 3
    session = await stages().pipeline.restore(records[3], next_frame)
    await session.set_prompt("a green square", 9)
    got, after = await play(session)
    assert got[0] == PromptApplied("a green square", 6 * PER_CHUNK, 9, 1)
    assert frames(got)[: PER_CHUNK - 3] == frames(events)[next_frame : 6 * PER_CHUNK]
    assert frames(got)[PER_CHUNK - 3 :] != frames(events)[6 * PER_CHUNK :]
    # What it shows is one function of the timeline: a third process sees the same.
    assert frames(await disturbed(after[2], 7 * PER_CHUNK)) == frames(got)[2 * PER_CHUNK - 3 :]


async def test_a_new_prompt_replaces_one_that_was_settled_for_later(whole: Whole) -> None:
    _, records = whole
    session = await stages().pipeline.restore(records[SWITCH_AT + 1], (SWITCH_AT - 2) * PER_CHUNK)
    await session.set_prompt("a green square")
    assert [entry.prompt for entry in session.record().timeline] == ["a red circle", "a green square"]


async def test_a_restored_session_that_is_paused_names_the_frame_it_was_asked_for(whole: Whole) -> None:
    session = await stages().pipeline.restore(whole[1][3], 4 * PER_CHUNK + 2)
    session.pause()
    async with aclosing(session.events()) as events:
        assert await anext(events) == Paused(4 * PER_CHUNK + 2)


async def test_a_restored_session_survives_a_dead_stage_while_it_catches_up(whole: Whole) -> None:
    from tests.fakes import FakeDenoiser

    events, records = whole
    shaky = FakeStages(FakeDenoiser(CONFIG, fail_after=(1, 0, 1)), keep_chunks=KEEP)
    got, _ = await play(await shaky.pipeline.restore(records[1].changed(SWITCHED), 3 * PER_CHUNK + 1))
    assert frames(got) == frames(events)[3 * PER_CHUNK + 1 :]
    assert len(asyncio.all_tasks()) == 1


def test_a_record_survives_being_written_down(whole: Whole) -> None:
    record = whole[1][6]
    back = SessionRecord.from_bytes(record.to_bytes())
    assert replace(back, latents=()) == replace(record, latents=())
    assert all(np.array_equal(a, b) for a, b in zip(back.latents, record.latents, strict=True))
    empty = whole[1][0]
    assert SessionRecord.from_bytes(empty.to_bytes()) == empty


def test_a_record_says_whose_it_is_and_older_ones_say_nothing(whole: Whole) -> None:
    data = replace(whole[1][6], tenant="studio").to_bytes()
    assert SessionRecord.from_bytes(data).tenant == "studio"
    magic, size = struct.unpack_from("<4sI", data)
    header = json.loads(data[8 : 8 + size])
    del header["tenant"]
    text = json.dumps(header).encode()
    assert SessionRecord.from_bytes(struct.pack("<4sI", magic, len(text)) + text + data[8 + size :]).tenant is None


@pytest.mark.parametrize("data", [b"", b"HRL2", b"XXXX\0\0\0\0{}", b"HRL2\x02\0\0\0{}", b"HRL2\xff\0\0\0{}"])
def test_bytes_that_are_no_record_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no session record"):
        SessionRecord.from_bytes(data)


def test_a_record_that_was_cut_is_refused(whole: Whole) -> None:
    with pytest.raises(ValueError, match="no session record"):
        SessionRecord.from_bytes(whole[1][6].to_bytes()[:-4])
