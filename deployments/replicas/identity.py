"""Makes what knows callers, and what limits tenants, of a front door's settings. The master secret is read here, from the environment."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployments.config.identity import IdentitySettings, JwtSettings
from service.clock import Clock
from service.identity.allowance import NoQuotas, Quotas
from service.identity.open_door import OpenDoor
from service.identity.peers import Proxies
from service.identity.principal import Authority
from service.identity.standings import Standings
from service.jobs.job import JobStatus

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from service.database.engine import Database
    from service.identity.job_limits import JobLimits
    from service.identity.keys import Master
    from service.identity.known_keys import KnownKeys
    from service.identity.quotas import TenantQuotas
    from service.identity.tokens import IssuerTokens
    from service.jobs.work import EndedJob


@dataclass(frozen=True, slots=True)
class Identity:
    """What the doors of one front door share. `standings` says what tenants with limits have left of them."""

    authority: Authority
    quotas: Quotas
    keys: KnownKeys | None = None
    tenant_quotas: TenantQuotas | None = None
    job_limits: JobLimits | None = None
    standings: Standings | None = None

    def job_ended(self, connection: Connection, ended: EndedJob) -> None:
        """An `OnEnd`: settles what the job has reserved. One that failed or was cancelled has used nothing."""
        if self.job_limits is not None:
            job = ended.job
            used_s = job.usage.video_s if job.status is JobStatus.COMPLETED and job.usage is not None else 0.0
            self.job_limits.settle(connection, job.id, used_s)

    async def aclose(self) -> None:
        """Write down what sessions have used. To be called before the database is closed."""
        for each in (self.keys, self.tenant_quotas):
            if each is not None:
                await each.aclose()


def identity(settings: IdentitySettings, database: Database | None, clock: Clock, environment: Mapping[str, str] | None = None) -> Identity:
    """Raises ValueError: the master secret is not there, or there is no database for keys."""
    environment = os.environ if environment is None else environment
    proxies = Proxies(settings.proxies)
    if not settings.asked_for:
        return Identity(OpenDoor(proxies, time.time, settings.open_buckets), NoQuotas())

    # Only now: with keys off none of these libraries is needed.
    from service.identity.authority import Doorkeeper  # noqa: PLC0415 - only where callers are asked who they are
    from service.identity.job_limits import JobLimits  # noqa: PLC0415 - only where callers are asked who they are
    from service.identity.keys import Keyring  # noqa: PLC0415 - only where callers are asked who they are
    from service.identity.known_keys import KnownKeys  # noqa: PLC0415 - only where callers are asked who they are
    from service.identity.quotas import TenantQuotas  # noqa: PLC0415 - only where callers are asked who they are
    from service.identity.tokens import ClientTokens  # noqa: PLC0415 - only where callers are asked who they are

    master, keys = master_secret(settings, environment), None
    if settings.keys == "required":
        if database is None:
            raise ValueError("identity.keys must be 'off' without a database; got 'required' and an empty state.url")
        if master is None:
            raise ValueError(f"identity.master_variable must name a variable that is set; {settings.master_variable} is not")
        keys = KnownKeys(database, Keyring(master), settings.cache_seconds, clock, time.time)
    authority = Doorkeeper(
        keys=keys,
        issuer=None if settings.jwt is None else _issuer(settings.jwt, settings.cache_seconds, clock),
        client_tokens=None if master is None else ClientTokens(master, time.time),
        certificates=None if settings.certificates is None else settings.certificates.tenants,
        proxies=proxies,
        buckets=settings.buckets,
    )
    if database is None:
        return Identity(authority, NoQuotas(), keys)
    standings = Standings(clock, time.time)
    quotas = TenantQuotas(database, settings.cache_seconds, clock, time.time, standings=standings)
    return Identity(authority, quotas, keys, quotas, JobLimits(), standings)


def master_secret(settings: IdentitySettings, environment: Mapping[str, str]) -> Master | None:
    """None where the environment has none. Raises ValueError: it is too short. The message holds nothing of it."""
    from service.identity.keys import Master  # noqa: PLC0415 - only where callers are asked who they are

    secret = environment.get(settings.master_variable) if settings.master_variable else None
    if not secret:
        return None
    try:
        return Master(secret)
    except ValueError as error:
        raise ValueError(f"identity.master_variable {settings.master_variable} {error}") from None


def _issuer(settings: JwtSettings, cache_s: float, clock: Clock) -> IssuerTokens:
    from service.identity.jwks import IssuerKeys, fetched_from  # noqa: PLC0415 - only where callers are asked who they are
    from service.identity.tokens import IssuerPolicy, IssuerTokens  # noqa: PLC0415 - only where callers are asked who they are

    policy = IssuerPolicy(
        issuer=settings.issuer, audiences=settings.audience, algorithms=settings.algorithms, tenant_claim=settings.tenant_claim,
        models_claim=settings.models_claim, buckets_claim=settings.buckets_claim, leeway_s=settings.leeway_seconds,
    )  # fmt: skip
    return IssuerTokens(policy, IssuerKeys(fetched_from(settings.jwks), clock), cache_s, clock, time.time)
