"""Jobs of one front door, built of its settings: the desk that doors ask, the worker, the sweep, and the sender of webhooks."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments.config.addresses import is_loopback
from deployments.config.application import AppConfig
from deployments.config.jobs import ArtifactSettings, QualitySettings, S3Settings
from deployments.replicas.identity import Identity
from doors.http.openai.requests import DOOR as OPENAI
from doors.http.openai.videos import webhook_event
from doors.http.own.jobs import DOOR as OWN
from doors.http.own.jobs import webhook_event as own_event
from model_core.quality.aside import Aside
from model_core.tasks import cancel_and_wait
from observability.metrics import Metrics
from service.clock import Clock
from service.database.engine import Database
from service.identity.standings import Standings
from service.intake import Intake
from service.jobs.desk.drafts import JobChecks
from service.jobs.desk.table_desk import JobAudit, JobQuotas, TableDesk, no_audit
from service.jobs.files.artifacts import ArtifactFiles, Artifacts
from service.jobs.files.folder import FolderArtifacts
from service.jobs.table.counting import JobCounts, QueueGauge
from service.jobs.table.store import JobStore
from service.jobs.table.sweep import Sweep
from service.jobs.webhooks.endpoint_table import EndpointTable
from service.jobs.webhooks.notices import NoticeTable, NoticeWriter, Shape
from service.jobs.webhooks.posting import TargetPolicy
from service.jobs.webhooks.sender import WebhookSender
from service.jobs.work import ClaimedJob, EndedJob, JobPolicy, OnEnd
from service.jobs.worker.attempt import JobAttempt, WorkPolicy
from service.jobs.worker.billing import billing
from service.jobs.worker.quality import JobQuality, counted_by
from service.jobs.worker.worker import JobWorker
from service.ledger.books import Books
from service.ledger.interface import RowWriter
from service.sessions.runner import SessionRunner

if TYPE_CHECKING:
    from service.jobs.files.s3_destinations import S3Destinations

_ID_CHARS = "abcdefghijklmnopqrstuvwxyz0123456789"
_ID_LENGTH = 12
_SWEEP_EVERY_S = 30.0
_LOOK_EVERY_S = 15.0
# What callers of doors are told of jobs that ended, by the name of the door.
_SHAPES: dict[str, Shape] = {OWN: own_event, OPENAI: webhook_event}
# Of the time to drain, what a job gets to come to the end of its chunk and write its checkpoint.
_HAND_BACK_S = 5.0


class Jobs:
    """Everything about jobs in one front door; where nothing is given, there are none.

    Attributes:
        desk: for doors; None where there are no jobs.
        files: what signed links lead to; None where a store serves its files by itself.
        endpoints: webhooks of tenants; None where there are no jobs.
    """

    def __init__(
        self,
        desk: TableDesk | None = None,
        files: FolderArtifacts | None = None,
        endpoints: EndpointTable | None = None,
        worker: JobWorker | None = None,
        chores: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (),
        close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.desk = desk
        self.files = files
        self.endpoints = endpoints
        self._worker = worker
        self._chores = chores
        self._close = close
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def working(self) -> int:
        """Jobs that this front door works on."""
        return 0 if self._worker is None else self._worker.working

    def start(self) -> None:
        """Begin to work."""
        work = () if self._worker is None else (self._worker.run,)
        self._tasks = [asyncio.create_task(chore()) for chore in (*work, *self._chores)]

    async def drain(self, grace_s: float) -> None:
        """Give back what this front door works on, with checkpoints. The desk still answers."""
        if self._worker is not None:
            await self._worker.drain(min(grace_s, _HAND_BACK_S))

    async def aclose(self) -> None:
        """To be called before the database is closed."""
        await cancel_and_wait(*self._tasks)
        if self.desk is not None:
            await self.desk.aclose()
        if self._close is not None:
            await self._close()


async def jobs_of(
    config: AppConfig,
    database: Database | None,
    intake: Intake,
    runner: SessionRunner,
    clock: Clock,
    identity: Identity,
    books: Books,
    metrics: Metrics,
) -> Jobs:
    """The jobs of a front door. It has none where there is no database, or no place for files.

    Raises:
        OSError: the folder of artifacts cannot be used.
    """
    if database is None or (not config.artifacts.folder and config.artifacts.s3 is None):
        return Jobs()
    return await open_jobs(
        config, database, intake, runner, clock, books.table, metrics,
        shapes=_SHAPES, quotas=identity.job_limits, on_end=(identity.job_ended,), audit=books.append, standings=identity.standings,
    )  # fmt: skip


async def open_jobs(
    config: AppConfig,
    database: Database,
    intake: Intake,
    runner: SessionRunner,
    clock: Clock,
    ledger: RowWriter,
    metrics: Metrics,
    *,
    shapes: Mapping[str, Shape],
    quotas: JobQuotas | None = None,
    on_end: Sequence[OnEnd] = (),
    audit: JobAudit = no_audit,
    standings: Standings | None = None,
) -> Jobs:
    """Raises OSError: the folder of artifacts cannot be used."""
    settings, now = config.jobs, time.time
    artifacts = await asyncio.to_thread(_artifacts, config.artifacts)
    destinations = None if settings.destinations is None else await asyncio.to_thread(_destinations, settings.destinations)
    files = ArtifactFiles(artifacts, config.artifacts.link_seconds)
    notices = NoticeWriter(shapes, now)
    counted = metrics.jobs
    counts = JobCounts(counted)
    targets = _targets(config)
    endpoints = EndpointTable(database, targets, now, _new_id, _new_secret, audit)
    sender = WebhookSender(
        NoticeTable(database, now), targets, clock, now, counted=lambda outcome: counted.deliveries_total.labels(outcome).inc()
    )
    policy = JobPolicy(
        ttl_s=settings.ttl_seconds, max_ttl_s=settings.max_ttl_seconds, max_queued_s=settings.max_queued_seconds, max_lost=settings.max_lost
    )

    def ended(connection: Any, job: EndedJob) -> None:
        for each in (notices.on_end, counts.on_end, *on_end):
            each(connection, job)

    store = JobStore(database, policy, now, ended)
    work = WorkPolicy(lease_s=settings.lease_seconds, checkpoint_s=settings.checkpoint_seconds, most_jobs=settings.at_once)
    encoding = asyncio.Semaphore(settings.encoders)
    quality = _quality(settings.quality, metrics)

    def attempt(claimed: ClaimedJob) -> JobAttempt:
        return JobAttempt(claimed, intake, runner, artifacts, store, destinations, work, clock, encoding, quality)

    has_room = partial(runner.has_room, intake.catalogue.default)
    worker: JobWorker | None = None
    if settings.at_once:
        worker = JobWorker(_name(), store, has_room, attempt, files, billing(ledger, now), work, clock, now, begun=counts.begun)
        counted.running.set_function(partial(_working, worker))
    checks = JobChecks(intake.validator, policy, partial(secrets.randbits, 64))
    desk = TableDesk(
        database, files, checks, clock, now, _new_id, quotas=quotas, on_end=ended, audit=audit,
        counted=(standings or Standings(clock, now)).note,
        wake=_nothing if worker is None else worker.wake, cancelling=_nobody if worker is None else worker.look_at,
    )  # fmt: skip
    sweep = Sweep(database, files, policy, clock, now, ended)

    async def close() -> None:
        await artifacts.aclose()
        if destinations is not None:
            await destinations.aclose()

    linked = artifacts if isinstance(artifacts, FolderArtifacts) else None
    gauge = QueueGauge(database, counted, clock, now)
    return Jobs(desk, linked, endpoints, worker, (partial(sweep.run, _SWEEP_EVERY_S), partial(gauge.run, _LOOK_EVERY_S), sender.run), close)


def _working(worker: JobWorker) -> float:
    return worker.working


def _quality(settings: QualitySettings, metrics: Metrics) -> JobQuality | None:
    if not settings.share:
        return None
    return JobQuality(settings.share, settings.max_frames, Aside(settings.within_seconds), counted_by(metrics))


def _nothing() -> None:
    """Nobody is to be woken."""


def _nobody(_: str) -> None:
    """Nobody works on it here."""


def _new_id() -> str:
    return "".join(secrets.choice(_ID_CHARS) for _ in range(_ID_LENGTH))


def _new_secret() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


def _name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


def _artifacts(settings: ArtifactSettings) -> Artifacts:
    if settings.s3 is None:
        return FolderArtifacts(Path(settings.folder), time.time)
    from service.jobs.files.s3 import S3Artifacts, s3_client  # noqa: PLC0415 - S3 is a choice

    return S3Artifacts(s3_client(settings.s3.region, settings.s3.endpoint_url), settings.s3.bucket, settings.s3.prefix)


def _destinations(settings: S3Settings) -> S3Destinations:
    from service.jobs.files.s3 import s3_client  # noqa: PLC0415 - S3 is a choice
    from service.jobs.files.s3_destinations import S3Destinations  # noqa: PLC0415 - S3 is a choice

    return S3Destinations(s3_client(settings.region, settings.endpoint_url))


def _targets(config: AppConfig) -> TargetPolicy:
    """A front door that only this machine reaches may post to this machine."""
    own = ("127.0.0.0/8", "::1/128") if is_loopback(config.front_door.host) else ()
    networks = (*config.jobs.webhooks.allowed_networks, *own)
    return TargetPolicy(tuple(ipaddress.ip_network(network) for network in networks))
