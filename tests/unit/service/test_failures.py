"""What callers and metrics are told of an error: said in one place, in words that both know."""

from __future__ import annotations

import pytest

from model_core.errors import CapacityExceeded, FieldViolation, InvalidRequest, StageUnavailable
from observability.catalogue import OUTCOME
from service.call import FileTooLarge, ReaderStalled
from service.failures import BodyTooLarge, Kind, NotServed, failure_of, outcome_of
from service.identity.principal import Forbidden, QuotaExceeded, Unauthenticated
from service.jobs.job import IdempotencyConflict, JobNotFound, JobNotReady
from service.records.store import SessionMismatch, SessionMoved, SessionNotFound

KNOWN: list[tuple[Exception, Kind, str]] = [
    (InvalidRequest((FieldViolation("prompt", "is required"),)), Kind.INVALID, "invalid"),
    (Unauthenticated("who?"), Kind.UNAUTHENTICATED, "unauthenticated"),
    (Forbidden("not that"), Kind.FORBIDDEN, "forbidden"),
    (JobNotFound("no job"), Kind.NOT_FOUND, "unknown"),
    (SessionNotFound("no session"), Kind.NOT_FOUND, "unknown"),
    (SessionMismatch("another model"), Kind.CONFLICT, "unknown"),
    (SessionMoved("elsewhere"), Kind.CONFLICT, "moved"),
    (IdempotencyConflict("used"), Kind.CONFLICT, "conflict"),
    (JobNotReady("later"), Kind.NOT_READY, "not_ready"),
    (FileTooLarge(2, 1), Kind.TOO_LARGE, "too_large"),
    (BodyTooLarge(2, 1), Kind.TOO_LARGE, "too_large"),
    (CapacityExceeded("full", 1.0), Kind.BUSY, "refused"),
    (QuotaExceeded("spent", limit="budget_seconds", allowed=1, used=1), Kind.QUOTA, "quota"),
    (StageUnavailable("away"), Kind.UNAVAILABLE, "unavailable"),
    (ReaderStalled("reads nothing"), Kind.STALLED, "stalled"),
    (NotServed("no database"), Kind.NOT_SERVED, "not_served"),
    (ValueError("a defect"), Kind.INTERNAL, "internal"),
]


@pytest.mark.parametrize(("error", "kind", "outcome"), KNOWN, ids=lambda value: type(value).__name__)
def test_an_error_is_of_one_kind_and_counted_by_a_word_of_the_catalogue(error: Exception, kind: Kind, outcome: str) -> None:
    assert failure_of(error, "request-1").kind is kind
    assert outcome_of(error) == outcome
    assert outcome in OUTCOME.values


def test_every_kind_is_of_some_error_and_is_counted() -> None:
    assert {kind for _, kind, _ in KNOWN} == set(Kind)
    assert {kind.value for kind in Kind} <= set(OUTCOME.values)
