"""All tables of the database. Times are Unix seconds, JSON is text.

Text is never NULL but empty, except where NULL says that there is none and an index or a unique key depends on it.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

VERSION = 1
METADATA = MetaData()


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, server_default="")


def _maybe_text(name: str) -> Column[str]:
    return Column(name, Text, nullable=True)


def _integer(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default="0")


def _real(name: str) -> Column[float]:
    return Column(name, Double, nullable=False, server_default="0")


def _maybe_real(name: str) -> Column[float]:
    return Column(name, Double, nullable=True)


def _flag(name: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False, server_default=false())


def _id(name: str = "id") -> Column[str]:
    return Column(name, Text, primary_key=True)


def _partial(name: str, *columns: str, where: str) -> Index:
    """Met only by a statement that spells out `where`, as `literal_column` does; a bound parameter hides it from the planner."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


SCHEMA = Table("schema_version", METADATA, Column("version", Integer, primary_key=True))

JOBS = Table(
    "jobs",
    METADATA,
    _id(),
    _text("tenant"),
    _text("door"),
    _text("status"),
    _integer("tier"),
    _real("created_at"),
    _real("updated_at"),
    _maybe_real("started_at"),
    _maybe_real("ended_at"),
    _maybe_real("expires_at"),
    _text("model"),
    _text("prompt"),
    _real("seconds"),
    _text("seed"),  # 64 bits without a sign, which no integer column has
    _integer("steps"),
    _integer("width"),
    _integer("height"),
    _integer("fps"),
    _text("request"),  # JSON: what the worker needs; an upload is a file of the job
    _text("shown"),  # JSON
    _text("labels"),  # JSON
    _maybe_text("idempotency_key"),
    _text("request_hash"),
    _integer("frames_done"),
    _integer("frames_total"),
    _flag("cancelling"),
    _flag("deleted"),
    _maybe_text("error"),  # JSON
    _integer("size_bytes"),
    _text("sha256"),
    _maybe_text("usage"),  # JSON
    _maybe_text("quality"),  # JSON
    _integer("attempts"),
    _integer("lost"),  # leases that ran out since the last progress
    _integer("fence"),
    _text("worker"),
    _maybe_real("lease_until"),
    _real("not_before"),  # when it may be claimed
    _maybe_text("checkpoint"),  # JSON
    _text("parent"),
    _maybe_text("batch"),
    _integer("batch_row"),
    _maybe_text("destination"),  # JSON
    _maybe_text("webhook"),  # JSON
    _real("ttl_s"),
    _maybe_text("maker"),  # the token or ticket that made it; NULL for the tenant's own credentials
    _text("files"),  # what the store of artifacts may hold of it: all, result or none
    _maybe_real("due_at"),  # when the sweep has something to do about it
    UniqueConstraint("tenant", "door", "idempotency_key"),
    Index("jobs_by_tenant", "tenant", "created_at", "id", "door", "status"),
    _partial("jobs_queued", "tier", "tenant", "created_at", "id", where="status = 'queued'"),
    _partial("jobs_running", "tenant", where="status = 'running'"),
    _partial("jobs_due", "due_at", where="due_at IS NOT NULL"),
    _partial("jobs_by_batch", "batch", "batch_row", where="batch IS NOT NULL"),
)

KEYS = Table(
    "keys",
    METADATA,
    _id(),
    _text("tenant"),
    _text("name"),
    _text("prefix"),
    _text("secret_hmac"),
    _maybe_text("previous_hmac"),
    _maybe_real("previous_until"),
    _integer("version"),
    _real("created_at"),
    _maybe_real("expires_at"),
    _maybe_real("revoked_at"),
    _maybe_text("models"),  # JSON; NULL for all
    _text("buckets"),  # JSON
    _maybe_real("last_used_at"),
    Index("keys_by_tenant", "tenant"),
)

TENANTS = Table(
    "tenants",
    METADATA,
    _id("name"),
    Column("requests_per_minute", BigInteger, nullable=True),
    Column("parallel_sessions", BigInteger, nullable=True),
    Column("queued_jobs", BigInteger, nullable=True),
    _maybe_real("budget_seconds"),
    _real("spent_seconds"),
)

RESERVATIONS = Table(
    "reservations",
    METADATA,
    _id(),  # of the session or the job
    _text("tenant"),
    _text("kind"),  # session or job
    _real("seconds"),
    _real("created_at"),
    _maybe_real("expires_at"),
    Index("reservations_by_tenant", "tenant", "kind"),
)

LEDGER = Table(
    "ledger",
    METADATA,
    _text("source"),
    _integer("interval"),
    _text("tenant"),
    _text("door"),
    _text("model"),
    _text("tier"),
    _text("kind"),  # session or job
    _real("leg"),  # when the connection began that sent these frames
    _real("started_at"),
    _integer("frames"),
    _real("video_seconds"),
    _integer("pixels"),
    _integer("steps"),
    _real("text_seconds"),
    _real("denoise_seconds"),
    _real("decode_seconds"),
    _real("updated_at"),
    PrimaryKeyConstraint("source", "interval"),
    Index("ledger_by_time", "started_at"),
)

# Where each later connection of a session begins, so that a late write of an earlier one bills nothing twice.
LEDGER_LEGS = Table(
    "ledger_legs",
    METADATA,
    _text("source"),
    _real("leg"),
    _integer("first_frame"),
    PrimaryKeyConstraint("source", "leg"),
)

AUDIT = Table(
    "audit",
    METADATA,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    _real("at"),
    _text("tenant"),
    _text("subject"),
    _text("means"),
    _text("address"),
    _text("operation"),
    _text("resource"),
    _text("outcome"),
    _text("reason"),
    _text("request_id"),
    _text("detail"),  # JSON
    _text("previous"),
    _text("digest"),
)

# Where all jobs of a tenant are reported to.
ENDPOINTS = Table(
    "webhook_endpoints",
    METADATA,
    _id(),
    _text("tenant"),
    _text("url"),
    _text("secret"),
    _real("created_at"),
    Index("webhook_endpoints_by_tenant", "tenant"),
)

OUTBOX = Table(
    "outbox",
    METADATA,
    _id(),
    _text("kind"),  # webhook or usage
    _maybe_text("tenant"),  # of a webhook; NULL also where an earlier Headrace wrote it
    _text("body"),  # JSON
    _integer("attempts"),
    _real("next_at"),
    _maybe_real("done_at"),
    _real("created_at"),
    _partial("outbox_open", "kind", "next_at", where="done_at IS NULL"),
)

# Columns that tables of this version may lack, since an earlier Headrace made them. Each may be NULL: front doors that do not know of it go
# on beside those that do.
ADDED = (JOBS.c.quality, JOBS.c.maker, OUTBOX.c.tenant)
