"""A finished file as an answer."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from starlette.responses import FileResponse, RedirectResponse, Response

from service.jobs.job import Content, JobNotFound

# Of a video inside an answer, of which there are two or three copies while it is written.
MOST_INLINE_BYTES = 32 * 1024 * 1024


async def content_response(content: Content, filename: str) -> Response:
    """The file itself, with ranges, or the way to the store that serves it.

    Raises:
        JobNotFound: it was deleted just now.
    """
    if content.path is None:
        return RedirectResponse(content.url, 302)
    found = await asyncio.to_thread(_stat, content.path)
    headers = {"etag": f'"{content.etag}"'}
    return FileResponse(
        content.path, headers=headers, media_type=content.media_type, filename=filename, stat_result=found,
        content_disposition_type="inline",
    )  # fmt: skip


async def content_bytes(content: Content, most: int = MOST_INLINE_BYTES) -> bytes | None:
    """The whole file; None where a store serves it, or it has more than `most` bytes.

    Raises:
        JobNotFound: it was deleted just now.
    """
    return None if content.path is None or content.size_bytes > most else await asyncio.to_thread(_read, content.path)


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError:
        raise JobNotFound("the file was deleted") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise JobNotFound("the file was deleted") from None
