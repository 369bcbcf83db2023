"""One line a request, with nothing in it that a caller meant to keep for itself: no query, no header, no body."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from doors.http.credentials import scrubbed

_SHOWN_CHARS = 200

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one request came to.

    Attributes:
        operation: the room's and the endpoint's name; empty where there is no such path.
        subject: of the credential; never a secret.
        status: 0 where no answer was begun.
        size: bytes of the answer's body.
        hidden: secrets that the request held.
    """

    request_id: str
    address: str
    method: str
    path: str
    operation: str
    tenant: str
    subject: str
    status: int
    size: int
    seconds: float
    outcome: str
    hidden: Sequence[str] = ()


def write(entry: Entry) -> None:
    if not log.isEnabledFor(logging.INFO):
        return
    log.info(
        "%s %s %s %d, %d bytes in %.3f s; %s of %s from %s: %s; request %s",
        entry.method, _plain(entry.path, entry.hidden), entry.operation or "-", entry.status, entry.size, entry.seconds,
        entry.subject or "nobody", entry.tenant or "-", entry.address or "-", entry.outcome, entry.request_id,
    )  # fmt: skip


def _plain(path: str, hidden: Sequence[str]) -> str:
    """On one line, and without what would look like another line."""
    return scrubbed(ascii(path[:_SHOWN_CHARS])[1:-1], hidden)
