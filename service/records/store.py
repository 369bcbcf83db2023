"""Where sessions are written down, so that another front door can go on with them: the protocol, and the store of a single process.

A session is found by its token and has one holder, the connection that serves it. Who claims it becomes the holder; a write by anyone else
is refused and changes nothing, which is how a holder learns that it has lost the session.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from model_core.errors import HeadraceError
from service.clock import Clock

_SWEEP_EVERY_S = 1.0


class StoreUnavailable(HeadraceError):
    """The store does not answer, or cannot take a record."""


class SessionNotFound(HeadraceError):
    """No session has this token: it is unknown, has expired, or was stopped."""


class SessionMismatch(HeadraceError):
    """The session was made by something that this server does not serve."""


class SessionMoved(HeadraceError):
    """Another connection has taken the session over."""


class LeaseState(Enum):
    """The store's answer to a holder: the session is its own, somebody else's, or not in the store."""

    MINE = "mine"
    TAKEN = "taken"
    LOST = "lost"


Lease = tuple[str, str]
"""A session's token and its holder."""


class SessionStore(Protocol):
    """Records by token. Every method may raise StoreUnavailable."""

    async def put(self, token: str, holder: str, record: bytes, ttl_s: float) -> LeaseState:
        """Write `record`, to be kept for `ttl_s`, unless someone else holds the session. Never LOST."""
        ...

    async def touch(self, leases: Sequence[Lease], ttl_s: float) -> list[LeaseState]:
        """Keep what was written for another `ttl_s`, of all these sessions; an answer for each."""
        ...

    async def get(self, token: str) -> bytes | None:
        """The record; None if there is none."""
        ...

    async def claim(self, token: str, holder: str) -> bytes | None:
        """Make `holder` the holder and return the record, in one step; None if there is none."""
        ...

    async def delete(self, token: str, holder: str) -> None:
        """Forget the session, unless someone else holds it."""
        ...

    async def aclose(self) -> None: ...


@dataclass(slots=True)
class _Entry:
    holder: str
    record: bytes
    expires: float


class MemoryStore:
    """For one front door: its sessions survive a lost connection, and not the loss of the process.

    Args:
        max_bytes: of all records together; beyond it those that expire soonest go.
        clock: for expiry.
    """

    def __init__(self, max_bytes: int, clock: Clock) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._bytes = 0
        self._swept = clock.now()

    @property
    def stored_bytes(self) -> int:
        return self._bytes

    async def put(self, token: str, holder: str, record: bytes, ttl_s: float) -> LeaseState:
        entry = self._live(token)
        if entry is not None and entry.holder != holder:
            return LeaseState.TAKEN
        if len(record) > self._max_bytes:
            raise StoreUnavailable(f"a record must be at most {self._max_bytes} bytes; got {len(record)}")
        self._drop(token)
        self._sweep()
        self._make_room(len(record))
        self._entries[token] = _Entry(holder, record, self._clock.now() + ttl_s)
        self._bytes += len(record)
        return LeaseState.MINE

    async def touch(self, leases: Sequence[Lease], ttl_s: float) -> list[LeaseState]:
        return [self._touch(token, holder, ttl_s) for token, holder in leases]

    def _touch(self, token: str, holder: str, ttl_s: float) -> LeaseState:
        entry = self._live(token)
        if entry is None:
            return LeaseState.LOST
        if entry.holder != holder:
            return LeaseState.TAKEN
        entry.expires = self._clock.now() + ttl_s
        return LeaseState.MINE

    async def get(self, token: str) -> bytes | None:
        entry = self._live(token)
        return None if entry is None else entry.record

    async def claim(self, token: str, holder: str) -> bytes | None:
        entry = self._live(token)
        if entry is None:
            return None
        entry.holder = holder
        return entry.record

    async def delete(self, token: str, holder: str) -> None:
        entry = self._live(token)
        if entry is not None and entry.holder == holder:
            self._drop(token)

    async def aclose(self) -> None:
        self._entries.clear()
        self._bytes = 0

    def _live(self, token: str) -> _Entry | None:
        entry = self._entries.get(token)
        if entry is not None and entry.expires <= self._clock.now():
            self._drop(token)
            return None
        return entry

    def _sweep(self) -> None:
        """Now and then, forget what has expired."""
        now = self._clock.now()
        if now - self._swept >= _SWEEP_EVERY_S:
            self._swept = now
            for token in [token for token, entry in self._entries.items() if entry.expires <= now]:
                self._drop(token)

    def _make_room(self, size: int) -> None:
        if self._bytes + size <= self._max_bytes:
            return
        for token in sorted(self._entries, key=lambda token: self._entries[token].expires):
            self._drop(token)
            if self._bytes + size <= self._max_bytes:
                return

    def _drop(self, token: str) -> None:
        entry = self._entries.pop(token, None)
        if entry is not None:
            self._bytes -= len(entry.record)
