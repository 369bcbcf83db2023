"""The real gRPC server over fake stages, on a loopback port, with a client to call it."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc.aio
from google.rpc import error_details_pb2, status_pb2
from prometheus_client import CollectorRegistry

from autoscaling.admission.brownout import BrownOutConfig
from autoscaling.admission.decide import AdmissionConfig
from autoscaling.capacity.profile import Capacity, DenoiseReplica
from doors.grpc.certificates import TlsSource
from doors.grpc.edge import RpcEdge
from doors.grpc.health import HealthReporter
from doors.grpc.oasis import room as oasis_room
from doors.grpc.oasis.room import OasisRoom, Unasked
from doors.grpc.server import GrpcServer
from doors.grpc.service import SERVICE_NAME, VideoService
from doors.grpc.triton import room as triton_room
from doors.grpc.triton.room import TritonRoom
from headrace.client import HeadraceClient
from headrace.v1 import video_pb2 as pb
from observability.metrics import Metrics
from observability.tracing import Tracing
from service.admission.desk import AdmissionDesk
from service.checks import Limits
from service.clock import Clock, MonotonicClock
from service.doors import Doors
from service.health import HealthMonitor, Probe
from service.identity.allowance import Quotas
from service.identity.open_door import OpenDoor
from service.identity.peers import Proxies
from service.identity.principal import Authority
from service.intake import Intake
from service.ledger.denials import Denials
from service.ledger.interface import Audit
from service.records.keeper import KeeperPolicy, SessionKeeper
from service.records.store import MemoryStore, SessionStore
from service.sessions.runner import SessionRunner
from service.watching.elsewhere import Elsewhere
from service.watching.hub import Hub, WatchLimits
from service.watching.viewers import Viewers
from tests.fakes import FakeStages, eventually

SEED = 5
WATCHING = WatchLimits(linger_s=20.0)
KEEPING = KeeperPolicy(ttl_s=600, write_every_s=0.02, timeout_s=0.5)


@dataclass(frozen=True, slots=True)
class Served:
    """A running server with everything a test looks at."""

    address: str
    server: Doors
    service: SessionRunner
    monitor: HealthMonitor
    desk: AdmissionDesk
    stages: FakeStages
    registry: CollectorRegistry
    client: HeadraceClient
    hub: Hub

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels, whatever others they have; 0 where there is none yet."""
        samples = (sample for family in self.registry.collect() for sample in family.samples if sample.name == f"headrace_{name}")
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    async def nothing_left(self) -> None:
        """Wait until no session, slot, place in line, or stream is left."""
        desk = self.desk.statistics
        await eventually(lambda: self.service.open_sessions == 0 and self.stages.open_streams == 0 and desk().live == desk().waiting == 0)

    async def still_serves(self) -> None:
        """A sound request is answered in full."""
        frames = [event async for event in self.client.stream("a green square", seconds=0.1)]
        assert len(frames) == 3


async def answers() -> None:
    """A probe of a stage that can serve."""


@asynccontextmanager
async def serving(
    stages: FakeStages | None = None,
    *,
    limits: Limits | None = None,
    max_sessions: int = 4,
    max_waiting: int = 4,
    policy: AdmissionConfig | None = None,
    capacity: Capacity | None = None,
    clock: Clock | None = None,
    probes: Mapping[str, Probe] | None = None,
    tls: TlsSource | None = None,
    with_reflection: bool = True,
    store: SessionStore | None = None,
    keeping: KeeperPolicy = KEEPING,
    port: int = 0,
    tracing: Tracing | None = None,
    denials: Denials | None = None,
    oasis_sessions: int = 16,
    oasis_idle_s: float = 60.0,
    authority: Authority | None = None,
    quotas: Quotas | None = None,
    watching: WatchLimits = WATCHING,
    elsewhere: Elsewhere | None = None,
    audit: Audit | None = None,
) -> AsyncGenerator[Served, None]:
    stages = stages or FakeStages()
    metrics = Metrics(CollectorRegistry())
    if policy is None:
        policy = AdmissionConfig(BrownOutConfig(()), max_waiting=max_waiting, max_wait_s=1e9)
    capacity = capacity or Capacity((DenoiseReplica(max_sessions),), budget_s=0.3, ceiling=max_sessions)
    clock = clock or MonotonicClock()
    desk = AdmissionDesk(policy, capacity, clock, chance=lambda: 0.5)
    ids = itertools.count(1)
    store = store or MemoryStore(64 * 1024 * 1024, MonotonicClock())
    keeper = SessionKeeper(store, keeping, metrics, MonotonicClock(), new_token=lambda: secrets.token_urlsafe(24))
    pipelines = {stages.config.name: stages.pipeline}
    limits, new_id = limits or Limits(), lambda: f"id-{next(ids)}"
    hub = Hub(watching, clock, elsewhere, metrics.watchers.set)
    runner = SessionRunner(pipelines, desk, keeper, limits, metrics, clock, quotas, audit=audit, hub=hub)
    authority, tracing = authority or OpenDoor(Proxies(), time.time), tracing or Tracing()
    intake = Intake(pipelines, stages.config.name, limits, keeper, new_id, new_seed=lambda: SEED)

    calls = itertools.count(1)

    def edge(name: str) -> RpcEdge:
        return RpcEdge(name, metrics, lambda: f"call-{next(calls)}", tracing, authority, denials)

    service = VideoService(intake, runner, edge(SERVICE_NAME), Viewers(hub, metrics, audit))
    probes = probes or dict.fromkeys(("text_encoder", "denoiser", "decoder"), answers)
    monitor = HealthMonitor(probes, interval_s=0.01, timeout_s=0.5)
    reporter = HealthReporter(monitor, (SERVICE_NAME,))
    triton = TritonRoom(intake, runner, edge(triton_room.SERVICE_NAME), lambda: monitor.health.ready, clock, new_id)
    oasis = OasisRoom(
        intake, runner, RpcEdge(oasis_room.SERVICE_NAME, metrics, new_id, tracing, Unasked()), authority, clock,
        partial(secrets.token_hex, 8), denials=denials, most=oasis_sessions, idle_s=oasis_idle_s,
    )  # fmt: skip
    server = GrpcServer(service, reporter, f"127.0.0.1:{port}", tls, with_reflection=with_reflection, rooms=[triton, oasis])
    doors = Doors([server], runner, monitor)
    (port,) = await doors.start()
    address = f"127.0.0.1:{port}"
    async with HeadraceClient(address) as client:
        try:
            yield Served(address, doors, runner, monitor, desk, stages, metrics.registry, client, hub)
        finally:
            await doors.drain(grace_s=0)
            await keeper.aclose()


async def raw_call(served: Served, method: str, data: bytes) -> grpc.aio.AioRpcError | bytes:
    """Send bytes as they are, and give back the answer or the error. For Live, `data` is the only message."""
    path = f"/{SERVICE_NAME}/{method}"
    async with grpc.aio.insecure_channel(served.address) as plain:
        channel: Any = plain  # its methods take and give bytes here
        try:
            match method:
                case "Stream":
                    return b"".join([item async for item in channel.unary_stream(path)(data)])
                case "Live":
                    return b"".join([item async for item in channel.stream_stream(path)(iter([data]))])
                case _:
                    return bytes(await channel.unary_unary(path)(data))
        except grpc.aio.AioRpcError as error:
            return error


def live_call(channel: grpc.aio.Channel) -> Any:
    """A Live with nothing around it, for what the client does not let one do."""
    return channel.stream_stream(f"/{SERVICE_NAME}/Live", pb.LiveRequest.SerializeToString, pb.LiveResponse.FromString)()


def stream_call(channel: grpc.aio.Channel, request: pb.StreamRequest, tenant: str = "") -> Any:
    """A Stream with nothing around it."""
    method = channel.unary_stream(f"/{SERVICE_NAME}/Stream", pb.StreamRequest.SerializeToString, pb.StreamResponse.FromString)
    return method(request, metadata=(("x-headrace-tenant", tenant),) if tenant else ())


async def read_all(call: Any) -> list[Any]:
    """Every message up to the end; raises the call's error."""
    messages = []
    while (message := await call.read()) is not grpc.aio.EOF:
        messages.append(message)
    return messages


def details_of(error: grpc.aio.AioRpcError) -> list[Any]:
    """The typed details of a status."""
    found: list[Any] = []
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            for packed in status_pb2.Status.FromString(value).details:
                for kind in (error_details_pb2.BadRequest, error_details_pb2.RetryInfo, error_details_pb2.RequestInfo):
                    detail = kind()
                    if packed.Unpack(detail):
                        found.append(detail)
    return found
