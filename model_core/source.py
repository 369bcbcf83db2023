"""The source of a session that restyles one: frames in, latents of whole chunks out, in order, within bounds.

Frame n of the source becomes frame n of the session. So frames have to come in order and without gaps, and what cannot be taken is dropped
and said aloud. A chunk's latents are a function of its own frames and of a few before them, so they can be made again from the same frames
anywhere. They belong to the log of the session: they are kept for as long as their chunk may have to be made again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model_core.config import ModelConfig
from model_core.stages.sources import SourceEncoder, Sources
from model_core.types import Latents, Restyle, SourceFootage

AHEAD_CHUNKS = 4


@dataclass(frozen=True, slots=True)
class Dropped:
    """Frames that were not taken.

    Attributes:
        first_frame, frames: as they were numbered.
        reason: `late`: those frames are there already. `gap`: frames before them are not. `full`: as many wait as may. `ended`: the source
            has ended.
    """

    first_frame: int
    frames: int
    reason: Literal["late", "gap", "full", "ended"]


@dataclass(frozen=True, slots=True)
class Fitting:
    """Of some frames: so many are skipped, so many are taken after those, and what is `dropped` of all."""

    skipped: int
    taken: int
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True, slots=True)
class Restyling:
    """What restyled sessions need beside the stages.

    Attributes:
        encoder: makes latents of frames.
        sources: where the denoise stage finds them.
        ahead_chunks: of a source that may be there before the session has made them.
    """

    encoder: SourceEncoder
    sources: Sources
    ahead_chunks: int = AHEAD_CHUNKS


class SourceFeed:
    """A `Source` that is fed with frames. Use it from one event loop.

    Attributes:
        first_chunk: the first chunk that it can have latents of.
        first_frame: the first frame that it needs: those before the first chunk belong to its context.
        restyle: what the contexts of legs say of it while it is offered.

    Args:
        config: the model.
        restyling: what makes its latents, and its bounds.
        strength: see `Restyle`.
        first_chunk: the first chunk that the session makes.
        numerics: of the text stage that embedded the session's prompt.
    """

    def __init__(self, config: ModelConfig, restyling: Restyling, strength: float, first_chunk: int = 0, numerics: str = "") -> None:
        self.strength, self.first_chunk = strength, first_chunk
        self.restyle: Restyle | None = None
        self._config, self._grid = config, config.grid
        self._restyling = restyling
        self._numerics = numerics
        self._done = first_chunk  # chunks that the session has made, at most
        self._encoded = first_chunk  # chunks whose latents were made
        self._held_from = self.first_frame = self._context_from(first_chunk)
        self._frames: list[NDArray[np.uint8]] = []
        self._latents: dict[int, Latents] = {}
        self._end: int | None = None
        self._padded = False
        self._changed = asyncio.Event()
        self._encoding = asyncio.Lock()

    # -- what comes in --------------------------------------------------------------------------------------------------------

    @property
    def next_frame(self) -> int:
        """The frame that has to come next."""
        return self._held_from + len(self._frames)

    @property
    def until_frame(self) -> int:
        """Frames before this one may come now."""
        chunks = self._grid.chunks
        ahead = self._done + self._restyling.ahead_chunks
        return self._grid.first_frame(ahead if chunks is None else min(ahead, chunks))

    @property
    def end(self) -> int | None:
        """How many frames it has; None as long as it goes on."""
        return self._end

    @property
    def lacks(self) -> bool:
        """Whether frames of the chunk that the session makes next have not come yet, and may come."""
        return self._end is None and self.next_frame < self._grid.first_frame(self._done + 1)

    def fitting(self, first_frame: int, count: int, coming: int = 0) -> Fitting:
        """What would be taken of `count` frames, of which the first is number `first_frame`, once the next `coming` frames are taken."""
        if self._end is not None:
            return Fitting(0, 0, (Dropped(first_frame, count, "ended"),))
        expected = self.next_frame + coming
        if first_frame > expected:
            return Fitting(0, 0, (Dropped(first_frame, count, "gap"),))
        late = min(count, expected - first_frame)
        taken = max(0, min(count - late, self.until_frame - expected))
        beyond = count - late - taken
        dropped = (Dropped(first_frame, late, "late"), Dropped(first_frame + late + taken, beyond, "full"))
        return Fitting(late, taken, tuple(part for part in dropped if part.frames))

    def take(self, frames: NDArray[np.uint8]) -> None:
        """Take `frames` `[N, H, W, 3]`, which are the next ones and fit.

        Raises:
            ValueError: they are not of the size that is served.
        """
        size = (self._config.height, self._config.width, 3)
        if frames.dtype != np.uint8 or frames.shape[1:] != size:
            raise ValueError(f"frames must be uint8 of {size}; got {frames.dtype} of {frames.shape[1:]}")
        self._frames.extend(frames)
        self._changed.set()

    def offer(self, first_frame: int, frames: NDArray[np.uint8]) -> tuple[Dropped, ...]:
        """Take what fits of `frames` `[N, H, W, 3]`, of which the first is number `first_frame`. Returns the rest. Raises as `take`."""
        fitting = self.fitting(first_frame, len(frames))
        self.take(frames[fitting.skipped : fitting.skipped + fitting.taken])
        return fitting.dropped

    async def room(self) -> int:
        """How many frames may come now: at least one, for which it waits."""
        while (room := self.until_frame - self.next_frame) <= 0:
            self._changed.clear()
            await self._changed.wait()
        return room

    def finish(self) -> None:
        """No more frames come."""
        if self._end is None:
            self._end = self.next_frame
            self._changed.set()

    # -- what the session tells it --------------------------------------------------------------------------------------------

    @contextmanager
    def offered(self) -> Iterator[None]:
        """Within, the denoise stage can dial it."""
        offer = self._restyling.sources.offer(self)
        self.restyle = Restyle(self.strength, offer)
        try:
            yield
        finally:
            self._restyling.sources.withdraw(offer)
            self.restyle = None

    def cut_to_end(self) -> int | None:
        """Where the source has ended, the first time that the session learns of it; else None.

        From then on the session cuts its last chunk, and what lacks in that chunk repeats the last frame.
        """
        if self._end is None or self._padded:
            return None
        self._padded = True
        return self._end

    def made(self, next_chunk: int, first_rewindable: int) -> None:
        """The session has made the chunks before `next_chunk`, and will make none before `first_rewindable` again."""
        self._done = max(self._done, next_chunk)
        self._changed.set()
        for chunk in [held for held in self._latents if held < first_rewindable]:
            del self._latents[chunk]

    # -- what goes out --------------------------------------------------------------------------------------------------------

    async def latents(self, chunk: int) -> Latents | None:
        """See `Source.latents`. Chunks are asked for in order, and again from where a leg begins.

        Raises:
            StageUnavailable: the text stage stayed away.
            ValueError: the chunk is not kept any more, or chunks before it were not asked for.
        """
        while chunk not in self._latents:
            if chunk != self._encoded:
                raise ValueError(f"chunk {chunk} of a source of which chunk {self._encoded} comes next")
            if (frames := self._footage(chunk)) is not None:
                await self._encode(SourceFootage(chunk, frames))
            elif self._end is not None:
                return None
            else:
                self._changed.clear()
                await self._changed.wait()
        return self._latents[chunk]

    async def _encode(self, footage: SourceFootage) -> None:
        """Once, although a leg that ends and the next one may both want it."""
        async with self._encoding:
            if footage.chunk == self._encoded:
                self._latents[footage.chunk] = await self._restyling.encoder.encode_source(footage, self._numerics)
                self._encoded += 1
                self._forget(self._context_from(self._encoded))

    def _footage(self, chunk: int) -> NDArray[np.uint8] | None:
        """The frames that `chunk` is made from, if they are there."""
        first, after = self._grid.first_frame(chunk), self._grid.first_frame(chunk + 1)
        lacking = after - self.next_frame
        if lacking > 0 and not (self._padded and self._end is not None and first < self._end):
            return None
        frames = self._frames[self._context_from(chunk) - self._held_from : after - self._held_from]
        return np.stack([*frames, *[frames[-1]] * lacking])

    def _context_from(self, chunk: int) -> int:
        return max(0, self._grid.first_frame(chunk) - self._config.source_context)

    def _forget(self, before: int) -> None:
        """Frames of which no chunk will be made. At least one stays, for a last chunk that repeats it."""
        count = max(0, min(before - self._held_from, len(self._frames) - 1))
        del self._frames[:count]
        self._held_from += count
