"""How long an MP4 says that it is. It adds up numbers of the file's boxes, and decodes nothing."""

from __future__ import annotations

# A file has a handful of boxes at its top. One with more is read no further, so that nobody decides how long this takes.
_MOST_BOXES = 64
# Of version, flags and times before the time scale, in a header of 32-bit and of 64-bit times; and the bytes of the duration.
_BEFORE = {0: (12, 4), 1: (20, 8)}


def mp4_seconds(data: bytes) -> float | None:
    """What the movie's header says; None where there is no header, or it does not say."""
    movie = _box(data, 0, len(data), b"moov")
    header = None if movie is None else _box(data, *movie, b"mvhd")
    if header is None:
        return None
    start, end = header
    before, width = _BEFORE.get(data[start] if start < end else -1, (0, 0))
    if width == 0 or start + before + 4 + width > end:
        return None
    scale = int.from_bytes(data[start + before : start + before + 4])
    duration = int.from_bytes(data[start + before + 4 : start + before + 4 + width])
    return duration / scale if scale and duration else None


def _box(data: bytes, start: int, end: int, kind: bytes) -> tuple[int, int] | None:
    """Where the content of the first box of `kind` begins and ends."""
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return None
        size, header = int.from_bytes(data[start : start + 4]), 8
        if size == 1:  # the size is too large for its field, and follows
            size, header = int.from_bytes(data[start + 8 : start + 16]), 16
        elif size == 0:
            size = end - start
        if size < header or start + size > end:
            return None
        if data[start + 4 : start + 8] == kind:
            return start + header, start + size
        start += size
    return None
