"""The front-door replica: gRPC and HTTP servers of its own over a pipeline of remote stages, and a metrics endpoint."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from ray import serve
from ray.serve.handle import DeploymentHandle
from ray.util import get_node_ip_address

from autoscaling.capacity.estimate import CapacityEstimator
from autoscaling.capacity.profile import Capacity, DenoiseReplica
from autoscaling.reports import ControlStatistics, FrontDoorReport, flatten
from deployments.config.addresses import joined
from deployments.config.application import AppConfig, FrontDoorSettings, SessionStoreSettings
from deployments.config.tuning import Tuned
from deployments.links.remote import RemoteDecoder, RemoteDenoiser, RemoteTextEncoder
from deployments.links.source import SourceServer
from deployments.links.watching import OtherDoors, own_actor
from deployments.links.wishes import Only
from deployments.replicas.books import books
from deployments.replicas.http_door import http_doors, web_rtc
from deployments.replicas.identity import identity
from deployments.replicas.jobs import jobs_of
from deployments.replicas.metrics_port import Discovery, ReplicaMetrics, Target, announced, metrics_targets
from deployments.replicas.process import process_statistics, return_freed_memory
from deployments.replicas.scoreboard import Scoreboard
from deployments.replicas.state import database
from doors.grpc.certificates import TlsFiles
from doors.grpc.edge import RpcEdge
from doors.grpc.health import HealthReporter
from doors.grpc.oasis import room as oasis
from doors.grpc.oasis.room import OasisRoom, Unasked
from doors.grpc.server import GrpcRoom, GrpcServer
from doors.grpc.service import SERVICE_NAME, VideoService
from doors.grpc.triton import room as triton
from doors.grpc.triton.room import TritonRoom
from doors.http.room import Services
from model_core.fingerprint import model_fingerprint
from model_core.pipeline import VideoPipeline
from model_core.tasks import cancel_and_wait
from observability.logs import set_up_logs
from observability.metrics import Metrics
from observability.tracing import Tracing, span_exporter
from service.admission.capacity import CapacityMonitor
from service.admission.desk import AdmissionDesk
from service.clock import Clock, MonotonicClock
from service.doors import Doors
from service.health import HealthMonitor
from service.intake import Intake
from service.records.keeper import KeeperPolicy, SessionKeeper
from service.records.store import MemoryStore, SessionStore
from service.sessions.runner import SessionRunner
from service.watching.elsewhere import Batch
from service.watching.hub import Hub
from service.watching.show import Place
from service.watching.viewers import Viewers

_TOKEN_BYTES = 24
# Sessions at once where nothing is measured.
_UNLIMITED = 1_000_000


class FrontDoorReplica:
    """Serve places, watches and replaces it; clients reach it on its own port, without a proxy."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        config: AppConfig,
        text_encoder: DeploymentHandle[Any],
        denoiser: DeploymentHandle[Any],
        decoder: DeploymentHandle[Any],
        enhancer: DeploymentHandle[Any] | None = None,
    ) -> None:
        return_freed_memory()
        set_up_logs()
        settings = config.front_door
        timeouts_s = (config.open_timeout_seconds, config.call_timeout_seconds)
        idle = config.scale_to_zero
        encoder = RemoteTextEncoder(text_encoder, "text_encoder", *timeouts_s, config.footage_timeout_seconds)
        frames = RemoteDecoder(decoder, "decoder", *timeouts_s, may_be_idle=idle)
        metrics = Metrics(CollectorRegistry())

        model, clock = config.preset(), MonotonicClock()
        await asyncio.to_thread(model_fingerprint, model)  # which reads weights that are not pinned, once a process
        latents = RemoteDenoiser(denoiser, "denoiser", *timeouts_s, may_be_idle=idle)
        self._desk, capacity = _admission(config, metrics, clock, latents, frames)
        self._keeper = session_keeper(config.session_store, metrics, clock)
        keep_chunks = config.session_store.keep_chunks(model)
        tracing = config.tracing
        self._tracing = Tracing(span_exporter(tracing.exporter, tracing.file, tracing.endpoint), tracing.sample)
        self._sources = await SourceServer.started(config.link_host or get_node_ip_address())
        pipelines = {
            model.name: VideoPipeline(
                model, encoder, frames, config.reopen.policy(), keep_chunks, self._sources, _enhanced(config, enhancer)
            )
        }
        self._database = await database(config)
        self._identity = identity(config.identity, self._database, clock)
        self._books = books(config, self._database, metrics, clock)
        self._hub = Hub(settings.watch.limits(settings.drain_seconds), clock, OtherDoors(_front_doors(), own_actor()), metrics.watchers.set)
        self._runner = SessionRunner(
            pipelines, self._desk, self._keeper, settings.limits, metrics, clock, self._identity.quotas, ledger=self._books.ledger,
            audit=self._books.audit, hub=self._hub,
        )  # fmt: skip
        viewers = Viewers(self._hub, metrics, self._books.audit)
        new_id = partial(secrets.token_hex, 8)
        intake = Intake(
            pipelines, model.name, settings.limits, self._keeper, new_id, partial(secrets.randbits, 64), config.alias_table(),
            config.jobs.max_seconds,
        )  # fmt: skip
        self._jobs = await jobs_of(config, self._database, intake, self._runner, clock, self._identity, self._books, metrics)
        authority, denials = self._identity.authority, self._books.denials
        service = VideoService(intake, self._runner, RpcEdge(SERVICE_NAME, metrics, new_id, self._tracing, authority, denials), viewers)
        probes = {
            "text_encoder": encoder.ping,
            "denoiser": latents.ping,
            "decoder": frames.ping,
        }
        monitor = HealthMonitor(probes, settings.probe_period_seconds, settings.probe_timeout_seconds)
        address, reporter = joined(settings.host, settings.port), HealthReporter(monitor, (SERVICE_NAME,))
        tls = await asyncio.to_thread(_tls, config)
        rooms: list[GrpcRoom] = [
            TritonRoom(
                intake, self._runner, RpcEdge(triton.SERVICE_NAME, metrics, new_id, self._tracing, authority, denials),
                lambda: monitor.health.ready, clock, new_id,
            ),
            OasisRoom(
                intake, self._runner, RpcEdge(oasis.SERVICE_NAME, metrics, new_id, self._tracing, Unasked()), authority, clock,
                partial(secrets.token_urlsafe, _TOKEN_BYTES), denials=denials,
            ),
        ]  # fmt: skip
        grpc_server = GrpcServer(service, reporter, address, tls, with_reflection=settings.reflection, rooms=rooms)
        public_url = settings.http.public_url
        services = Services(
            intake=intake, runner=self._runner, jobs=self._jobs.desk, authority=authority, public_url=public_url, links=self._jobs.files,
            batches=self._jobs.desk, denials=denials, standings=self._identity.standings, endpoints=self._jobs.endpoints, viewers=viewers,
            webrtc=web_rtc(config),
        )  # fmt: skip
        http = http_doors(config, services, monitor, metrics, self._tracing, new_id)
        self._doors = Doors([grpc_server, *http], self._runner, monitor)
        self._scoreboard = Scoreboard(metrics)
        self._terms = config.terms()
        measured = config.admission.mode == "measured"
        self._tuned = Tuned(time.time, self._desk.set_tenants if measured else lambda _: None)
        self._drain_s = settings.drain_seconds
        self._draining: asyncio.Task[None] | None = None
        self._metrics = _replica_metrics(metrics, settings, text_encoder, denoiser, decoder, *_apart(config, enhancer))
        await self._doors.start()
        self._books.start()
        self._jobs.start()
        self._measuring = None if capacity is None else asyncio.create_task(capacity.run())

    async def statistics(self) -> dict[str, float]:
        """A `FrontDoorReport`, flat."""
        return flatten(replace(self._report(), process=process_statistics()))

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What the scaling policy goes by: a `FrontDoorReport`, flat, and the scaling settings beside it."""
        return flatten(self._report()) | self._tuned.numbers

    def _report(self) -> FrontDoorReport:
        admission = self._desk.statistics()
        seen, runner = self._scoreboard.read(admission.arrivals), self._runner
        return FrontDoorReport(admission, seen, self._terms, runner.open_sessions, enhanced=runner.enhanced_sessions)

    async def reconfigure(self, user_config: object) -> None:
        """Serve calls this with `user_config` after the start, and again whenever it has changed; nothing else of the replica changes.

        Raises:
            ValueError: as `Tuned.take`.
        """
        self._tuned.take(user_config)

    async def metrics_target(self) -> Target:
        """Where Prometheus reads this replica."""
        return self._metrics.target()

    async def shows(self, token: str) -> str:
        """This replica's actor, where the session of `token` runs here and may be watched; else empty."""
        return own_actor() if self._hub.has(token) else ""

    async def shown(self, token: str, place: Place | None, _: Only) -> Batch | None:
        """What a session that runs here has shown since `place`, for another front door. See `service.watching.elsewhere.Source`."""
        return await self._hub.after(token, place)

    async def leaves(self, tokens: list[str]) -> None:
        """Sessions of another front door that shuts down. See `service.watching.elsewhere.Elsewhere.leaving`."""
        self._hub.expect(tokens)

    async def drain(self) -> None:
        """Refuse new sessions, let running ones play on for `drain_seconds`, stop. Every caller waits for the one drain."""
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        await asyncio.shield(self._draining)

    async def _drain(self) -> None:
        await asyncio.gather(self._doors.drain(self._drain_s), self._jobs.drain(self._drain_s))

    async def __del__(self) -> None:
        """Serve awaits this when the replica stops. It does not see our calls as ongoing requests, so they are drained here."""
        await self.drain()
        await self._jobs.aclose()
        await self._identity.aclose()
        await self._books.aclose()
        if self._database is not None:
            await self._database.close()
        await self._keeper.aclose()
        await self._sources.aclose()
        if self._measuring is not None:
            await cancel_and_wait(self._measuring)
        await asyncio.to_thread(self._metrics.close)
        await asyncio.to_thread(self._tracing.close)


def _enhanced(config: AppConfig, handle: DeploymentHandle[Any] | None) -> RemoteDecoder | None:
    """It is not among the probes: one that is away is missed by those who ask for it alone, and mostly it sleeps."""
    timeouts_s = (config.open_timeout_seconds, config.call_timeout_seconds)
    return None if handle is None else RemoteDecoder(handle, "enhancer", *timeouts_s, may_be_idle=True)


def _apart(config: AppConfig, enhancer: DeploymentHandle[Any] | None) -> list[DeploymentHandle[Any]]:
    """The enhancer, where it is a deployment of its own."""
    return [] if enhancer is None or config.mode != "staged" else [enhancer]


def session_keeper(settings: SessionStoreSettings, metrics: Metrics, clock: Clock) -> SessionKeeper:
    """What writes sessions down as `settings` say."""
    store: SessionStore
    if settings.url:
        from service.records.redis import RedisStore  # noqa: PLC0415 - Redis is a choice

        store = RedisStore(settings.url, settings.timeout_seconds, _password(settings.password_variable))
    else:
        store = MemoryStore(settings.memory_bytes, clock)
    policy = KeeperPolicy(ttl_s=settings.ttl_seconds, write_every_s=settings.write_every_seconds, timeout_s=settings.timeout_seconds)
    return SessionKeeper(store, policy, metrics, clock, new_token=lambda: secrets.token_urlsafe(_TOKEN_BYTES))


def _password(variable: str) -> str | None:
    """Read where the replica starts. Raises ValueError: it is not there."""
    if not variable:
        return None
    if not (password := os.environ.get(variable)):
        raise ValueError(f"session_store.password_variable must name a variable of the front doors' environment; {variable} is not set")
    return password


def _admission(
    config: AppConfig, metrics: Metrics, clock: Clock, denoiser: RemoteDenoiser, decoder: RemoteDecoder
) -> tuple[AdmissionDesk, CapacityMonitor | None]:
    """The desk, and what keeps it told of the capacity, if the configuration wants that measured."""
    settings, preset = config.admission, config.preset()

    def show(statistics: ControlStatistics) -> None:
        metrics.sessions_live.set(statistics.live)
        metrics.sessions_waiting.set(statistics.waiting)
        metrics.sessions_degraded.set(statistics.degraded)
        metrics.brownout_level.set(statistics.level)
        metrics.capacity_sessions.set(statistics.capacity)

    budget_s = settings.utilisation * preset.chunk_seconds
    estimator = CapacityEstimator(budget_s, config.front_door.max_sessions, config.engine.slots, config.terms().decode_slots or None)
    unlimited = Capacity((DenoiseReplica(_UNLIMITED),), budget_s, _UNLIMITED)
    policy = settings.policy(preset)
    if settings.mode == "none":
        return AdmissionDesk(policy, unlimited, clock, random.random, show), None
    desk = AdmissionDesk(policy, estimator.capacity, clock, random.random, show)
    period_s = config.front_door.probe_period_seconds
    return desk, CapacityMonitor(denoiser.reports, decoder.reports, estimator, desk, period_s)


def _tls(config: AppConfig) -> TlsFiles | None:
    """Raises OSError: a file cannot be read, or ssl.SSLError: certificate and key do not belong together."""
    tls, clients = config.front_door.tls, config.identity.certificates
    if tls is None:
        return None
    return TlsFiles(Path(tls.certificate_file), Path(tls.key_file), None if clients is None else Path(clients.ca_file))


def _front_doors() -> DeploymentHandle[Any]:
    """All of them, this replica among them."""
    me = serve.get_replica_context()
    return serve.get_deployment_handle(me.deployment, me.app_name)


def _replica_metrics(metrics: Metrics, settings: FrontDoorSettings, *stages: DeploymentHandle[Any]) -> ReplicaMetrics:
    """The configured port belongs to the first front door on a node. Each of them knows where all replicas are, the front doors too."""
    handles = (*stages, _front_doors())
    discovery = Discovery([metrics_targets(handle) for handle in handles], announced, metrics.replicas_answering)
    targets = discovery.from_thread(asyncio.get_running_loop())
    return ReplicaMetrics(metrics.registry, settings.metrics_host, settings.metrics_port, targets)
