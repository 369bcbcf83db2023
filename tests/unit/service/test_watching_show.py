"""What a session shows to those who watch: from which event on, what is left out for slow ones, and what is never shown."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from typing import Any

import numpy as np
import pytest

from model_core.errors import StageUnavailable
from model_core.session import Paused, PromptApplied, Resumed
from model_core.types import Codec, FrameChunk, StageTiming
from service.events import (
    Ended,
    EndReason,
    Event,
    Frames,
    PromptRefused,
    QualityChanged,
    QualityReason,
    QueuePosition,
    Skipped,
    Started,
    Usage,
)
from service.records.store import SessionNotFound
from service.watch_token import CHARS, watch_token
from service.watching.show import RING_CHUNKS, Item, Place, Show
from tests.fakes import eventually

FPS = 8
STARTED = Started(
    session_id="s", model="m", seed=1, width=4, height=4, fps=FPS, frames_per_chunk=8, steps=4, codec=Codec.JPEG, resume_token="secret",  # noqa: S106 - made up
    watch_token="shown",  # noqa: S106 - made up
)  # fmt: skip
ENDED = Ended(EndReason.COMPLETED, Usage(fps=FPS, frames=16, denoise_s=3.0, decode_s=2.0, steps=9, frame_pixels=16))


def frames(index: int, size: int = 8) -> Frames:
    chunk = FrameChunk(
        index, 8 * index, 8, 4, 4, Codec.JPEG, (bytes([index]) * size,), np.ones((1, 1, 2, 2), np.float32),
        (StageTiming("denoiser", 0.1, 0.2, 0.3),),
    )  # fmt: skip
    return Frames(chunk)


def showing(*events: Event, watched: bool = True) -> Show:
    show = Show(7)
    show.watched = watched
    for event in (STARTED, *events):
        show.publish(event)
    return show


def read(show: Show, place: Place | None = None) -> tuple[list[Any], Place]:
    """All that is there, as a reader who keeps up would have it."""
    seen: list[Any] = []
    while (found := show.now(place))[0]:
        seen += [item.event for item in found[0]]
        place = found[1]
    assert place is not None
    return seen, place


def names(events: list[Any]) -> list[str]:
    return [f"{event.chunk.index}" if isinstance(event, Frames) else type(event).__name__ for event in events]


def test_the_token_to_watch_is_the_same_for_a_session_and_does_not_tell_the_other() -> None:
    token = watch_token("resume-me")
    assert token == watch_token("resume-me") != watch_token("resume-you")
    assert len(token) == CHARS
    assert "resume" not in token


def test_whoever_comes_late_begins_at_the_newest_chunk_and_is_told_so() -> None:
    seen, place = read(showing(frames(0), frames(1), frames(2)))
    assert names(seen) == ["Started", "2"]
    assert seen[0].next_frame == 16
    assert (place.next, place.frames) == (3, 24)


def test_nothing_is_shown_that_is_the_session_s_own_affair() -> None:
    show = showing(frames(0), QueuePosition(1), Usage(fps=FPS), PromptRefused(1, StageUnavailable("away")), ENDED)
    started, chunk, ended = read(show)[0]
    assert (started.resume_token, started.watch_token) == ("", "shown")
    assert chunk.chunk.data == frames(0).chunk.data
    assert (chunk.chunk.latents.size, chunk.chunk.timings) == (0, ())
    assert (ended.reason, ended.usage) == (EndReason.COMPLETED, Usage(fps=FPS, frames=16, frame_pixels=16))
    assert show.over


def test_a_reader_who_keeps_up_gets_everything_once_and_in_order() -> None:
    show = showing(frames(0))
    seen, place = read(show)
    for event in (frames(1), PromptApplied("p", 16, 1, 1), frames(2), Paused(24), Resumed(24), QualityChanged(3, 24, QualityReason.LOAD)):
        show.publish(event)
        more, place = read(show, place)
        seen += more
    assert names(seen) == ["Started", "0", "1", "PromptApplied", "2", "Paused", "Resumed", "QualityChanged"]


def test_a_slow_reader_goes_on_at_the_newest_chunk_and_hears_what_changed() -> None:
    show = showing(frames(0))
    _, place = read(show)
    show.publish(PromptApplied("first", 8, 1, 1))
    show.publish(PromptApplied("second", 8, 2, 2))
    for index in range(1, RING_CHUNKS + 3):
        show.publish(frames(index))
    show.publish(Paused(8 * (RING_CHUNKS + 3)))
    seen, place = read(show, place)
    assert names(seen) == ["PromptApplied", "Skipped", str(RING_CHUNKS + 2), "Paused"]
    assert seen[0].prompt == "second"
    assert seen[1] == Skipped(8 * (RING_CHUNKS + 1), 8 * (RING_CHUNKS + 2))
    show.publish(frames(RING_CHUNKS + 3))
    assert names(read(show, place)[0]) == [str(RING_CHUNKS + 3)]


def test_a_reader_within_the_ring_misses_nothing() -> None:
    show = showing(frames(0))
    _, place = read(show)
    for index in range(1, RING_CHUNKS + 1):
        show.publish(frames(index))
    assert names(read(show, place)[0]) == [str(index) for index in range(1, RING_CHUNKS + 1)]


def test_large_chunks_leave_the_ring_sooner_and_one_always_stays() -> None:
    show = showing(frames(0))
    _, place = read(show)
    for index in (1, 2, 3):
        show.publish(frames(index, 20 * 1024 * 1024))
    seen, _ = read(show, place)
    assert names(seen) == ["Skipped", "3"]


def test_while_nobody_watches_only_a_small_newest_chunk_is_kept() -> None:
    assert names(read(showing(frames(0), frames(1), watched=False))[0]) == ["Started", "1"]
    large = showing(frames(0), frames(1, 2 * 1024 * 1024), watched=False)
    seen, _ = read(large)
    assert names(seen) == ["Started"]
    assert seen[0].next_frame == 16


def test_controls_without_end_do_not_grow_the_ring() -> None:
    show = showing(frames(0))
    _, place = read(show)
    for n in range(500):
        show.publish(Paused(n))
        show.publish(Resumed(n))
    seen, _ = read(show, place)
    assert names(seen) == ["Resumed"]


def test_whoever_comes_during_a_pause_sees_the_picture_and_that_it_is_paused() -> None:
    assert names(read(showing(frames(0), Paused(8)))[0]) == ["Started", "0", "Paused"]
    assert names(read(showing(frames(0), Paused(8), Resumed(8)))[0]) == ["Started", "0"]


def test_superseded_frames_come_again_behind_the_new_prompt() -> None:
    show = showing(frames(0), frames(1))
    _, place = read(show)
    show.publish(PromptApplied("other", 8, 1, 1, 8))
    show.publish(frames(1))
    show.publish(frames(2))
    assert names(read(show, place)[0]) == ["PromptApplied", "1", "2"]


def test_of_a_resumed_session_nothing_is_shown_twice() -> None:
    prompt = PromptApplied("other", 8, 1, 1)
    show = showing(frames(0), prompt, frames(1), frames(2))
    _, place = read(show)
    for event in (STARTED, prompt, frames(1), frames(2), frames(3)):
        show.publish(event)
    assert names(read(show, place)[0]) == ["3"]


@pytest.mark.parametrize("reason", [EndReason.PAUSED])
def test_an_end_that_the_session_can_go_on_from_is_none_for_those_who_watch(reason: EndReason) -> None:
    show = showing(frames(0), Ended(reason, Usage(fps=FPS)))
    assert not show.over
    assert names(read(show)[0]) == ["Started", "0"]


async def test_readers_wait_for_news_and_are_woken_together() -> None:
    show = showing(frames(0))
    _, place = read(show)
    readers = [asyncio.create_task(show.after(place)) for _ in range(3)]
    await asyncio.sleep(0)
    show.publish(frames(1))
    assert [names([item.event for item in (await reader)[0]]) for reader in readers] == [["1"]] * 3
    items = [(await reader)[0][0] for reader in readers]
    assert items[0] is items[1] is items[2], "they share it"


async def test_a_lost_show_tells_everybody_why() -> None:
    show = showing(frames(0))
    _, place = read(show)
    waiting = asyncio.create_task(show.after(place))
    await asyncio.sleep(0)
    show.end(SessionNotFound("gone"))
    with pytest.raises(SessionNotFound, match="gone"):
        await waiting
    show.publish(frames(1))
    assert read(show, place)[0] == [], "nothing comes after the end"


async def test_one_that_ends_before_it_has_started_shows_nothing() -> None:
    show = Show(1)
    waiting = asyncio.create_task(show.begun())
    await asyncio.sleep(0)
    show.publish(Ended(EndReason.STOPPED, Usage(fps=FPS)))
    assert await waiting is None


def test_a_place_in_another_show_begins_anew() -> None:
    show = showing(frames(0))
    assert names(read(show, Place(6, 1, 8))[0]) == ["Started", "0"]


def test_what_a_door_makes_of_an_event_is_made_once() -> None:
    item, made = Item(frames(0)), []

    def make(event: object) -> list[bytes]:
        made.append(event)
        return [b"bytes"]

    assert item.once("a", make) is item.once("a", make)
    assert item.once("b", make) == [b"bytes"]
    assert len(made) == 2


async def test_what_takes_long_is_made_once_though_many_come_meanwhile_and_the_first_leaves() -> None:
    item, made, go_on = Item(frames(0)), [], threading.Event()

    def make(event: object) -> list[bytes]:
        made.append(event)
        assert go_on.wait(200)
        return [b"bytes"]

    first, *rest = [asyncio.create_task(item.making("a", make)) for _ in range(3)]
    await eventually(lambda: len(made) > 0)
    first.cancel()
    await asyncio.wait({first})
    go_on.set()
    assert await asyncio.gather(*rest) == [[b"bytes"], [b"bytes"]]
    assert item.once("a", make) is await item.making("a", make)
    assert len(made) == 1


async def test_what_could_not_be_made_is_tried_again_by_who_comes_next() -> None:
    item = Item(frames(0))

    def fail(event: object) -> list[bytes]:
        raise ValueError(event)

    with pytest.raises(ValueError, match="Frames"):
        await item.making("a", fail)
    assert await item.making("a", lambda _: [b"bytes"]) == [b"bytes"]


@pytest.mark.parametrize("event", [STARTED, ENDED, Paused(3), Resumed(4), PromptApplied("p", 1, 2, 3), Skipped(1, 2), Place(1, 2, 3)])
def test_events_cross_processes(event: Any) -> None:
    assert pickle.loads(pickle.dumps(event)) == copy.copy(event) == event  # noqa: S301 - made here
