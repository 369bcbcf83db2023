"""Limits of tenants for jobs, in the transactions that make and end them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from sqlalchemy import Connection

from service.identity import limits
from service.identity.principal import Principal
from service.identity.standings import RequestsLeft


class JobLimits:
    """What jobs reserve and settle. Knows nothing else of a job.

    Args:
        wall: Unix time.
    """

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall

    def reserve(self, connection: Connection, principal: Principal, seconds: Mapping[str, float]) -> RequestsLeft | None:
        """See `service.jobs.desk.table_desk.JobQuotas`."""
        return limits.reserve_jobs(connection, principal.tenant, seconds, self._wall())

    def settle(self, connection: Connection, job_id: str, used_s: float) -> None:
        """A job is over. One that failed or was cancelled has used nothing."""
        limits.settle(connection, job_id, used_s)
