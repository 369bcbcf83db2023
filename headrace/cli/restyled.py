"""A video file as the source of a session: its frames at the model's rate and size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.cli.console import bad_input

if TYPE_CHECKING:
    from model_core.media import Frames
    from model_core.source import SourceFeed

SOURCE_HELP = "Video to restyle under the prompt."
STRENGTH_HELP = "How much of the source the prompt may change: above 0, at most 1."
DEFAULT_STRENGTH = 0.5


def frames(option: str, path: Path, width: int, height: int, fps: int) -> Iterator[Frames]:
    """Each `[H, W, 3]`.

    Raises:
        Failure: the file is no video that can be decoded.
    """
    from model_core.video_file import NoVideo, frames_of

    try:
        yield from frames_of(path, height, width, fps)
    except NoVideo as error:
        raise bad_input(option, f"must be a video that can be decoded; got {str(path)!r}: {error}") from None


async def one_by_one(frames: Iterator[Frames]) -> AsyncGenerator[Frames, None]:
    """The same, decoded in a thread."""
    last = object()
    while (frame := await asyncio.to_thread(next, frames, last)) is not last:
        yield frame  # type: ignore[misc]  # it is not the sentinel


async def feed(source: SourceFeed, frames: Iterator[Frames]) -> None:
    """Give a session of this process all of `frames`, as fast as it takes them. Raises as `frames`; the source ends in any case."""
    import numpy as np

    try:
        number = 0
        async for frame in one_by_one(frames):
            await source.room()
            source.offer(number, np.asarray(frame)[None])
            number += 1
    finally:
        source.finish()
