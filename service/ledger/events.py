"""Reports usage to other systems: one CloudEvent 1.0 a row, as lines of JSON in a folder, or by HTTP POST.

A row's notice lies in the outbox from the row's first write on. It is delivered when the row has settled, as the row is by then, at least
once. Receivers drop what they have: `id` and `source` together name an event.
"""

from __future__ import annotations

import asyncio
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, delete, literal_column, select, update

from model_core.tasks import cancel_and_wait, run_in_thread, unless
from observability.metrics import Metrics
from service.clock import Clock
from service.database.schema import LEDGER, OUTBOX
from service.ledger.interface import Transactions, UsageRow
from service.ledger.table import EVENT, LedgerTable, event_id, matches, one_at_a_time, read

EVENT_TYPE = "headrace.video.generated"
EVENT_SOURCE = "/headrace/ledger"
BATCH_TYPE = "application/cloudevents-batch+json"

EVERY_S = 5.0
_AT_ONCE = 200
# Whoever took notices and died leaves them to others after so long; it must be longer than a delivery may take.
_LEASE_S = 60.0
_TIMEOUT_S = 20.0
_MAX_BACKOFF_S = 3600.0
_KEEP_DONE_S = 7 * 86_400.0
_FORGET_EVERY_S = 3600.0

log = logging.getLogger(__name__)

Notice = tuple[str, int, UsageRow | None]
"""Its id in the outbox, attempts with this one, and its row; None where that is gone."""


class Sink(Protocol):
    """Where events go. It is called in a thread."""

    def deliver(self, events: Sequence[dict[str, Any]]) -> None:
        """Return when `events` are safe there. Raises OSError: they are not, and come again."""
        ...


class FolderSink:
    """Lines of JSON in files of a folder, one file a day and process, so that no two processes write to the same one.

    Args:
        folder: made if it is not there.
        writer: what no other process is called.
        wall: Unix time.
    """

    def __init__(self, folder: Path, writer: str, wall: Callable[[], float]) -> None:
        self._folder = folder
        self._writer = writer
        self._wall = wall

    def deliver(self, events: Sequence[dict[str, Any]]) -> None:
        """See `Sink`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        day = datetime.fromtimestamp(self._wall(), UTC).date().isoformat()
        lines = "".join(json.dumps(event) + "\n" for event in events)
        with (self._folder / f"usage-{day}-{self._writer}.jsonl").open("a", encoding="utf-8") as file:
            file.write(lines)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST would be sent again as a GET, without its events."""

    def redirect_request(self, *_: Any) -> None:
        """An answer of 3xx is a failure."""


class HttpSink:
    """A POST for each batch, as the CloudEvents HTTP binding has it. `url` is http or https, and is the operator's."""

    def __init__(self, url: str, headers: dict[str, str] | None = None, timeout_s: float = _TIMEOUT_S) -> None:
        self._url = url
        self._headers = headers or {}
        self._timeout_s = timeout_s
        self._opener = urllib.request.build_opener(_NoRedirects)

    def deliver(self, events: Sequence[dict[str, Any]]) -> None:
        """See `Sink`. Anything but an answer of 2xx is a failure."""
        body = json.dumps(list(events)).encode()
        request = urllib.request.Request(self._url, body, {**self._headers, "Content-Type": BATCH_TYPE}, method="POST")  # noqa: S310
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                answer.read(1024)
        except urllib.error.HTTPError as error:
            with error:
                raise OSError(f"answered {error.code}") from None
        except HTTPException as error:
            raise OSError(f"answered no HTTP: {error!r}") from None


def cloud_event(row: UsageRow) -> dict[str, Any]:
    """The event of a row. Numbers carry their units in their names."""
    return {
        "specversion": "1.0", "id": event_id(row.source, row.interval), "source": EVENT_SOURCE, "type": EVENT_TYPE, "subject": row.tenant,
        "time": datetime.fromtimestamp(row.started_at, UTC).isoformat().replace("+00:00", "Z"), "datacontenttype": "application/json",
        "data": {
            "kind": row.kind.value, row.kind.value: row.source, "first_frame": row.interval, "tenant": row.tenant, "door": row.door,
            "model": row.model, "tier": row.tier, "frames": row.frames, "video_seconds": row.video_seconds, "pixels": row.pixels,
            "denoise_steps": row.steps, "text_seconds": row.text_seconds, "denoise_seconds": row.denoise_seconds,
            "decode_seconds": row.decode_seconds,
        },
    }  # fmt: skip


class UsageExporter:
    """Delivers what the outbox holds of usage. Each front door has one; a notice is one's at a time.

    Args:
        database: where the outbox is.
        table: forgets legs that are long over, now and then.
        sink: where events go.
        metrics, clock: for counting and waiting.
        wall: Unix time.
        every_s: from one look to the next.
    """

    def __init__(
        self,
        database: Transactions,
        table: LedgerTable,
        sink: Sink,
        metrics: Metrics,
        clock: Clock,
        wall: Callable[[], float],
        *,
        every_s: float = EVERY_S,
    ) -> None:
        self._database = database
        self._table = table
        self._sink = sink
        self._errors = metrics.ledger_errors_total.labels("events")
        self._clock = clock
        self._wall = wall
        self._every_s = every_s
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._forgot_at: float | None = None

    def start(self) -> None:
        """Deliver from now on, until `aclose`."""
        self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Stop. What is not delivered stays in the outbox."""
        self._closing.set()
        if self._task is not None and (await asyncio.wait({self._task}, timeout=_TIMEOUT_S))[1]:
            await cancel_and_wait(self._task)

    async def deliver(self) -> int:
        """Deliver what is due, and return how many events that were. Raises whatever the database raises."""
        notices = await self._database.run(partial(_take, self._wall()))
        if not notices:
            return 0
        events = [cloud_event(row) for _, _, row in notices if row is not None]
        try:
            if events:
                await run_in_thread(self._sink.deliver, events)
        except OSError as error:
            self._errors.inc()
            log.warning("%d usage events cannot be delivered and wait: %s", len(events), error)
            await self._database.run(partial(_put_back, self._wall(), notices))
            return 0
        await self._database.run(partial(_done, self._wall(), notices))
        return len(events)

    async def _run(self) -> None:
        while not self._closing.is_set():
            try:
                while await self.deliver() and not self._closing.is_set():
                    pass
                await self._forget()
            except Exception as error:  # noqa: BLE001 - of the database or its driver: the next round tries again
                self._errors.inc()
                log.warning("the outbox of usage events cannot be read: %s", error)
            await unless(self._closing, self._clock.sleep(self._every_s))

    async def _forget(self) -> None:
        now = self._clock.now()
        if self._forgot_at is None or now - self._forgot_at >= _FORGET_EVERY_S:
            self._forgot_at = now
            await self._database.run(partial(_forget, self._table, self._wall() - _KEEP_DONE_S))


def _take(now: float, connection: Connection) -> list[Notice]:
    """Notices that are due, with their rows. Nobody else gets them for a while."""
    one_at_a_time(connection)
    due = (
        select(OUTBOX.c.id, OUTBOX.c.body, OUTBOX.c.attempts)
        .where(literal_column("done_at").is_(None), OUTBOX.c.kind == EVENT, OUTBOX.c.next_at <= now)
        .order_by(OUTBOX.c.next_at)
        .limit(_AT_ONCE)
    )
    taken: list[Notice] = []
    for notice in connection.execute(due).all():
        body = json.loads(notice.body)
        row = connection.execute(select(LEDGER).where(matches(body["source"], body["interval"]))).first()
        taken.append((notice.id, notice.attempts + 1, None if row is None else read(row)))
    if taken:
        ids = [notice_id for notice_id, _, _ in taken]
        mine = update(OUTBOX).where(OUTBOX.c.id.in_(ids))
        connection.execute(mine.values(attempts=OUTBOX.c.attempts + 1, next_at=now + _LEASE_S))
    return taken


def _put_back(now: float, notices: Sequence[Notice], connection: Connection) -> None:
    """To be tried again, later each time."""
    for notice_id, attempts, _ in notices:
        delay_s = min(_MAX_BACKOFF_S, 5.0 * 2.0 ** min(attempts, 20))
        connection.execute(update(OUTBOX).where(OUTBOX.c.id == notice_id).values(next_at=now + delay_s))


def _done(now: float, notices: Sequence[Notice], connection: Connection) -> None:
    connection.execute(update(OUTBOX).where(OUTBOX.c.id.in_([notice_id for notice_id, _, _ in notices])).values(done_at=now))


def _forget(table: LedgerTable, before: float, connection: Connection) -> None:
    """A delivered notice stays for a while, so that a late write of its row does not report it again."""
    connection.execute(delete(OUTBOX).where(OUTBOX.c.kind == EVENT, OUTBOX.c.done_at < before))
    table.forget_legs(connection, before)
