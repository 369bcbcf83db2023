"""Notices of jobs that ended, for webhooks: written where the job ends, in the same transaction, and taken from there to be sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Connection, Executable, delete, select, text, update

from service.database.engine import Database, put_if_absent
from service.database.schema import ENDPOINTS, OUTBOX
from service.jobs.job import Job, JobStatus
from service.jobs.work import EndedJob

KIND = "webhook"

Shape = Callable[[Job], Mapping[str, Any]]
"""What a door's callers are told of a job that is over."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One notice, to be sent.

    Attributes:
        id: the same however often it is sent; receivers drop what they have.
        attempts: with this one.
        body: JSON.
    """

    id: str
    url: str
    body: str
    attempts: int
    secret: str = field(default="", repr=False)


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
            self._put(connection, notice_id, webhook.url, webhook.secret, own)
        for endpoint in endpoints:
            self._put(connection, notice_id + endpoint_suffix(endpoint.id), endpoint.url, endpoint.secret, event)

    def _put(self, connection: Connection, notice_id: str, url: str, secret: str, event: Mapping[str, Any]) -> None:
        body = json.dumps({"url": url, "secret": secret, "event": json.dumps(event)})
        now = self._now()
        put_if_absent(connection, OUTBOX, {"id": notice_id, "kind": KIND, "body": body, "attempts": 0, "next_at": now, "created_at": now})


class NoticeTable:
    """Notices that are still to be sent. One that was sent is removed, and its secret with it.

    Methods raise StageUnavailable where the database does not answer.
    """

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database = database
        self._now = now

    async def take(self, most: int, lease_s: float) -> list[Notice]:
        """Up to `most` that are due. Others do not get them for so long, and after that, if nothing is heard, they do."""
        return await self._database.run(partial(self._take, most, lease_s))

    async def done(self, notice_id: str) -> None:
        """It was sent, or is given up."""
        await self._database.run(_writing(delete(OUTBOX).where(OUTBOX.c.id == notice_id)))

    async def later(self, notice_id: str, after_s: float) -> None:
        """It is due again when so long has passed."""
        await self._database.run(_writing(update(OUTBOX).where(OUTBOX.c.id == notice_id).values(next_at=self._now() + after_s)))

    def _take(self, most: int, lease_s: float, connection: Connection) -> list[Notice]:
        now = self._now()
        due = (
            select(OUTBOX.c.id)
            .where(text("done_at IS NULL"), OUTBOX.c.kind == KIND, OUTBOX.c.next_at <= now)
            .order_by(OUTBOX.c.next_at)
            .limit(most)
            .with_for_update(skip_locked=True)
        )
        ids = connection.scalars(due).all()
        if not ids:
            return []
        taken = (
            update(OUTBOX)
            .where(OUTBOX.c.id.in_(ids))
            .values(next_at=now + lease_s, attempts=OUTBOX.c.attempts + 1)
            .returning(OUTBOX.c.id, OUTBOX.c.body, OUTBOX.c.attempts)
        )
        return [_notice(row.id, row.body, row.attempts) for row in connection.execute(taken)]


def _writing(statement: Executable) -> Callable[[Connection], None]:
    def write(connection: Connection) -> None:
        connection.execute(statement)

    return write


def _notice(notice_id: str, body: str, attempts: int) -> Notice:
    read = json.loads(body)
    return Notice(notice_id, read["url"], read["event"], attempts, read["secret"])
