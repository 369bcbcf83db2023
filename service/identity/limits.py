"""The SQL of tenants' limits and of what is reserved against them. Each function works within its caller's transaction, and blocks.

A *reservation* holds a place, or seconds of video, from admission to the end. It expires, unless it is renewed, so that a front door that
dies leaves nothing taken. Functions that change a tenant lock its row first, so that front doors decide one after the other; of several
tenants they lock the rows in one order. Each comes to the same when it runs again, because nobody can know whether the commit of a
connection that broke has arrived.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, insert, literal_column, select, update

from service.database.engine import put_if_absent
from service.database.schema import JOBS, RESERVATIONS, TENANTS
from service.identity.principal import QuotaExceeded
from service.identity.standings import REQUESTS, RequestsLeft

_MINUTE_S = 60.0
# When a place may be free again, nobody knows; a caller that asks so often costs little.
_PLACE_RETRY_S = 5.0


class Kind(Enum):
    """What a reservation is for. The value is what the table holds."""

    SESSION = "session"
    JOB = "job"
    REQUEST = "request"  # counts for a minute, whatever becomes of it
    ENDED = "ended"  # reserves nothing; it is kept for a while, so that nothing is settled twice


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantLimits:
    """What a tenant may have at once, and in all; None for no limit.

    Attributes:
        requests_per_minute: sessions and jobs begun in any 60 s.
        parallel_sessions: at all front doors together.
        queued_jobs: that have not begun.
        budget_seconds: of video, until `spent_seconds` is set back.
        spent_seconds: of video, settled.
    """

    requests_per_minute: int | None = None
    parallel_sessions: int | None = None
    queued_jobs: int | None = None
    budget_seconds: float | None = None
    spent_seconds: float = 0.0

    @property
    def limited(self) -> bool:
        limits = (self.requests_per_minute, self.parallel_sessions, self.queued_jobs, self.budget_seconds)
        return any(limit is not None for limit in limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """What is asked for, and what is renewed.

    Attributes:
        id: the job's; of a session its connection's, since a session that goes on elsewhere is reserved anew.
        seconds: of video, still to be made; None for a session without an end, which is given `slice_s` at a time.
        expires_at: of each write of a session later than of the one before, which tells them apart. A job's does not expire.
    """

    id: str
    tenant: str
    kind: Kind
    seconds: float | None
    expires_at: float | None = None
    slice_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What became of a reservation since it was written last.

    Attributes:
        left_s: seconds that it still reserves.
        spent_s: seconds of video to be settled now.
        wanted_s: seconds that it would reserve besides.
        over: it ends.
    """

    of: Reservation
    left_s: float
    spent_s: float
    wanted_s: float = 0.0
    over: bool = False


@dataclass(frozen=True, slots=True)
class Reserved:
    """What a session got.

    Attributes:
        seconds: infinity where seconds are not limited.
        requests: with this one; None without a limit of requests.
    """

    seconds: float
    requests: RequestsLeft | None = None


def limits_of(connection: Connection, tenant: str) -> TenantLimits:
    """Without a lock; a tenant that the table does not have has no limits."""
    row = connection.execute(select(TENANTS).where(TENANTS.c.name == tenant)).mappings().one_or_none()
    return TenantLimits() if row is None else _limits(row)


def all_limits(connection: Connection) -> dict[str, TenantLimits]:
    """Of every tenant that the table has, by name."""
    return {str(row["name"]): _limits(row) for row in connection.execute(select(TENANTS).order_by(TENANTS.c.name)).mappings()}


def set_limits(connection: Connection, tenant: str, changes: Mapping[str, float | None]) -> TenantLimits:
    """Change those fields of `TenantLimits` that `changes` names, of a tenant that the table may not have yet."""
    unknown = changes.keys() - {each.name for each in fields(TenantLimits)}
    if unknown:
        raise ValueError(f"no limit is called {', '.join(sorted(unknown))}")
    put_if_absent(connection, TENANTS, {"name": tenant, "spent_seconds": 0.0})
    if changes:
        connection.execute(update(TENANTS).where(TENANTS.c.name == tenant).values(**changes))
    return limits_of(connection, tenant)


def reserve(connection: Connection, asked: Reservation, now: float) -> Reserved | None:
    """Reserve a place and seconds for a session, both or neither. A tenant without limits reserves nothing, and writes nothing.

    Returns:
        What is reserved; None where nothing is.

    Raises:
        QuotaExceeded: a limit is reached.
    """
    limits = _locked_limits(connection, asked.tenant, now)
    if limits is None:
        return None
    if (there := _row(connection, asked.id)) is not None:
        return Reserved(math.inf if limits.budget_seconds is None else float(there["seconds"]))
    requests = _check_rate(connection, asked.tenant, limits, now)
    _check_places("parallel_sessions", asked.tenant, limits.parallel_sessions, _count(connection, asked.tenant, Kind.SESSION), 1)
    seconds = _within_budget(connection, asked, limits)
    _count_request(connection, asked.tenant, limits, asked.id, now)
    _insert(connection, asked, 0.0 if math.isinf(seconds) else seconds, now)
    return Reserved(seconds, requests)


def reserve_jobs(connection: Connection, tenant: str, seconds: Mapping[str, float], now: float) -> RequestsLeft | None:
    """Reserve seconds for new jobs by their ids, which count as one request. `settle` ends each of them.

    Returns:
        Requests, with this one; None for a tenant without a limit of them.

    Raises:
        QuotaExceeded: a limit is reached; nothing is reserved.
    """
    limits = _locked_limits(connection, tenant, now)
    if limits is None:
        return None
    requests = _check_rate(connection, tenant, limits, now)
    if limits.queued_jobs is not None:
        queued = select(func.count()).select_from(JOBS).where(literal_column("status = 'queued'"), JOBS.c.tenant == tenant)
        _check_places("queued_jobs", tenant, limits.queued_jobs, connection.execute(queued).scalar_one(), len(seconds))
    first = next(iter(seconds))
    _within_budget(connection, Reservation(id=first, tenant=tenant, kind=Kind.JOB, seconds=sum(seconds.values())), limits)
    _count_request(connection, tenant, limits, first, now)
    if limits.budget_seconds is not None:
        for job_id, length_s in seconds.items():
            _insert(connection, Reservation(id=job_id, tenant=tenant, kind=Kind.JOB, seconds=length_s), length_s, now)
    return requests


def write_down(connection: Connection, progress: Sequence[Progress], now: float) -> dict[str, float]:
    """Settle what was used, end what is over, and renew the rest.

    Returns:
        By id, the seconds that were reserved besides; 0 where none were wanted, or the budget has no more.
    """
    granted: dict[str, float] = {}
    for tenant in sorted({each.of.tenant for each in progress}):
        row = _locked(connection, tenant)
        budget_s = None if row is None else row["budget_seconds"]
        for each in (each for each in progress if each.of.tenant == tenant):
            granted[each.of.id] = _go_on(connection, each, budget_s, now)
    return granted


def settle(connection: Connection, reservation_id: str, spent_s: float) -> None:
    """End a reservation whose tenant is not at hand, as a job's; `spent_s` is 0 for what failed. A second call does nothing."""
    row = _row(connection, reservation_id)
    if row is not None:
        _locked(connection, row["tenant"])
        if connection.execute(delete(RESERVATIONS).where(RESERVATIONS.c.id == reservation_id)).rowcount:
            _spend(connection, row["tenant"], spent_s)


def _locked_limits(connection: Connection, tenant: str, now: float) -> TenantLimits | None:
    """The limits of a tenant whose row is locked, with what has expired swept away; None for a tenant without limits."""
    row = _locked(connection, tenant)
    if row is None or not (limits := _limits(row)).limited:
        return None
    connection.execute(delete(RESERVATIONS).where(RESERVATIONS.c.tenant == tenant, RESERVATIONS.c.expires_at <= now))
    return limits


def _check_rate(connection: Connection, tenant: str, limits: TenantLimits, now: float) -> RequestsLeft | None:
    """Requests, with the one that is asked for; None without a limit of them."""
    most = limits.requests_per_minute
    if most is None:
        return None
    own = (RESERVATIONS.c.tenant == tenant, RESERVATIONS.c.kind == Kind.REQUEST.value)
    count, oldest = connection.execute(select(func.count(), func.min(RESERVATIONS.c.created_at)).where(*own)).one()
    more_at = (now if oldest is None else oldest) + _MINUTE_S
    if count >= most:
        sentence = f"{REQUESTS} of tenant {tenant} is {most}; got {count + 1} within 60 s"
        raise QuotaExceeded(sentence, limit=REQUESTS, allowed=most, used=count, retry_after_s=max(0.1, more_at - now))
    return RequestsLeft(most, count + 1, more_at)


def _count_request(connection: Connection, tenant: str, limits: TenantLimits, of: str, now: float) -> None:
    if limits.requests_per_minute is not None:
        request = Reservation(id=f"request/{of}", tenant=tenant, kind=Kind.REQUEST, seconds=0.0, expires_at=now + _MINUTE_S)
        _insert(connection, request, 0.0, now)


def _check_places(name: str, tenant: str, most: int | None, taken: int, wanted: int) -> None:
    if most is not None and taken + wanted > most:
        sentence = f"{name} of tenant {tenant} is {most}; got {wanted} more than the {taken} that it has"
        raise QuotaExceeded(sentence, limit=name, allowed=most, used=taken, retry_after_s=_PLACE_RETRY_S)


def _within_budget(connection: Connection, asked: Reservation, limits: TenantLimits) -> float:
    """The seconds to reserve: all of them, or of a session without an end as many of a slice as there are; infinity without a budget."""
    budget_s, spent_s = limits.budget_seconds, limits.spent_seconds
    if budget_s is None:
        return math.inf
    reserved_s = reserved_seconds(connection, asked.tenant)
    free_s = budget_s - spent_s - reserved_s
    if asked.seconds is None and free_s > 0:
        return min(asked.slice_s, free_s)
    needed_s = asked.slice_s if asked.seconds is None else asked.seconds
    if needed_s <= free_s:
        return needed_s
    sentence = (
        f"budget_seconds of tenant {asked.tenant} is {budget_s:g}; got a request for {needed_s:g} s of video, "
        f"with {spent_s:g} s spent and {reserved_s:g} s reserved"
    )
    # What others have reserved and do not use comes back; what is spent does not.
    retry_after_s = _PLACE_RETRY_S if needed_s <= budget_s - spent_s else None
    raise QuotaExceeded(sentence, limit="budget_seconds", allowed=budget_s, used=spent_s + reserved_s, retry_after_s=retry_after_s)


def _go_on(connection: Connection, progress: Progress, budget_s: float | None, now: float) -> float:
    """Returns the seconds that are reserved besides."""
    asked, row = progress.of, _row(connection, progress.of.id)
    kind = Kind.ENDED if progress.over else asked.kind
    if row is None:  # it had expired, and was swept
        _insert(connection, replace(asked, kind=kind), 0.0, now)
    elif row["expires_at"] >= asked.expires_at or row["kind"] == Kind.ENDED.value:  # written already
        return max(0.0, float(row["seconds"]) - progress.left_s)
    left_s = 0.0 if progress.over else progress.left_s
    own = update(RESERVATIONS).where(RESERVATIONS.c.id == asked.id)
    connection.execute(own.values(kind=kind.value, seconds=left_s, expires_at=asked.expires_at))
    _spend(connection, asked.tenant, progress.spent_s)
    if not progress.wanted_s or budget_s is None:
        return progress.wanted_s
    free_s = budget_s - limits_of(connection, asked.tenant).spent_seconds - reserved_seconds(connection, asked.tenant)
    granted_s = max(0.0, min(progress.wanted_s, free_s))
    connection.execute(own.values(seconds=left_s + granted_s))
    return granted_s


def _spend(connection: Connection, tenant: str, seconds: float) -> None:
    if seconds:
        row = update(TENANTS).where(TENANTS.c.name == tenant)
        connection.execute(row.values(spent_seconds=TENANTS.c.spent_seconds + seconds))


def _row(connection: Connection, reservation_id: str) -> RowMapping | None:
    return connection.execute(select(RESERVATIONS).where(RESERVATIONS.c.id == reservation_id)).mappings().one_or_none()


def _locked(connection: Connection, tenant: str) -> RowMapping | None:
    """The tenant's row, which no other transaction changes before this one ends."""
    return connection.execute(select(TENANTS).where(TENANTS.c.name == tenant).with_for_update()).mappings().one_or_none()


def _insert(connection: Connection, asked: Reservation, seconds: float, now: float) -> None:
    connection.execute(
        insert(RESERVATIONS).values(
            id=asked.id, tenant=asked.tenant, kind=asked.kind.value, seconds=seconds, created_at=now, expires_at=asked.expires_at
        )
    )


def _count(connection: Connection, tenant: str, kind: Kind) -> int:
    query = select(func.count()).select_from(RESERVATIONS).where(RESERVATIONS.c.tenant == tenant, RESERVATIONS.c.kind == kind.value)
    return connection.execute(query).scalar_one()


def reserved_seconds(connection: Connection, tenant: str) -> float:
    return float(connection.execute(select(func.sum(RESERVATIONS.c.seconds)).where(RESERVATIONS.c.tenant == tenant)).scalar_one() or 0.0)


def _limits(row: RowMapping) -> TenantLimits:
    values: dict[str, Any] = {each.name: row[each.name] for each in fields(TenantLimits)}
    return TenantLimits(**values)
