"""The real HTTP door over fake stages, on a loopback port, with a client to call it."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
from prometheus_client import CollectorRegistry

from autoscaling.admission.brownout import BrownOutConfig
from autoscaling.admission.decide import AdmissionConfig
from autoscaling.capacity.profile import Capacity, DenoiseReplica
from doors.http.app import rooms
from doors.http.edge import HttpEdge
from doors.http.guard import Guards
from doors.http.options import HttpOptions
from doors.http.room import Room, Services
from doors.http.server import HttpServer
from doors.http.webrtc.options import WebRtcOptions
from doors.http.webrtc.peers import WebRtc
from observability.metrics import Metrics
from observability.tracing import Tracing
from service.admission.desk import AdmissionDesk
from service.checks import Limits
from service.clock import MonotonicClock
from service.doors import Doors
from service.health import HealthMonitor, Probe
from service.identity.allowance import Quotas
from service.identity.open_door import OpenDoor
from service.identity.peers import Proxies
from service.identity.principal import Authority
from service.identity.standings import Standings
from service.intake import Intake
from service.jobs.webhooks.endpoints import EndpointDesk
from service.ledger.denials import Denials
from service.ledger.interface import Audit
from service.model_aliases import model_aliases
from service.records.keeper import KeeperPolicy, SessionKeeper
from service.records.store import MemoryStore
from service.sessions.runner import SessionRunner
from service.watching.hub import Hub, WatchLimits
from service.watching.viewers import Viewers
from tests.fakes import FakeStages, eventually
from tests.served import answers

SEED = 5
OPTIONS = HttpOptions(sweep_s=0.02, keep_alive_s=30.0)


class OpenAuthority(OpenDoor):
    """Takes everybody, and believes no proxy."""

    def __init__(self) -> None:
        super().__init__(Proxies(), time.time)


@dataclass(frozen=True, slots=True)
class HttpServed:
    """A running server with everything a test looks at."""

    port: int
    doors: Doors
    runner: SessionRunner
    intake: Intake
    desk: AdmissionDesk
    stages: FakeStages
    monitor: HealthMonitor
    edge: HttpEdge
    server: HttpServer
    registry: CollectorRegistry
    client: httpx.AsyncClient
    hub: Hub
    peers: WebRtc | None = None

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels; 0 where there is none yet."""
        samples = (sample for family in self.registry.collect() for sample in family.samples if sample.name == f"headrace_{name}")
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    async def nothing_left(self) -> None:
        """Wait until no session, slot, place in line, stream or byte of a body is left."""
        desk = self.desk.statistics
        await eventually(lambda: self.runner.open_sessions == 0 and self.stages.open_streams == 0 and self.edge.held.size == 0)
        await eventually(lambda: desk().live == desk().waiting == 0)

    async def still_serves(self) -> None:
        """A sound request is answered in full."""
        answer = await self.client.post("/v1/stream", json={"prompt": "a green square", "seconds": 0.1})
        assert answer.status_code == 200, answer.text

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A bare connection, for what no client does."""
        return await asyncio.open_connection("127.0.0.1", self.port)


@asynccontextmanager
async def http_serving(
    stages: FakeStages | None = None,
    *,
    options: HttpOptions = OPTIONS,
    limits: Limits | None = None,
    max_sessions: int = 4,
    max_waiting: int = 4,
    probes: Mapping[str, Probe] | None = None,
    jobs: Callable[[Intake], Any] | None = None,
    authority: Authority | None = None,
    more_rooms: Sequence[Room] = (),
    tracing: Tracing | None = None,
    verify: bool | ssl.SSLContext = True,
    denials: Denials | None = None,
    quotas: Quotas | None = None,
    standings: Standings | None = None,
    audit: Audit | None = None,
    endpoints: EndpointDesk | None = None,
    webrtc: WebRtcOptions | None = None,
) -> AsyncGenerator[HttpServed, None]:
    stages, limits, metrics, clock = stages or FakeStages(), limits or Limits(), Metrics(CollectorRegistry()), MonotonicClock()
    policy = AdmissionConfig(BrownOutConfig(()), max_waiting=max_waiting, max_wait_s=1e9)
    desk = AdmissionDesk(policy, Capacity((DenoiseReplica(max_sessions),), 0.3, max_sessions), clock, chance=lambda: 0.5)
    ids = itertools.count(1)
    store, keeping = MemoryStore(64 * 1024 * 1024, clock), KeeperPolicy(ttl_s=600, write_every_s=0.02, timeout_s=0.5)
    keeper = SessionKeeper(store, keeping, metrics, clock, new_token=lambda: secrets.token_urlsafe(24))
    pipelines, new_id = {stages.config.name: stages.pipeline}, lambda: f"id-{next(ids)}"
    aliases = model_aliases(stages.config.name)
    intake = Intake(pipelines, stages.config.name, limits, keeper, new_id, new_seed=lambda: SEED, aliases=aliases)
    hub = Hub(WatchLimits(linger_s=20.0), clock, observe=metrics.watchers.set)
    runner = SessionRunner(pipelines, desk, keeper, limits, metrics, clock, quotas, audit=audit, hub=hub)
    monitor = HealthMonitor(probes or dict.fromkeys(("text_encoder", "denoiser", "decoder"), answers), interval_s=0.01, timeout_s=0.5)
    authority = authority or OpenAuthority()
    made = None if jobs is None else jobs(intake)
    batches = made if hasattr(made, "submit_batch") else None
    peers = None if webrtc is None else WebRtc(webrtc, lambda: f"peer-{next(ids)}")
    services = Services(
        intake=intake, runner=runner, jobs=made, batches=batches, authority=authority, public_url=options.public_url, endpoints=endpoints,
        viewers=Viewers(hub, metrics, audit), webrtc=peers,
    )  # fmt: skip
    every = [*rooms(services, monitor, new_id), *more_rooms]
    edge = HttpEdge(every, Guards(authority, metrics, tracing or Tracing(), new_id, options, denials or Denials(), standings))
    server = HttpServer(edge, replace(options, port=0))
    doors = Doors([server] if peers is None else [server, peers], runner, monitor)
    port = (await doors.start())[0]
    scheme = "http" if options.tls is None else "https"
    timeout = httpx.Timeout(60)
    async with httpx.AsyncClient(base_url=f"{scheme}://127.0.0.1:{port}", timeout=timeout, trust_env=False, verify=verify) as client:
        try:
            yield HttpServed(port, doors, runner, intake, desk, stages, monitor, edge, server, metrics.registry, client, hub, peers)
        finally:
            await doors.drain(grace_s=0)
            await keeper.aclose()
