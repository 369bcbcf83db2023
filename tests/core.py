"""The service over fake stages, with no wire at all."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from prometheus_client import CollectorRegistry

from autoscaling.admission.brownout import BrownOutConfig
from autoscaling.admission.decide import AdmissionConfig
from autoscaling.capacity.profile import Capacity, DenoiseReplica
from model_core.uploads.decoders import UploadDecoders
from observability.metrics import Metrics
from service.admission.desk import AdmissionDesk
from service.checks import Limits
from service.clock import Clock, MonotonicClock
from service.identity.allowance import Quotas
from service.intake import Intake
from service.ledger.interface import Audit, Ledger
from service.model_aliases import model_aliases
from service.records.keeper import KeeperPolicy, SessionKeeper
from service.records.store import MemoryStore
from service.sessions.runner import SessionRunner
from tests.fakes import FakeStages


@dataclass(frozen=True, slots=True)
class Core:
    """What a door gets, and what a test looks at."""

    intake: Intake
    runner: SessionRunner
    desk: AdmissionDesk
    stages: FakeStages


@asynccontextmanager
async def core(
    stages: FakeStages | None = None,
    *,
    limits: Limits | None = None,
    max_sessions: int = 4,
    quotas: Quotas | None = None,
    ledger: Ledger | None = None,
    audit: Audit | None = None,
    clock: Clock | None = None,
    tiers: tuple[int, ...] = (),
    capacity: Capacity | None = None,
    decoding: Sequence[str] | None = None,
) -> AsyncGenerator[Core, None]:
    stages, limits, metrics, real = stages or FakeStages(), limits or Limits(), Metrics(CollectorRegistry()), MonotonicClock()
    clock = clock or real
    policy = AdmissionConfig(BrownOutConfig(tiers), max_waiting=4, max_wait_s=1e9)
    desk = AdmissionDesk(policy, capacity or Capacity((DenoiseReplica(max_sessions),), 0.3, max_sessions), clock, chance=lambda: 0.5)
    store, keeping = MemoryStore(64 * 1024 * 1024, real), KeeperPolicy(ttl_s=60, write_every_s=0.02, timeout_s=0.5)
    keeper = SessionKeeper(store, keeping, metrics, real, new_token=lambda: secrets.token_urlsafe(24))
    pipelines, ids = {stages.config.name: stages.pipeline}, itertools.count(1)
    aliases, new_id = model_aliases(stages.config.name), lambda: f"id-{next(ids)}"
    intake = Intake(pipelines, stages.config.name, limits, keeper, new_id, new_seed=lambda: 5, aliases=aliases)
    decoders = UploadDecoders if decoding is None else partial(UploadDecoders, command=decoding)
    runner = SessionRunner(pipelines, desk, keeper, limits, metrics, clock, quotas, ledger=ledger, audit=audit, decoders=decoders)
    try:
        yield Core(intake, runner, desk, stages)
    finally:
        runner.close()
        await keeper.aclose()
