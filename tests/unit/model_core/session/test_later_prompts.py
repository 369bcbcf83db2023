"""Prompts that a session is given for later on: its frames are those of a session that is steered at those moments."""

from contextlib import aclosing

import pytest

from model_core.errors import InvalidRequest
from model_core.pipeline import Session, SessionRequest
from model_core.presets import millrace_64
from model_core.session_log import PromptEntry, SessionRecord
from model_core.types import FrameChunk
from tests.fakes import FakeStages

CONFIG = millrace_64()
PER_CHUNK = CONFIG.frames_per_chunk
CHUNKS = 12
SHOTS = ((4 * PER_CHUNK, "a blue square"), (7 * PER_CHUNK + 1, "a green star"))  # the second one begins within a chunk


def request(*later: tuple[int, str]) -> SessionRequest:
    return SessionRequest("s1", "a red circle", 7, 4, CHUNKS * PER_CHUNK, later_prompts=later)


async def play(session: Session, steered: dict[int, str] | None = None) -> tuple[list[bytes], list[SessionRecord]]:
    """All frames, and the record after each chunk. `steered` has prompts by the chunk that they are set before."""
    frames: list[bytes] = []
    records = [session.record()]
    async with aclosing(session.events()) as events:
        async for event in events:
            if isinstance(event, FrameChunk):
                frames += event.data
                records.append(session.record())
                if (prompt := (steered or {}).get(event.index + 1)) is not None:
                    await session.set_prompt(prompt)
    return frames, records


async def test_each_prompt_is_in_force_from_the_first_chunk_that_begins_with_its_frame_or_later() -> None:
    stages = FakeStages()
    planned, _ = await play(await stages.pipeline.open(request(*SHOTS)))
    steered, _ = await play(await FakeStages().pipeline.open(request()), {4: SHOTS[0][1], 8: SHOTS[1][1]})
    assert planned == steered
    assert len(planned) == CHUNKS * PER_CHUNK
    assert stages.open_streams == 0


async def test_the_record_holds_the_prompts_that_are_still_to_come_so_another_process_shows_the_same() -> None:
    whole, records = await play(await FakeStages(keep_chunks=4).pipeline.open(request(*SHOTS)))
    assert records[0].timeline == (PromptEntry(0, "a red circle"), PromptEntry(4, SHOTS[0][1], 1), PromptEntry(8, SHOTS[1][1], 2))
    for chunk in (1, 4, 6, 8, 11):
        record = SessionRecord.from_bytes(records[chunk].to_bytes())
        rest, _ = await play(await FakeStages(keep_chunks=4).pipeline.restore(record, chunk * PER_CHUNK))
        assert rest == whole[chunk * PER_CHUNK :]


async def test_a_later_prompt_of_too_many_tokens_is_named() -> None:
    with pytest.raises(InvalidRequest, match=r"later_prompts\[1\]: must be at most"):
        await FakeStages().pipeline.open(request(SHOTS[0], (6 * PER_CHUNK, "word " * (CONFIG.max_prompt_tokens + 1))))
