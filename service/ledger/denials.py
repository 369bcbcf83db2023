"""Writes down callers that are turned away because nobody knows them, but not so many that they could fill the database."""

from __future__ import annotations

from collections.abc import Callable

from service.identity.principal import Unauthenticated
from service.ledger.interface import Audit, AuditEntry, NoAudit, Outcome

OPERATION = "authenticate"
MOST_A_MINUTE = 60


class Denials:
    """One for all doors of a front door. Of each minute, the first ones have entries of their own; the rest are counted in one.

    Args:
        audit: takes the entries.
        wall: Unix time.
    """

    def __init__(self, audit: Audit | None = None, wall: Callable[[], float] = lambda: 0.0) -> None:
        self._audit = audit or NoAudit()
        self._wall = wall
        self._minute = 0
        self._noted = 0
        self._more = 0

    def note(self, door: str, address: str, error: Exception, request_id: str = "") -> None:
        """A call of `door` ended with `error`. Only that of an unknown caller counts."""
        if not isinstance(error, Unauthenticated):
            return
        if (minute := int(self._wall() // 60)) != self._minute:
            self._minute = minute
            self.settle()
        if self._noted >= MOST_A_MINUTE:
            self._more += 1
            return
        self._noted += 1
        denied = AuditEntry(
            operation=OPERATION, outcome=Outcome.DENIED, address=address, reason=str(error), request_id=request_id, detail={"door": door}
        )
        self._audit.note(denied)

    def settle(self) -> None:
        """Write down how many callers have no entry of their own."""
        if self._more:
            reason = "further callers were turned away in that minute"
            self._audit.note(AuditEntry(operation=OPERATION, outcome=Outcome.DENIED, reason=reason, detail={"callers": self._more}))
        self._noted = self._more = 0
