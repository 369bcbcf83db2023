"""One line a request, with nothing in it that a caller meant to keep for itself: no query, no header, no body.

A caller that polls gets one line in a while, and the rest of its polls are counted: a line takes longer than the answer to a poll does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from doors.http.credentials import scrubbed

EVERY_S = 10.0

_SHOWN_CHARS = 200
# Larger ones are files, of which each counts.
_POLL_BYTES = 16 * 1024
_MOST_POLLERS = 1024

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


@dataclass(frozen=True, slots=True)
class Poller:
    """Who asks for what."""

    operation: str
    tenant: str
    subject: str


class Polls:
    """Which polls are written, and how many are not. A poll is a short good answer to GET. Pure.

    Args:
        every_s: how often a poll of the same poller is written.
        most: pollers that are told apart.
    """

    def __init__(self, every_s: float = EVERY_S, most: int = _MOST_POLLERS) -> None:
        self._every_s = every_s
        self._most = most
        self._counts: dict[tuple[str, str, str], int] = {}
        self._began = 0.0

    def written(self, operation: str, tenant: str, subject: str, now: float) -> bool:
        """Whether this poll gets a line of its own; otherwise it is counted."""
        if not self._counts:
            self._began = now
        poller = (operation, tenant, subject)
        count = self._counts.get(poller)
        if count is None and len(self._counts) >= self._most:
            poller = (operation, "", "")
            count = self._counts.get(poller, 0)
        self._counts[poller] = 0 if count is None else count + 1
        return count is None

    def due_in(self, now: float) -> float | None:
        """Seconds until `told` is to be called; None while there is nothing to tell."""
        return max(0.0, self._began + self._every_s - now) if self._counts else None

    def told(self) -> Sequence[tuple[Poller, int]]:
        """Those whose polls were counted, and how many. They begin anew."""
        counts, self._counts = self._counts, {}
        return [(Poller(*poller), count) for poller, count in counts.items() if count]


class AccessLog:
    """Writes the lines. One for each door, in its event loop.

    Args:
        now: seconds that do not go back.
        every_s: see `Polls`.
    """

    def __init__(self, now: Callable[[], float], every_s: float = EVERY_S) -> None:
        self._now = now
        self._every_s = every_s
        self._polls = Polls(every_s)
        self._telling: asyncio.TimerHandle | None = None

    def poll(self, method: str, status: int, size: int, operation: str, tenant: str, subject: str) -> bool:
        """Whether this request is a poll that gets no line; it is counted then."""
        if method != "GET" or status != 200 or size > _POLL_BYTES or not log.isEnabledFor(logging.INFO):
            return False
        written = self._polls.written(operation, tenant, subject, now := self._now())
        if self._telling is None and (due_s := self._polls.due_in(now)) is not None:
            self._telling = asyncio.get_running_loop().call_later(due_s, self._tell)
        return not written

    def close(self) -> None:
        """Tell what was counted."""
        if self._telling is not None:
            self._telling.cancel()
            self._tell()

    def _tell(self) -> None:
        self._telling = None
        for poller, count in self._polls.told():
            whose = f"{poller.subject or 'nobody'} of {poller.tenant or '-'}"
            log.info("GET %s 200, %d more in about %g s; %s", poller.operation, count, self._every_s, whose)


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
