"""The ledger, the audit log and the events of one front door, opened and closed together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from observability.metrics import Metrics
from service.clock import Clock
from service.identity.principal import Principal
from service.ledger.audit import AuditTable
from service.ledger.denials import Denials
from service.ledger.events import Sink, UsageExporter
from service.ledger.interface import Audit, AuditEntry, Ledger, NoAudit, NoLedger, Transactions
from service.ledger.table import LedgerTable
from service.ledger.writer import EVERY_S, AuditWriter, LedgerWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class BooksPolicy:
    """How the books are kept.

    Attributes:
        write_every_s: from one write to the next.
        settle_s: see `LedgerTable`; longer than a session can be resumed after its connection broke.
    """

    write_every_s: float = EVERY_S
    settle_s: float = 180.0


class Books:
    """What a front door writes of its callers.

    Attributes:
        ledger, audit: for sessions and doors. Without a database they take everything and keep nothing.
        denials: for doors: callers that they turn away.
        table: writes rows in a transaction of somebody else's; see `RowWriter`.
        log: appends entries in one; see `AuditAppender`.

    Args:
        database: None for a server without one.
        sink: where usage events go; None for nowhere.
        policy: how often, and for how long.
        metrics, clock: for counting and waiting.
        wall: Unix time.
    """

    def __init__(
        self,
        database: Transactions | None,
        sink: Sink | None,
        policy: BooksPolicy,
        metrics: Metrics,
        clock: Clock,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.ledger: Ledger = NoLedger()
        self.audit: Audit = NoAudit()
        self.table = LedgerTable(events=sink is not None, settle_s=policy.settle_s)
        self.log = AuditTable()
        self._wall = wall
        self._parts: list[LedgerWriter | AuditWriter | UsageExporter] = []
        self.denials = Denials()
        if database is None:
            return
        every_s = policy.write_every_s
        self.ledger = ledger = LedgerWriter(database, self.table, metrics, clock, wall, every_s=every_s)
        self.audit = audit = AuditWriter(database, self.log, metrics, clock, wall, every_s=every_s)
        self._parts = [ledger, audit]
        self.denials = Denials(audit, wall)
        if sink is not None:
            self._parts.append(UsageExporter(database, self.table, sink, metrics, clock, wall))

    def append(self, connection: Connection, principal: Principal, operation: str, resource: str) -> None:
        """Append an entry about a change in the transaction that makes it."""
        entry = AuditEntry(
            operation=operation, principal=principal, address=principal.address, resource=resource, at=self._wall()
        )  # fmt: skip
        self.log.append(connection, [entry])

    def start(self) -> None:
        """Write from now on."""
        for part in self._parts:
            part.start()

    async def aclose(self) -> None:
        """Write what is left. Call it after the last call, and before the database is closed."""
        self.denials.settle()
        for part in self._parts:
            await part.aclose()
