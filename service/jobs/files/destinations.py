"""Buckets of callers, that finished videos are copied into."""

from __future__ import annotations

from typing import Protocol
from urllib.parse import urlsplit

from model_core.errors import HeadraceError
from service.jobs.files.render import RenderedFile
from service.jobs.job import Destination, Job


class DestinationRefused(HeadraceError):
    """The caller's bucket takes no files from this server."""


class Destinations(Protocol):
    """Writes into callers' buckets. That a caller may name a bucket is checked where its job is accepted."""

    async def deliver(self, job: Job, destination: Destination, file: RenderedFile) -> None:
        """Write the video, and what the layout has beside it. The last file says that all are there.

        Raises:
            DestinationRefused: the bucket does not take the files.
            StageUnavailable: it does not answer.
        """
        ...


def bucket_of(uri: str) -> tuple[str, str]:
    """Bucket and prefix of `s3://bucket/prefix`, the prefix without slashes at its ends. Raises ValueError: it is no such URI."""
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"must be s3://BUCKET/PREFIX; got {uri[:128]!a}")
    return parts.netloc, parts.path.strip("/")
