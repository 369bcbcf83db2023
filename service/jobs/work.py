"""What the table and the workers hand each other. Plain values.

A worker holds a job by a lease that it prolongs, and by a fence: a number that grows with each worker that begins the job. Every write of a
worker names its fence, so one that was away for too long changes nothing any more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_core.config import Media
from model_core.errors import HeadraceError
from model_core.quality.values import Quality
from service.events import Usage
from service.jobs.job import Job, Presentation, Webhook
from service.orders import Doorway, VideoRequest

if TYPE_CHECKING:
    from sqlalchemy import Connection


class LeaseLost(HeadraceError):
    """The job is no longer this worker's: its lease ran out, or the job is over. The worker stops, and removes what only it knows of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPolicy:
    """How long things stay, in seconds, and how often a job is tried.

    Attributes:
        ttl_s: from the end of a job until its files go and it is `expired`, where the caller asks for nothing else.
        max_ttl_s: the most that a caller may ask for.
        keep_s: from then until it is not found any more.
        max_queued_s: a job that no worker began or took up again by then fails.
        max_lost: workers that may die over one job, one after the other and without progress, before it fails.
    """

    ttl_s: float = 24 * 3600.0
    max_ttl_s: float = 30 * 24 * 3600.0
    keep_s: float = 24 * 3600.0
    max_queued_s: float = 3 * 24 * 3600.0
    max_lost: int = 3


@dataclass(frozen=True, slots=True)
class UploadRef:
    """An image or a video that came with the request.

    Attributes:
        key: as `JobFiles.put_upload` returned it.
    """

    kind: Media
    key: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where the next worker goes on.

    Attributes:
        parts: keys of the finished parts of the file, in order.
        record: key of the session's record, `SessionRecord.to_bytes`.
        next_frame: the first frame that no part has.
    """

    parts: tuple[str, ...]
    record: str
    next_frame: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedJob:
    """A job that a worker has begun.

    Attributes:
        job: as it is now: running.
        fence: names this worker in all that it writes.
        request: what to make: checked, with everything filled in that the caller left open; without its upload.
        doorway: how errors name the fields.
        checkpoint: None where no worker came so far before.
    """

    job: Job
    fence: int
    lease_until: float
    request: VideoRequest
    doorway: Doorway
    presentation: Presentation
    upload: UploadRef | None = None
    webhook: Webhook | None = None
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class Beat:
    """What a worker learns when it prolongs its lease.

    Attributes:
        cancelling: the caller wants no more of it: stop, and call `cancelled`.
        lost: the job is another worker's, or over: stop, and write nothing.
    """

    cancelling: bool = False
    lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The file of a completed job. `quality` is None where nobody measured it."""

    size_bytes: int
    sha256: str
    usage: Usage
    quality: Quality | None = None


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job that is over now, however it ended."""

    job: Job
    webhook: Webhook | None


Also = Callable[["Connection"], None]
"""More to write in the same transaction. It may run more than once; only one run counts."""

OnEnd = Callable[["Connection", EndedJob], None]
"""Called in the transaction that ends a job: whoever waits for the end is told of it in the same one, or not at all."""
