"""Writes a whole session into one MP4."""

from __future__ import annotations

import errno
import logging
import tempfile
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from model_core.errors import StageUnavailable
from model_core.file_parts import Placement, placed
from model_core.media import FileBound, Mp4Writer
from model_core.tasks import run_in_thread
from model_core.types import FrameChunk
from service.call import FileTooLarge
from service.clock import Clock
from service.events import Ended, EndReason, Started, Usage
from service.sessions.session import ServedSession

# Written first, so that a disk that is full says so. Where PyAV 18 finds out with the file's header, it keeps the file open for ever.
_FIRST_BYTES = 64 * 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VideoFile:
    """The MP4, with what its session reported at start and end."""

    mp4: bytes
    started: Started
    ended: Ended


async def video_file(served: ServedSession, max_bytes: int, clock: Clock, placement: Placement | None = None) -> VideoFile:
    """The whole video as a file of at most `max_bytes`. Frames go to the encoder as they come, so memory does not grow with length.

    Args:
        placement: where pictures stand in the file; None where they are all of it.

    Raises:
        StageUnavailable: the disk is full, or the session ended early.
        FileTooLarge: the file is larger than `max_bytes`, even as small as the encoder can make it.
    """
    order = served.order
    usage = Usage.of(order.config)
    bound = FileBound(max_bytes, order.request.num_frames or 1)
    with room_for_files(), tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        path = Path(folder) / "video.mp4"
        path.write_bytes(bytes(_FIRST_BYTES))
        writer = Mp4Writer(path, order.config.fps, bound)

        def write(chunk: FrameChunk) -> None:
            frames = chunk.pixels()
            writer.write(frames if placement is None else placed(frames, placement))

        try:
            async with aclosing(served.session.events()) as events:
                async for event in events:
                    if isinstance(event, FrameChunk):
                        await run_in_thread(write, event)
                        usage = usage.plus(event)
                        served.meter.made(event, clock.now())
            served.check()
        finally:
            await run_in_thread(writer.close)
        if (size := path.stat().st_size) > max_bytes:
            raise FileTooLarge(size, max_bytes)
        mp4 = await run_in_thread(path.read_bytes)
    return VideoFile(mp4, Started.of(order.request, order.config, order.request.num_steps), Ended(EndReason.COMPLETED, usage))


@contextmanager
def room_for_files() -> Iterator[None]:
    """Turns a full disk, which is no defect and may be over soon, into StageUnavailable."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        log.error("no file can be written: %s", error)  # noqa: TRY400 - the sentence says it all
        raise StageUnavailable("the server has no room for the file") from error
