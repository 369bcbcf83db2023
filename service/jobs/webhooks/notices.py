"""Notices of jobs that ended, for webhooks: written where the job ends, in the same transaction, and taken from there to be sent."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Connection, Executable, delete, func, select, text, update

from service.database.engine import Database, put_if_absent
from service.database.schema import ENDPOINTS, OUTBOX
from service.jobs.job import Job, JobStatus
from service.jobs.work import EndedJob

KIND = "webhook"
_TENANT = func.coalesce(OUTBOX.c.tenant, "").label("tenant")

Shape = Callable[[Job], Mapping[str, Any]]
"""What a door's callers are told of a job that is over."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One notice, to be sent.

    Attributes:
        id: the same however often it is sent; receivers drop what they have.
        attempts: with this one.
        body: JSON.
        tenant: of the job; empty for nobody in particular, and where an earlier Headrace did not write it down.
    """

    id: str
    url: str
    body: str
    attempts: int
    secret: str = field(default="", repr=False)
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Places:
    """Of those that notices are sent in, how many are free, and who may have them.

    Attributes:
        free: now.
        each: how many one tenant may have, with those that it has.
        sending: by tenant, those that are taken.
        slow: tenants whose hosts took long lately. Each of them may have one.
        of_slow: how many all slow tenants together may have, with those that they have.
    """

    free: int
    each: int
    sending: Mapping[str, int] = field(default_factory=dict)
    slow: Collection[str] = frozenset()
    of_slow: int = 0


def shares(waiting: Mapping[str, float], places: Places) -> dict[str, int]:
    """How many of the free places each tenant gets.

    The tenant that has the fewest goes first; of equals, the one that has waited the longest. So whoever comes with one notice does not
    wait behind the thousands of others.

    Args:
        waiting: by tenant, since when its oldest notice is due.
    """
    line = [(places.sending.get(tenant, 0), since, tenant) for tenant, since in waiting.items()]
    heapq.heapify(line)
    slow_left = places.of_slow - sum(number for tenant, number in places.sending.items() if tenant in places.slow)
    found: dict[str, int] = {}
    free = places.free
    while line and free > 0:
        has, since, tenant = heapq.heappop(line)
        slow = tenant in places.slow
        if has >= (1 if slow else places.each) or (slow and slow_left <= 0):
            continue
        found[tenant] = found.get(tenant, 0) + 1
        free, slow_left = free - 1, slow_left - slow
        heapq.heappush(line, (has + 1, since, tenant))
    return found


def plain_shape(job: Job) -> Mapping[str, Any]:
    """For doors that have none of their own."""
    return {
        "type": f"job.{job.status.value}",
        "timestamp": job.updated_at if job.ended_at is None else job.ended_at,
        "data": {"id": job.id, "status": job.status.value, "error": None if job.error is None else job.error.code},
    }


def endpoint_suffix(endpoint_id: str) -> str:
    """What the ids of an endpoint's notices end in."""
    return f"-{endpoint_id}"


class NoticeWriter:
    """Tells the outbox of jobs that end.

    Args:
        shapes: by the name of the door.
        now: Unix time.
    """

    def __init__(self, shapes: Mapping[str, Shape], now: Callable[[], float]) -> None:
        self._shapes = shapes
        self._now = now

    def on_end(self, connection: Connection, ended: EndedJob) -> None:
        """`service.jobs.work.OnEnd`. A caller that cancels needs no notice of that."""
        job, webhook = ended.job, ended.webhook
        if job.status is JobStatus.CANCELLED:
            return
        endpoints = connection.execute(select(ENDPOINTS).where(ENDPOINTS.c.tenant == job.tenant)).all()
        if webhook is None and not endpoints:
            return
        event = dict(self._shapes.get(job.door, plain_shape)(job))
        notice_id = f"{KIND}-{job.id}-{job.status.value}"
        if webhook is not None:
            own = event | ({"metadata": dict(webhook.metadata)} if webhook.metadata else {})
            self._put(connection, notice_id, job.tenant, webhook.url, webhook.secret, own)
        for endpoint in endpoints:
            self._put(connection, notice_id + endpoint_suffix(endpoint.id), job.tenant, endpoint.url, endpoint.secret, event)

    def _put(self, connection: Connection, notice_id: str, tenant: str, url: str, secret: str, event: Mapping[str, Any]) -> None:
        body = json.dumps({"url": url, "secret": secret, "event": json.dumps(event)})
        now = self._now()
        row = {"id": notice_id, "kind": KIND, "tenant": tenant, "body": body, "attempts": 0, "next_at": now, "created_at": now}
        put_if_absent(connection, OUTBOX, row)


class NoticeTable:
    """Notices that are still to be sent. One that was sent is removed, and its secret with it.

    Methods raise StageUnavailable where the database does not answer.
    """

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database = database
        self._now = now

    async def take(self, places: Places, lease_s: float) -> list[Notice]:
        """Those that are due and have a place. Others do not get them for so long, and after that, if nothing is heard, they do."""
        return await self._database.run(partial(self._take, places, lease_s))

    async def done(self, notice_id: str) -> None:
        """It was sent, or is given up."""
        await self._database.run(_writing(delete(OUTBOX).where(OUTBOX.c.id == notice_id)))

    async def later(self, notice_id: str, after_s: float) -> None:
        """It is due again when so long has passed."""
        await self._database.run(_writing(update(OUTBOX).where(OUTBOX.c.id == notice_id).values(next_at=self._now() + after_s)))

    def _take(self, places: Places, lease_s: float, connection: Connection) -> list[Notice]:
        now = self._now()
        ids = _due(connection, now, places)
        if not ids:
            return []
        taken = (
            update(OUTBOX)
            .where(OUTBOX.c.id.in_(ids))
            .values(next_at=now + lease_s, attempts=OUTBOX.c.attempts + 1)
            .returning(OUTBOX.c.id, OUTBOX.c.body, OUTBOX.c.attempts, _TENANT)
        )
        return [_notice(row.id, row.body, row.attempts, row.tenant) for row in connection.execute(taken)]


def _due(connection: Connection, now: float, places: Places) -> list[str]:
    """The oldest of each tenant that has a place."""
    due = (text("done_at IS NULL"), OUTBOX.c.kind == KIND, OUTBOX.c.next_at <= now)
    rows = connection.execute(select(_TENANT, func.min(OUTBOX.c.next_at).label("since")).where(*due).group_by(_TENANT)).all()
    found: list[str] = []
    for tenant, number in shares({row.tenant: row.since for row in rows}, places).items():
        oldest = select(OUTBOX.c.id).where(*due, _TENANT.in_([tenant])).order_by(OUTBOX.c.next_at).limit(number)
        found += connection.scalars(oldest.with_for_update(skip_locked=True)).all()
    return found


def _writing(statement: Executable) -> Callable[[Connection], None]:
    def write(connection: Connection) -> None:
        connection.execute(statement)

    return write


def _notice(notice_id: str, body: str, attempts: int, tenant: str) -> Notice:
    read = json.loads(body)
    return Notice(notice_id, read["url"], read["event"], attempts, read["secret"], tenant)
