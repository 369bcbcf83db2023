"""What the rest of the service needs of usage and of the audit log. Plain values and protocols; knows no database.

Usage is written in rows. A session's row covers a stretch of its frames, and a job has one row. A row is written again and again while it
grows, always as a whole, so that a repeated write bills nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Protocol, TypeVar

from service.identity.principal import NOBODY, Principal

if TYPE_CHECKING:
    from sqlalchemy import Connection

T = TypeVar("T")


class Kind(Enum):
    """What a row is of. The value is what the table holds."""

    SESSION = "session"
    JOB = "job"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """What one stretch of a session, or one whole job, used. Only frames that the caller keeps count.

    Attributes:
        source: id of the session or the job.
        interval: the first frame that the row covers; 0 for a job. The row is known by `source` and `interval`.
        tier: class of service: `live` or `unpaced` for a session, a job's tier for a job.
        leg: Unix time at which the connection began that sent these frames; 0 for a job. Of two connections of one session, the later
            one is right.
        started_at: Unix time at which the first of these frames was made.
        pixels: that the model rendered, whatever the size of the file.
        steps: denoise steps, summed over the chunks.
        text_seconds, denoise_seconds, decode_seconds: device time of each stage.
    """

    source: str
    interval: int = 0
    tenant: str
    door: str
    model: str
    tier: str
    kind: Kind
    leg: float = 0.0
    started_at: float
    frames: int
    video_seconds: float
    pixels: int
    steps: int
    text_seconds: float = 0.0
    denoise_seconds: float = 0.0
    decode_seconds: float = 0.0


class Ledger(Protocol):
    """Takes usage from running sessions. It does not wait, and does not raise: a ledger that is away ends no stream."""

    def record(self, row: UsageRow) -> None:
        """Write `row` soon. A newer row with the same source and interval replaces it."""
        ...

    def resumed(self, source: str, frame: int, leg: float) -> None:
        """A later connection sends the session from `frame` on. What earlier ones sent from there on is billed no more."""
        ...


class NoLedger:
    """For a server without a database."""

    def record(self, row: UsageRow) -> None: ...

    def resumed(self, source: str, frame: int, leg: float) -> None: ...


class Transactions(Protocol):
    """The database, as writers see it. Raises StageUnavailable where it stays away."""

    async def run(self, work: Callable[[Connection], T], *, write: bool = True) -> T:
        """What `work` returns, in one transaction. It may be called again where the first try was lost."""
        ...


class RowWriter(Protocol):
    """Writes rows in a transaction of the caller's, as when a job is completed."""

    def write(self, connection: Connection, rows: Sequence[UsageRow], now: float) -> None: ...


class Outcome(Enum):
    """How an operation ended, for the audit log."""

    ALLOWED = "allowed"
    DENIED = "denied"  # the caller is not who it says, or may not do this
    FAILED = "failed"


Detail = Mapping[str, str | int | float | bool | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Who did what, and how it ended. It holds no prompt, no media and no secret.

    Attributes:
        operation: `key.create`, `job.submit`, `authenticate` and the like.
        outcome: how it ended.
        principal: who; NOBODY for a caller that is not known.
        address: of the peer.
        resource: what it was done to: an id or a name.
        reason: why it was denied or failed, in a sentence.
        request_id: by which the log of the server names the call.
        detail: what changed, as flat values.
        at: Unix time; None for when the entry is taken.
    """

    operation: str
    outcome: Outcome = Outcome.ALLOWED
    principal: Principal = NOBODY
    address: str = ""
    resource: str = ""
    reason: str = ""
    request_id: str = ""
    detail: Detail = field(default_factory=dict)
    at: float | None = None

    def taken_at(self, now: float) -> AuditEntry:
        """With the time, where it has none."""
        return self if self.at is not None else replace(self, at=now)


class Audit(Protocol):
    """The audit log, as doors and desks use it. It does not wait, and does not raise."""

    def note(self, entry: AuditEntry) -> None:
        """Write `entry` soon."""
        ...


class NoAudit:
    """For a server without a database."""

    def note(self, entry: AuditEntry) -> None: ...


class AuditAppender(Protocol):
    """Appends entries in a transaction of the caller's, so that a change and its entry are written together or not at all."""

    def append(self, connection: Connection, entries: Sequence[AuditEntry]) -> None: ...
