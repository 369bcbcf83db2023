"""Writes usage and audit entries in batches, beside the sessions and never in their way.

What waits is bounded. While the database is away it is tried again and again; what no longer fits is dropped and counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import islice
from typing import Any

from model_core.tasks import cancel_and_wait, unless
from observability.metrics import Metrics
from service.clock import Clock
from service.ledger.interface import AuditAppender, AuditEntry, Outcome, Transactions, UsageRow
from service.ledger.table import LedgerTable, Resumed

EVERY_S = 2.0
MOST_ROWS = 20_000
MOST_ENTRIES = 20_000
CLOSING_S = 5.0
_AT_ONCE = 1000  # rows or entries in one transaction
_COMPLAIN_EVERY_S = 30.0

log = logging.getLogger(__name__)


class _Batches:
    """Runs `flush` again and again, and says, now and then, that it fails."""

    def __init__(
        self, book: str, metrics: Metrics, clock: Clock, every_s: float, closing_s: float, flush: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        self._book = book
        self._closing_s = closing_s
        self._errors = metrics.ledger_errors_total.labels(book)
        self._dropped = metrics.ledger_dropped_total.labels(book)
        self._clock = clock
        self._every_s = every_s
        self._flush = flush
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._complained_at: float | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Write what is left, if the database takes it soon."""
        self._closing.set()
        last = self._task or asyncio.create_task(self.try_flush())
        # Not cancelled while it writes: what is written, and not known to be, would be written again.
        if (await asyncio.wait({last}, timeout=self._closing_s))[1]:
            log.warning("%s: the database does not answer; what was not written is lost", self._book)
            await cancel_and_wait(last)

    def dropped(self, number: int = 1) -> None:
        self._dropped.inc(number)

    async def _run(self) -> None:
        over = False
        while not over:
            await unless(self._closing, self._clock.sleep(self._every_s))
            over = self._closing.is_set()
            await self.try_flush()

    async def try_flush(self) -> None:
        """Nothing that goes wrong with the database ends the task: the next round tries again."""
        try:
            await self._flush()
        except Exception as error:  # noqa: BLE001 - of the database or its driver; each means the same
            self._errors.inc()
            now = self._clock.now()
            if self._complained_at is None or now - self._complained_at >= _COMPLAIN_EVERY_S:
                self._complained_at = now
                log.warning("%s cannot be written and waits: %s", self._book, error)


class LedgerWriter:
    """The ledger of one front door; see `service.ledger.interface.Ledger`.

    Args:
        database: where rows go.
        table: how they are written.
        metrics, clock: for counting and waiting.
        wall: Unix time.
        every_s: from one write to the next. A front door that is killed loses the usage of so many seconds at most.
        most: rows that may wait. Each session has one or two.
        closing_s: how long the last write may take.
    """

    def __init__(
        self,
        database: Transactions,
        table: LedgerTable,
        metrics: Metrics,
        clock: Clock,
        wall: Callable[[], float],
        *,
        every_s: float = EVERY_S,
        most: int = MOST_ROWS,
        closing_s: float = CLOSING_S,
    ) -> None:
        self._database = database
        self._table = table
        self._wall = wall
        self._most = most
        self._rows: dict[tuple[str, int], UsageRow] = {}
        self._resumed: dict[tuple[str, float], Resumed] = {}
        self._batches = _Batches("usage", metrics, clock, every_s, closing_s, self.flush)

    def start(self) -> None:
        """Write from now on, until `aclose`."""
        self._batches.start()

    async def aclose(self) -> None:
        """Write what is left. Call it after the last session."""
        await self._batches.aclose()

    def record(self, row: UsageRow) -> None:
        """See `Ledger`. Where too many wait, the one that has waited longest goes."""
        self._rows[row.source, row.interval] = row
        if len(self._rows) > self._most:
            del self._rows[next(iter(self._rows))]
            self._batches.dropped()

    def resumed(self, source: str, frame: int, leg: float) -> None:
        """See `Ledger`."""
        known = self._resumed.get((source, leg))
        self._resumed[source, leg] = Resumed(source, frame if known is None else min(frame, known.frame), leg)
        if len(self._resumed) > self._most:
            del self._resumed[next(iter(self._resumed))]
            self._batches.dropped()

    async def flush(self) -> None:
        """Write everything that waits now. Raises whatever the database raises; what was not written waits again."""
        while self._rows or self._resumed:
            rows = {key: self._rows.pop(key) for key in list(self._rows)[:_AT_ONCE]}
            legs = {key: self._resumed.pop(key) for key in list(self._resumed)[:_AT_ONCE]}
            written = False
            try:
                await self._database.run(partial(_write, self._table, list(legs.values()), list(rows.values()), self._wall()))
                written = True
            finally:
                if not written:  # also if this task is cancelled: a row may be written twice, never lost
                    for (source, leg), known in legs.items():
                        self.resumed(source, known.frame, leg)
                    self._rows = rows | self._rows


def _write(table: LedgerTable, legs: list[Resumed], rows: list[UsageRow], now: float, connection: Any) -> None:
    table.resumed(connection, legs, now)
    table.write(connection, rows, now)


class AuditWriter:
    """The audit log of one front door; see `service.ledger.interface.Audit`.

    Args:
        as `LedgerWriter`; `log` appends the entries.
        most: entries that may wait. What comes beyond that is dropped, and a last entry says how many those were.
    """

    def __init__(
        self,
        database: Transactions,
        log: AuditAppender,
        metrics: Metrics,
        clock: Clock,
        wall: Callable[[], float],
        *,
        every_s: float = EVERY_S,
        most: int = MOST_ENTRIES,
        closing_s: float = CLOSING_S,
    ) -> None:
        self._database = database
        self._log = log
        self._wall = wall
        self._most = most
        self._entries: deque[AuditEntry] = deque()
        self._lost = 0
        self._batches = _Batches("audit", metrics, clock, every_s, closing_s, self.flush)

    def start(self) -> None:
        """Write from now on, until `aclose`."""
        self._batches.start()

    async def aclose(self) -> None:
        """Write what is left. Call it after the last call."""
        await self._batches.aclose()

    def note(self, entry: AuditEntry) -> None:
        """See `Audit`."""
        if len(self._entries) >= self._most:
            self._lost += 1
            self._batches.dropped()
            return
        self._entries.append(entry.taken_at(self._wall()))

    async def flush(self) -> None:
        """Write everything that waits now. Raises whatever the database raises; what was not written waits on, in its order."""
        while self._entries:
            some = list(islice(self._entries, _AT_ONCE))
            await self._database.run(partial(_append, self._log, some))
            for _ in some:
                self._entries.popleft()
        if self._lost:
            lost, reason = self._lost, "too many entries waited while the database was away"
            gap = AuditEntry(operation="audit.gap", outcome=Outcome.FAILED, reason=reason, detail={"entries": lost}, at=self._wall())
            await self._database.run(partial(_append, self._log, [gap]))
            self._lost -= lost


def _append(log: AuditAppender, entries: list[AuditEntry], connection: Any) -> None:
    log.append(connection, entries)
