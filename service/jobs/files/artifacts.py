"""Files of jobs: where they are kept, what they are called, and what the table and the doors ask about them.

A key is a path of plain names, such as `jobs/4k2jx09a7bqe/3/part-0-48`: the job, the fence of the claim that made the file, the file. Two
workers that both believe they have a job never write to one key. A result is called by its own hash, which the job's row says once it is
completed; so which files count is said by the row alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from model_core.errors import HeadraceError
from service.jobs.job import Content, Job, JobNotReady, Variant

_KEY = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}(/[a-z0-9][a-z0-9._-]{0,127}){0,7}")
_ROOT = "jobs/"
_RESULT = "result"
_AT_ONCE = 1000

_FILES: dict[Variant, tuple[str, str]] = {
    Variant.VIDEO: ("video.mp4", "video/mp4"),
    Variant.THUMBNAIL: ("thumbnail.webp", "image/webp"),
    Variant.SPRITESHEET: ("spritesheet.jpg", "image/jpeg"),
}


class ArtifactMissing(HeadraceError):
    """There is no file of that key."""


def checked_key(key: str) -> str:
    """`key`, if it is one. Raises ValueError: it is none; no path outside the store can be named."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"must be plain names with slashes between them; got {key[:64]!a}")
    return key


def is_key(key: str) -> bool:
    return _KEY.fullmatch(key) is not None


def working_key(job_id: str, fence: int, name: str) -> str:
    """Of a file that the claim `fence` needs on the way; 0 for what came with the request."""
    return f"{_ROOT}{job_id}/{fence}/{name}"


def result_key(job_id: str, sha256: str, variant: Variant) -> str:
    """Of a file that callers fetch. `sha256` is the video's."""
    return f"{_ROOT}{job_id}/{_RESULT}/{sha256}/{_FILES[variant][0]}"


@dataclass(frozen=True, slots=True)
class Stored:
    """A file in the store. `changed_at` is Unix time."""

    key: str
    size_bytes: int
    changed_at: float


@dataclass(frozen=True, slots=True)
class Located:
    """A file, and where it can be fetched until some moment: `path` on this node's disk and `link` below the server's URL, or `url`."""

    size_bytes: int
    path: Path | None = None
    link: str = ""
    url: str = ""


class Artifacts(Protocol):
    """A store of files. All methods raise StageUnavailable where it is away or full."""

    async def put(self, key: str, data: bytes | Path) -> None:
        """Keep `data`, or the file at that path, under `key`. It is there whole or not at all, and on disk when this returns."""
        ...

    async def read(self, key: str) -> bytes:
        """Raises ArtifactMissing."""
        ...

    async def locate(self, key: str, media_type: str, seconds: float) -> Located:
        """Where to fetch it from for so long. Raises ArtifactMissing."""
        ...

    async def listed(self, prefix: str) -> list[Stored]:
        """All whose keys begin with `prefix`, which ends in a slash."""
        ...

    async def delete(self, keys: Collection[str]) -> None:
        """Files that are gone already are no error."""
        ...

    async def aclose(self) -> None: ...


class ArtifactFiles:
    """Files of jobs, as the table asks for them.

    Args:
        artifacts: where they are.
        link_s: how long a link to one is good.
    """

    def __init__(self, artifacts: Artifacts, link_s: float = 3600.0) -> None:
        self._artifacts = artifacts
        self._link_s = link_s

    async def put_upload(self, job_id: str, data: bytes) -> str:
        """Keep what came with a request. Returns its key."""
        key = working_key(job_id, 0, "upload")
        await self._artifacts.put(key, data)
        return key

    async def content(self, job: Job, variant: Variant) -> Content:
        """A file of a completed job. Raises JobNotReady: there is no such file any more."""
        _, media_type = _FILES[variant]
        try:
            found = await self._artifacts.locate(result_key(job.id, job.sha256, variant), media_type, self._link_s)
        except ArtifactMissing:
            raise JobNotReady(f"job {job.id} has no {variant.value} any more") from None
        etag = job.sha256[:32] if variant is Variant.VIDEO else f"{job.sha256[:32]}-{variant.value}"
        return Content(media_type, found.size_bytes, etag, found.path, found.url, found.link)

    async def remove(self, job_id: str, *, keep_result: bool = False) -> None:
        """Remove all files of a job, or all but its result. Files that are gone already are no error."""
        await self._remove(job_id, f"{_ROOT}{job_id}/{_RESULT}/" if keep_result else None)

    async def keep_only(self, job_id: str, sha256: str) -> None:
        """Remove all files of a completed job but its result, of which `sha256` is the video's."""
        await self._remove(job_id, f"{_ROOT}{job_id}/{_RESULT}/{sha256}/")

    async def unchanged_since(self, before: float) -> Sequence[str]:
        """Some ids, 1000 at most, of jobs none of whose files changed after `before`, a Unix time."""
        newest: dict[str, float] = {}
        for file in await self._artifacts.listed(_ROOT):
            job_id = file.key.removeprefix(_ROOT).partition("/")[0]
            newest[job_id] = max(file.changed_at, newest.get(job_id, file.changed_at))
        return sorted((job_id for job_id, changed_at in newest.items() if changed_at <= before), key=newest.__getitem__)[:_AT_ONCE]

    async def _remove(self, job_id: str, keep: str | None) -> None:
        files = await self._artifacts.listed(f"{_ROOT}{job_id}/")
        await self._artifacts.delete([file.key for file in files if keep is None or not file.key.startswith(keep)])
