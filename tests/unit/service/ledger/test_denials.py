"""Callers that are turned away are in the audit log, however many there are, and do not fill it."""

from __future__ import annotations

from model_core.errors import StageUnavailable
from service.identity.principal import Forbidden, Unauthenticated
from service.ledger.denials import MOST_A_MINUTE, Denials
from service.ledger.interface import AuditEntry, Outcome

UNKNOWN = Unauthenticated("the key is not known")


class Log:
    """An audit log that is a list."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []

    def note(self, entry: AuditEntry) -> None:
        self.entries.append(entry)


def test_a_caller_that_nobody_knows_is_written_down() -> None:
    log = Log()
    denials = Denials(log, lambda: 0.0)
    denials.note("grpc", "192.0.2.7", UNKNOWN, "r1")
    denials.note("grpc", "192.0.2.7", Forbidden("not for this model"))
    denials.note("grpc", "192.0.2.7", StageUnavailable("away"))
    (entry,) = log.entries
    assert (entry.operation, entry.outcome, entry.address, entry.reason, entry.request_id) == (
        "authenticate", Outcome.DENIED, "192.0.2.7", "the key is not known", "r1",
    )  # fmt: skip
    assert entry.detail == {"door": "grpc"}


def test_of_a_flood_the_first_have_entries_and_the_rest_are_counted() -> None:
    log, now = Log(), [30.0]
    denials = Denials(log, lambda: now[0])
    for _ in range(5 * MOST_A_MINUTE):
        denials.note("openai", "192.0.2.7", UNKNOWN)
    assert len(log.entries) == MOST_A_MINUTE
    now[0] = 61.0
    denials.note("openai", "192.0.2.8", UNKNOWN)
    more, newest = log.entries[MOST_A_MINUTE:]
    assert more.detail == {"callers": 4 * MOST_A_MINUTE}
    assert newest.address == "192.0.2.8"


def test_what_was_counted_is_written_at_the_end() -> None:
    log = Log()
    denials = Denials(log, lambda: 0.0)
    for _ in range(MOST_A_MINUTE + 3):
        denials.note("grpc", "", UNKNOWN)
    denials.settle()
    denials.settle()
    assert [entry.detail for entry in log.entries[MOST_A_MINUTE:]] == [{"callers": 3}]
