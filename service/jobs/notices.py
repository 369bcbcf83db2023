"""Notices of jobs that ended, for webhooks: written where the job ends, in the same transaction, and taken from there to be sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Connection, Executable, delete, select, text, update

from service.database.engine import Database, put_if_absent
from service.database.schema import OUTBOX
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
        if webhook is None or job.status is JobStatus.CANCELLED:
            return
        event = dict(self._shapes.get(job.door, plain_shape)(job))
        if webhook.metadata:
            event["metadata"] = dict(webhook.metadata)
        body = json.dumps({"url": webhook.url, "secret": webhook.secret, "event": json.dumps(event)})
        now = self._now()
        row = {"id": f"{KIND}-{job.id}-{job.status.value}", "kind": KIND, "body": body, "attempts": 0, "next_at": now, "created_at": now}
        put_if_absent(connection, OUTBOX, row)


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
