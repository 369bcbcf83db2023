"""A session changes its number of denoise steps as it changes its prompt: by a new leg."""

from contextlib import aclosing

import pytest

from model_core.pipeline import Paused, Resumed, Session, SessionEvent, SessionRequest, StepsApplied
from model_core.presets import millrace_64
from model_core.session_log import SessionRecord
from model_core.types import FrameChunk
from tests.fakes import FakeStages

CONFIG = millrace_64()
CHUNKS = 8
SWITCH_AT = 3


def request() -> SessionRequest:
    return SessionRequest("s1", "a red circle", seed=7, num_steps=4, num_frames=CHUNKS * CONFIG.frames_per_chunk)


async def play(session: Session, switches: dict[int, tuple[int, ...]]) -> tuple[list[SessionEvent], list[SessionRecord]]:
    """`switches`: chunk to the steps that are set, one after the other, once it is the next."""
    records, got = [session.record()], []
    async with aclosing(session.events()) as events:
        async for event in events:
            got.append(event)
            if isinstance(event, FrameChunk):
                for steps in switches.get(event.index + 1, ()):
                    session.set_steps(steps)
                records.append(session.record())
    return got, records


def frames(events: list[SessionEvent]) -> list[bytes]:
    return [frame for event in events if isinstance(event, FrameChunk) for frame in event.data]


async def test_steps_change_at_the_next_chunk_and_the_event_says_where() -> None:
    stages = FakeStages()
    events, _ = await play(await stages.pipeline.open(request()), {SWITCH_AT: (2,)})

    assert [e.index for e in events if isinstance(e, FrameChunk)] == list(range(CHUNKS))
    assert events[SWITCH_AT] == StepsApplied(steps=2, first_frame=SWITCH_AT * CONFIG.frames_per_chunk)
    assert [(c.next_chunk, c.num_steps) for c in stages.denoiser.contexts] == [(0, 4), (SWITCH_AT, 2)]
    assert len(stages.denoiser.contexts[1].suffix) == CONFIG.context_chunks
    assert stages.open_streams == 0
    undisturbed, _ = await play(await FakeStages().pipeline.open(request()), {})
    per_chunk = CONFIG.frames_per_chunk
    assert frames(events)[: SWITCH_AT * per_chunk] == frames(undisturbed)[: SWITCH_AT * per_chunk]
    assert frames(events)[SWITCH_AT * per_chunk :] != frames(undisturbed)[SWITCH_AT * per_chunk :]


async def test_the_same_steps_again_are_no_change() -> None:
    stages = FakeStages()
    events, _ = await play(await stages.pipeline.open(request()), {SWITCH_AT: (4,)})
    assert len(events) == CHUNKS
    assert stages.denoiser.statistics().opened == 1


async def test_of_several_changes_at_once_only_the_last_is_told() -> None:
    events, _ = await play(await FakeStages().pipeline.open(request()), {SWITCH_AT: (3, 2, 3)})
    assert [e.steps for e in events if isinstance(e, StepsApplied)] == [3]


async def test_steps_set_before_the_first_pull_hold_from_the_first_frame() -> None:
    stages = FakeStages()
    session = await stages.pipeline.open(request())
    session.set_steps(2)
    assert session.steps == 2
    events, _ = await play(session, {})
    assert events[0] == StepsApplied(2, 0)
    assert [c.num_steps for c in stages.denoiser.contexts] == [2]


async def test_a_paused_session_takes_new_steps_and_goes_on_with_them() -> None:
    stages = FakeStages()
    session = await stages.pipeline.open(request())
    seen: list[SessionEvent] = []
    async with aclosing(session.events()) as events:
        async for event in events:
            seen.append(event)
            match event:
                case FrameChunk(index=1):
                    session.pause()
                case Paused():
                    session.set_steps(3)
                case StepsApplied():
                    session.resume()
    assert [type(e) for e in seen[2:5]] == [Paused, StepsApplied, Resumed]
    assert [(c.next_chunk, c.num_steps) for c in stages.denoiser.contexts] == [(0, 4), (2, 3)]


@pytest.mark.parametrize("made", range(1, CHUNKS))
async def test_a_session_restored_on_either_side_of_a_change_shows_the_same_frames(made: int) -> None:
    whole, records = await play(await FakeStages(keep_chunks=4).pipeline.open(request()), {SWITCH_AT: (2,)})
    record = SessionRecord.from_bytes(records[made].to_bytes())
    stages = FakeStages(keep_chunks=4)
    first, _ = stages.pipeline.restorable(record)
    last = record.next_chunk * CONFIG.frames_per_chunk
    for next_frame in {first, (first + last) // 2, last}:
        restored, _ = await play(await stages.pipeline.restore(record, next_frame), {})
        # The record of the moment before the change knows nothing of it.
        assert made < SWITCH_AT or frames(restored) == frames(whole)[next_frame:]
        assert (
            frames(restored)[: (made * CONFIG.frames_per_chunk) - next_frame] == frames(whole)[next_frame : made * CONFIG.frames_per_chunk]
        )
