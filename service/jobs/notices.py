"""Notices of jobs that ended, for webhooks: written where the job ends, in the same transaction, and taken from there to be sent."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
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

    async def take(self, most: int, lease_s: float, each: int | None = None, sending: Mapping[str, int] | None = None) -> list[Notice]:
        """Up to `most` that are due. Others do not get them for so long, and after that, if nothing is heard, they do.

        Args:
            each: how many of one tenant, with those that it has in `sending`; None: any number. Others' are found behind them.
            sending: by tenant, those that were taken before and are not over.
        """
        return await self._database.run(partial(self._take, most, lease_s, most if each is None else each, sending or {}))

    async def done(self, notice_id: str) -> None:
        """It was sent, or is given up."""
        await self._database.run(_writing(delete(OUTBOX).where(OUTBOX.c.id == notice_id)))

    async def later(self, notice_id: str, after_s: float) -> None:
        """It is due again when so long has passed."""
        await self._database.run(_writing(update(OUTBOX).where(OUTBOX.c.id == notice_id).values(next_at=self._now() + after_s)))

    def _take(self, most: int, lease_s: float, each: int, sending: Mapping[str, int], connection: Connection) -> list[Notice]:
        now = self._now()
        ids = _due(connection, now, most, each, Counter(sending))
        if not ids:
            return []
        taken = (
            update(OUTBOX)
            .where(OUTBOX.c.id.in_(ids))
            .values(next_at=now + lease_s, attempts=OUTBOX.c.attempts + 1)
            .returning(OUTBOX.c.id, OUTBOX.c.body, OUTBOX.c.attempts, _TENANT)
        )
        return [_notice(row.id, row.body, row.attempts, row.tenant) for row in connection.execute(taken)]


def _due(connection: Connection, now: float, most: int, each: int, held: Counter[str]) -> list[str]:
    """The oldest, at most `most`, with at most `each` of one tenant, counting what it has in `held`.

    Each look but the last finds one at least, since it leaves out tenants that have as many as they may.
    """
    found: list[str] = []
    while len(found) < most:
        full = [tenant for tenant, number in held.items() if number >= each]
        due = (
            select(OUTBOX.c.id, _TENANT)
            .where(text("done_at IS NULL"), OUTBOX.c.kind == KIND, OUTBOX.c.next_at <= now)
            .where(_TENANT.not_in(full), OUTBOX.c.id.not_in(found))
            .order_by(OUTBOX.c.next_at)
            .limit(most - len(found))
            .with_for_update(skip_locked=True)
        )
        rows = connection.execute(due).all()
        if not rows:
            break
        for row in rows:
            if held[row.tenant] < each:
                held[row.tenant] += 1
                found.append(row.id)
    return found


def _writing(statement: Executable) -> Callable[[Connection], None]:
    def write(connection: Connection) -> None:
        connection.execute(statement)

    return write


def _notice(notice_id: str, body: str, attempts: int, tenant: str) -> Notice:
    read = json.loads(body)
    return Notice(notice_id, read["url"], read["event"], attempts, read["secret"], tenant)
