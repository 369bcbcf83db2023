"""What a source takes, what it drops and says, and which frames each chunk is made from. No network: latents are the frames' numbers."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from numpy.typing import NDArray

from model_core.presets import millrace_64
from model_core.source import Dropped, Restyling, SourceFeed
from model_core.stages.sources import LocalSources
from model_core.types import Latents, SourceFootage

CONFIG = millrace_64()
CHUNK = CONFIG.frames_per_chunk


class Numbers:
    """A `SourceEncoder` whose latents say which frames it saw."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, list[int]]] = []
        self.gate = asyncio.Semaphore(1000)

    async def encode_source(self, footage: SourceFootage, numerics: str = "") -> Latents:
        await self.gate.acquire()
        numbers = [int(number) for number in footage.frames[:, 0, 0, 0]]
        self.seen.append((footage.chunk, numbers))
        return np.array(numbers, np.float32)


def frames(first: int, count: int) -> NDArray[np.uint8]:
    """Each frame's number is its value."""
    numbers = np.arange(first, first + count, dtype=np.uint8)
    return np.broadcast_to(numbers[:, None, None, None], (count, CONFIG.height, CONFIG.width, 3))


def feed(encoder: Numbers | None = None, first_chunk: int = 0, ahead: int = 4) -> SourceFeed:
    return SourceFeed(CONFIG, Restyling(encoder or Numbers(), LocalSources(), ahead), 0.5, first_chunk)


async def test_a_chunk_is_made_from_its_frames_and_the_chunk_before_them() -> None:
    encoder = Numbers()
    source = feed(encoder)
    source.offer(0, frames(0, 3 * CHUNK))

    for chunk in range(3):
        await source.latents(chunk)

    assert encoder.seen == [(0, [*range(8)]), (1, [*range(16)]), (2, [*range(8, 24)])]


async def test_it_says_whether_the_next_chunk_lacks_frames() -> None:
    source = feed()
    said = [source.lacks]
    source.offer(0, frames(0, CHUNK))
    said.append(source.lacks)
    source.made(1, 0)
    said.append(source.lacks)
    source.finish()
    said.append(source.lacks)

    assert said == [True, False, True, False]


async def test_a_chunk_waits_for_its_last_frame() -> None:
    source = feed()
    source.offer(0, frames(0, CHUNK - 1))
    waiting = asyncio.ensure_future(source.latents(0))
    await asyncio.sleep(0)
    assert not waiting.done()

    source.offer(CHUNK - 1, frames(CHUNK - 1, 1))

    assert await waiting is not None


async def test_frames_that_cannot_be_taken_are_dropped_and_named() -> None:
    source = feed(ahead=2)
    assert source.offer(0, frames(0, 10)) == ()

    assert source.offer(8, frames(8, 4)) == (Dropped(8, 2, "late"),)
    assert source.offer(13, frames(13, 2)) == (Dropped(13, 2, "gap"),)
    assert source.offer(12, frames(12, 8)) == (Dropped(16, 4, "full"),)
    assert source.next_frame == source.until_frame == 16

    source.finish()
    assert source.offer(16, frames(16, 1)) == (Dropped(16, 1, "ended"),)


async def test_room_grows_as_chunks_are_made_and_never_shrinks() -> None:
    source = feed(ahead=2)
    source.offer(0, frames(0, 16))
    await source.latents(0)
    assert source.until_frame == 16

    source.made(next_chunk=1, first_rewindable=0)
    assert source.until_frame == 24
    source.made(next_chunk=0, first_rewindable=0)  # a change of prompt took the session back

    assert source.until_frame == 24


async def test_latents_are_kept_until_their_chunk_cannot_be_made_again() -> None:
    encoder = Numbers()
    source = feed(encoder)
    source.offer(0, frames(0, 3 * CHUNK))
    made = [await source.latents(chunk) for chunk in range(3)]

    assert await source.latents(1) is made[1]
    source.made(next_chunk=3, first_rewindable=2)

    assert await source.latents(2) is made[2]
    with pytest.raises(ValueError, match="chunk 1 of a source of which chunk 3 comes next"):
        await source.latents(1)
    assert len(encoder.seen) == 3


async def test_the_last_chunk_is_filled_only_once_the_session_cuts_it() -> None:
    encoder = Numbers()
    source = feed(encoder)
    source.offer(0, frames(0, CHUNK + 3))
    await source.latents(0)
    source.finish()

    assert await source.latents(1) is None
    assert (source.cut_to_end(), source.cut_to_end()) == (11, None)
    await source.latents(1)

    assert encoder.seen[1] == (1, [*range(11), *[10] * 5])
    assert await source.latents(2) is None


async def test_a_session_that_goes_on_asks_for_the_chunk_before_too() -> None:
    encoder = Numbers()
    source = feed(encoder, first_chunk=5)
    assert (source.first_frame, source.until_frame) == (4 * CHUNK, 9 * CHUNK)

    assert source.offer(4 * CHUNK, frames(4 * CHUNK, 2 * CHUNK)) == ()
    await source.latents(5)

    assert encoder.seen == [(5, [*range(32, 48)])]


async def test_two_legs_that_want_a_chunk_have_it_encoded_once() -> None:
    encoder = Numbers()
    encoder.gate = asyncio.Semaphore(0)
    source = feed(encoder)
    source.offer(0, frames(0, CHUNK))
    both = asyncio.gather(source.latents(0), source.latents(0))
    for _ in range(3):
        await asyncio.sleep(0)

    encoder.gate.release()
    encoder.gate.release()

    one, other = await both
    assert one is other
    assert len(encoder.seen) == 1


async def test_frames_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"frames must be uint8 of \(64, 64, 3\); got uint8 of \(32, 64, 3\)"):
        feed().offer(0, np.zeros((1, 32, 64, 3), np.uint8))
