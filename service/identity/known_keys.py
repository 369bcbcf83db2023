"""API keys as a front door knows them: the table's rows, remembered for a while."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from sqlalchemy import Connection

from model_core.errors import StageUnavailable
from service.clock import Clock
from service.database.engine import Database
from service.identity import table
from service.identity.keys import KeyRecord, Keyring, PresentedKey
from service.identity.remembered import Lookup, Remembered

_MOST_KEYS = 10_000
# How exact `last_used_at` is. It costs one write of a key in so long, whatever the number of calls.
_TOUCH_EVERY_S = 300.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Row:
    """What the table answered; None for a key that it does not have."""

    record: KeyRecord | None


class KnownKeys:
    """Checks keys, with at most one look at the table for each key in `cache_s`, whoever asks and however often.

    An id that was not made with the master secret costs no look. A wrong secret for a key that exists costs none beyond the key's own. So
    a flood of wrong keys stays in this process. A revoked key is refused `cache_s` after the revocation at the latest.

    Args:
        database: with the table.
        ring: makes and checks secrets.
        cache_s: how long a row counts.
        clock: time for that.
        wall: Unix time, for expiry.
    """

    def __init__(self, database: Database, ring: Keyring, cache_s: float, clock: Clock, wall: Callable[[], float]) -> None:
        self._database, self._ring, self._wall = database, ring, wall
        self._rows: Lookup[str, _Row] = Lookup(self._read, Remembered(cache_s, _MOST_KEYS, clock))
        self._touching: dict[str, asyncio.Task[None]] = {}

    async def matching(self, key: PresentedKey) -> KeyRecord | None:
        """The record of `key`, if it may be used now. Raises StageUnavailable."""
        record = await self._record(key.id)
        if record is None or not self._ring.matches(record, key, self._wall()):
            return None
        self._touch(record)
        return record

    async def signing(self, access_key: str) -> tuple[KeyRecord, tuple[str, ...]] | None:
        """The record of a SigV4 pair and the secrets that may have signed, if it may be used now. Raises StageUnavailable."""
        record = await self.usable(access_key)
        if record is None:
            return None
        self._touch(record)
        return record, self._ring.signing_secrets(record, self._wall())

    async def usable(self, key_id: str) -> KeyRecord | None:
        """The record of a key that may be used now, whatever its secret. Raises StageUnavailable."""
        record = await self._record(key_id)
        return record if record is not None and record.usable(self._wall()) else None

    async def aclose(self) -> None:
        """Wait for what is being written."""
        await asyncio.gather(*self._touching.values(), return_exceptions=True)

    async def _record(self, key_id: str) -> KeyRecord | None:
        if (known := self._rows.known(key_id)) is not None:
            return known.record
        return (await self._rows.get(key_id)).record if self._ring.made(key_id) else None

    async def _read(self, key_id: str) -> _Row:
        return _Row(await self._database.run(partial(_find, key_id), write=False))

    def _touch(self, record: KeyRecord) -> None:
        """Write down that the key was used, beside the call. Where it cannot be written, nobody waits and nothing fails."""
        now = self._wall()
        if record.id in self._touching or (record.last_used_at is not None and now - record.last_used_at < _TOUCH_EVERY_S):
            return
        self._rows.amend(record.id, _Row(replace(record, last_used_at=now)))
        task = self._touching[record.id] = asyncio.create_task(self._write_touch(record.id, now))
        task.add_done_callback(lambda _: self._touching.pop(record.id, None))

    async def _write_touch(self, key_id: str, now: float) -> None:
        try:
            await self._database.run(lambda connection: table.touch(connection, key_id, now))
        except StageUnavailable:
            log.info("the last use of key %s was not written down", key_id)


def _find(key_id: str, connection: Connection) -> KeyRecord | None:
    return table.find(connection, key_id)
