"""Jobs: videos made without anybody watching. Plain values that doors, table and worker share.

A job outlives the call that made it and the process that works on it. It moves one way:

    queued → running → completed | failed | cancelled        and any end → expired, once its time to live is over
    running → queued                                          its worker died; the next one goes on from its checkpoint
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from model_core.errors import FieldViolation
from model_core.quality.values import Quality
from service.events import Usage
from service.failures import Conflict, NotFound, NotReady
from service.orders import Doorway, VideoRequest


class JobStatus(Enum):
    """The value is what the table holds."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def over(self) -> bool:
        return self not in {JobStatus.QUEUED, JobStatus.RUNNING}


class Tier(Enum):
    """Which of the queued jobs goes first; all of them come after every live session."""

    PRIORITY = 0
    DEFAULT = 1
    FLEX = 2


class Variant(Enum):
    """What can be fetched of a completed job."""

    VIDEO = "video"
    THUMBNAIL = "thumbnail"
    SPRITESHEET = "spritesheet"


class JobNotFound(NotFound):
    """The caller's tenant has no such job. Another tenant's job is answered the same."""


class JobNotReady(NotReady):
    """The job has no content, since it is not completed."""


class IdempotencyConflict(Conflict):
    """The idempotency key was used before, for another request."""


@dataclass(frozen=True, slots=True)
class Presentation:
    """The size that the file has. Pictures are scaled to fit it, with black borders where the shape differs; 0 keeps the model's size."""

    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where the end of the job is reported, signed by `secret` as Standard Webhooks has it."""

    url: str
    secret: str = field(repr=False, default="")
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Destination:
    """A folder of the caller's bucket, `s3://bucket/prefix`, that the result is written to, besides the server's own artifacts.

    Attributes:
        uri: the folder. The job's id is appended as a folder of its own.
        owner: the AWS account that must own the bucket; empty for any.
        layout: which files are written: `bedrock` writes `output.mp4`, `manifest.json` and `generation-status.json`.
    """

    uri: str
    owner: str = ""
    layout: str = "bedrock"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job, as a door asks for it. Nothing is checked yet.

    Attributes:
        door: name of the door, for usage and audit.
        request: what to make. Its `codec` and `max_lead_seconds` do not count.
        doorway: how errors name the fields.
        shown: what the door wants back with the job, as JSON: the model's alias, the caller's size string and the like.
        idempotency_key: the same key and request make no second job; empty for none.
        labels: the caller's own.
        parent: id of the job that this one remixes, edits or extends; empty for none.
        ttl_s: how long the finished job and its files stay; None for the server's default.
    """

    door: str
    request: VideoRequest
    doorway: Doorway
    presentation: Presentation = Presentation()
    shown: Mapping[str, Any] = field(default_factory=dict)
    idempotency_key: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    webhook: Webhook | None = None
    destination: Destination | None = None
    tier: Tier = Tier.DEFAULT
    parent: str = ""
    ttl_s: float | None = None


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed. `code` is one of `invalid`, `unavailable`, `too_large`, `destination`, `internal`; the message holds no secret."""

    code: str
    message: str
    violations: tuple[FieldViolation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job, as it was when it was read. Times are Unix seconds.

    Attributes:
        id: 12 characters of [a-z0-9]; each door may put a prefix before it.
        model: the name of the model that makes it.
        prompt, seconds, seed: as checked; `seconds` is the video's length.
        width, height, fps: of the file.
        frames_done, frames_total: progress. It does not go back.
        cancelling: a cancel was asked for; the worker has not seen it yet.
        size_bytes, sha256: of the file of a completed job.
        usage: of a completed job.
        quality: of a completed job, if it was measured.
        attempts: workers that began it.
        maker: the token or ticket that made it; None for the tenant's own credentials.
        batch, batch_row: the batch that it came with, if any, and its place in it, from 0.
    """

    id: str
    tenant: str
    door: str
    status: JobStatus
    model: str
    prompt: str
    seconds: float
    seed: int
    steps: int
    width: int
    height: int
    fps: int
    created_at: float
    updated_at: float
    started_at: float | None = None
    ended_at: float | None = None
    expires_at: float | None = None
    frames_done: int = 0
    frames_total: int = 0
    cancelling: bool = False
    error: JobError | None = None
    size_bytes: int = 0
    sha256: str = ""
    usage: Usage | None = None
    quality: Quality | None = None
    attempts: int = 0
    parent: str = ""
    maker: str | None = None
    batch: str = ""
    batch_row: int = 0
    tier: Tier = Tier.DEFAULT
    shown: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    destination: Destination | None = None

    @property
    def progress(self) -> float:
        """From 0 to 1; 1 only when completed."""
        if self.status is JobStatus.COMPLETED:
            return 1.0
        return min(0.99, self.frames_done / self.frames_total) if self.frames_total else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuery:
    """Which jobs, newest first unless `ascending`.

    Attributes:
        after: id of the last job of the page before; empty for the first page.
        limit: jobs a page, 1 to 1000.
        statuses: empty for all but EXPIRED.
        door: empty for all.
        since, until: bounds of `created_at`.
    """

    after: str = ""
    limit: int = 20
    ascending: bool = False
    statuses: frozenset[JobStatus] = frozenset()
    door: str = ""
    batch: str = ""
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class JobPage:
    jobs: tuple[Job, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Content:
    """A finished file: `path` where it is on this node's disk, `url` where a store serves it by itself. One of them is set.

    Attributes:
        etag: of the content, without quotes.
        link: beside a `path`: below this server's URL, good for whoever holds it until it expires; needs no credential.
    """

    media_type: str
    size_bytes: int
    etag: str
    path: Path | None = None
    url: str = ""
    link: str = ""
