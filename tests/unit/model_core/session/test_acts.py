"""Keys that are held are part of the log: whatever ends a leg, and whoever goes on, the frames are those of an undisturbed session."""

from contextlib import aclosing
from dataclasses import replace

import pytest

from model_core.acts import counting, heading, keys_held
from model_core.config import ModelConfig
from model_core.errors import InvalidRequest
from model_core.pipeline import PromptApplied, Session, SessionEvent, SessionRequest
from model_core.presets import millrace_64, millrace_64_world
from model_core.reconcile import Acknowledged, reconcile
from model_core.session_log import PromptEntry, SessionRecord
from model_core.types import FrameChunk
from tests.fakes import FakeDenoiser, FakeStages

CONFIG = millrace_64_world()
PER_CHUNK = CONFIG.frames_per_chunk
CHUNKS = 12
HELD = {2: ("up",), 3: ("up", "left"), 6: (), 9: ("right",)}  # by the chunk that they are held from
IN_FORCE = [()] * 2 + [("up",)] + [("up", "left")] * 3 + [()] * 3 + [("right",)] * 3


def request(keys: tuple[str, ...] = ()) -> SessionRequest:
    return SessionRequest("s1", "a red circle", 7, 4, CHUNKS * PER_CHUNK, keys=keys)


def stages(config: ModelConfig = CONFIG, fail_after: tuple[int, ...] = ()) -> FakeStages:
    return FakeStages(FakeDenoiser(config, fail_after=fail_after), keep_chunks=4, config=config)


async def play(session: Session, held: dict[int, tuple[str, ...]] | None = None) -> tuple[list[SessionEvent], list[SessionRecord]]:
    """Everything, and the record after each chunk. `held` has keys by the chunk that they are held from."""
    records, got = [session.record()], list[SessionEvent]()
    async with aclosing(session.events()) as events:
        async for event in events:
            got.append(event)
            if isinstance(event, FrameChunk):
                if (keys := (held or {}).get(event.index + 1)) is not None:
                    session.act(keys, request_id=event.index + 1)
                records.append(session.record())
    return got, records


def frames(events: list[SessionEvent]) -> list[bytes]:
    return [frame for event in events if isinstance(event, FrameChunk) for frame in event.data]


async def test_keys_are_held_from_the_next_chunk_on_and_each_chunk_says_under_which_it_was_made() -> None:
    events, _ = await play(await stages().pipeline.open(request()), HELD)
    assert [event.keys for event in events if isinstance(event, FrameChunk)] == IN_FORCE
    acts = [event for event in events if isinstance(event, PromptApplied)]
    assert [(act.first_frame, act.keys, act.request_id) for act in acts] == [(c * PER_CHUNK, keys, c) for c, keys in HELD.items()]
    assert {act.prompt for act in acts} == {"a red circle"}
    still, _ = await play(await stages().pipeline.open(request()))
    assert frames(still)[: 2 * PER_CHUNK] == frames(events)[: 2 * PER_CHUNK]
    assert frames(still)[2 * PER_CHUNK :] != frames(events)[2 * PER_CHUNK :]


@pytest.mark.parametrize("chunk", range(CHUNKS))
async def test_a_replica_that_dies_at_any_chunk_changes_no_frame(chunk: int) -> None:
    whole, _ = await play(await stages().pipeline.open(request()), HELD)
    # The legs end by themselves where keys change: the n-th leg is told to fail.
    for leg in range(5):
        failing = stages(fail_after=(*[CHUNKS + 1] * leg, chunk % 3))
        killed, _ = await play(await failing.pipeline.open(request()), HELD)
        assert frames(killed) == frames(whole)
        assert [event.keys for event in killed if isinstance(event, FrameChunk)] == IN_FORCE
        assert failing.open_streams == 0


async def test_a_log_that_is_replayed_from_any_record_gives_equal_frames() -> None:
    whole, records = await play(await stages().pipeline.open(request()), HELD)
    told = [
        PromptEntry(event.first_frame // PER_CHUNK, event.prompt, event.change, keys=event.keys)
        for event in whole
        if isinstance(event, PromptApplied)
    ]
    for chunk, record in enumerate(records):
        kept = SessionRecord.from_bytes(record.to_bytes())
        assert kept.timeline == record.timeline
        # Acts that the record does not know come from the viewer, as a resume repeats them.
        story = reconcile(kept, chunk, Acknowledged(tuple(told)))
        rest, _ = await play(await stages().pipeline.restore(story.record, chunk * PER_CHUNK))
        assert frames(rest) == frames(whole)[chunk * PER_CHUNK :]


async def test_keys_that_are_held_from_the_start_are_those_of_an_act_before_the_first_chunk() -> None:
    begun, records = await play(await stages().pipeline.open(request(("down",))))
    session = await stages().pipeline.open(request())
    session.act(("down",))
    acted, _ = await play(session)
    assert frames(begun) == frames(acted)
    assert records[0].timeline == (PromptEntry(0, "a red circle", keys=("down",)),)


async def test_a_new_prompt_leaves_keys_held_and_an_act_leaves_the_prompt() -> None:
    session = await stages().pipeline.open(request())
    session.act(("left",))
    await session.set_prompt("a blue square")
    session.act(("up",))
    assert session.record().timeline == (PromptEntry(0, "a blue square", 3, keys=("up",)),)


async def test_chunks_that_were_handed_out_are_made_again_under_new_keys_where_the_viewer_can_replace_them() -> None:
    session = await stages().pipeline.open(request())
    async with aclosing(session.events()) as events:
        for _ in range(4):
            await anext(events)
        session.act(("up",), 5, replace_from=PER_CHUNK + 1)
        act, first = await anext(events), await anext(events)
    assert act == PromptApplied("a red circle", 2 * PER_CHUNK, 5, 1, superseded=2 * PER_CHUNK, keys=("up",))
    assert isinstance(first, FrameChunk)
    assert (first.index, first.keys) == (2, ("up",))


async def test_a_session_without_actions_has_the_record_of_earlier_versions() -> None:
    _, records = await play(await stages().pipeline.open(request()))
    assert b'a red circle", 0, false, 0]' in records[-1].to_bytes()


async def test_a_model_that_takes_no_actions_refuses_them_by_name() -> None:
    plain = stages(millrace_64())
    session = await plain.pipeline.open(request())
    with pytest.raises(InvalidRequest, match=r"act\.keys: must come only to a model that takes actions"):
        session.act(("up",))
    with pytest.raises(InvalidRequest, match="keys: must come only"):
        await plain.pipeline.open(request(("up",)))
    assert len(frames((await play(session))[0])) == CHUNKS * PER_CHUNK


async def test_a_key_that_the_model_does_not_have_is_named_with_those_that_it_has() -> None:
    session = await stages().pipeline.open(request())
    with pytest.raises(InvalidRequest, match=r"act\.keys: must be among: up, down, left, right; got 'jump'"):
        session.act(("up", "jump"))


def test_keys_come_once_and_in_the_models_order_and_opposite_ones_cancel() -> None:
    assert keys_held(("right", "up", "right"), CONFIG.keys, "act.keys") == ("up", "right")
    assert heading(("up", "left")) == (-1, -1)
    assert counting(("up", "down", "left")) == ("left",)


def test_a_world_is_another_model_and_the_model_without_keys_is_what_it_was() -> None:
    assert "keys" not in millrace_64().identity()
    assert CONFIG.identity()["keys"] == ["up", "down", "left", "right"]
    assert replace(CONFIG, name="other").identity() == CONFIG.identity()
