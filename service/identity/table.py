"""The SQL of keys. Each function works within a transaction that its caller has opened, and blocks.

Each comes to the same when it runs again; see `service.database.engine`.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select, update

from model_core.errors import FieldViolation, HeadraceError, InvalidRequest
from service.database.schema import KEYS
from service.identity.keys import KeyRecord, NewSecret, shown

_MAX_NAME_CHARS = 200


class KeyNotFound(HeadraceError):
    """There is no key of this id."""


def create(
    connection: Connection,
    secret: NewSecret,
    now: float,
    *,
    tenant: str,
    name: str = "",
    models: Collection[str] | None = None,
    buckets: Collection[str] = (),
    expires_at: float | None = None,
) -> None:
    """Add a key with a new secret of `Keyring.new`. A second call does nothing.

    Raises:
        InvalidRequest: the name is too long, or the key has expired before it begins.
    """
    if len(name) > _MAX_NAME_CHARS:
        raise InvalidRequest((FieldViolation("name", f"must have at most {_MAX_NAME_CHARS} characters; got {len(name)}"),))
    if expires_at is not None and expires_at <= now:
        raise InvalidRequest((FieldViolation("expires", f"must be in the future; got {expires_at - now:.0f} s from now"),))
    if find(connection, secret.id) is None:
        connection.execute(
            insert(KEYS).values(
                id=secret.id, tenant=tenant, name=name, prefix=shown(secret.id), secret_hmac=secret.digest, previous_hmac=None,
                previous_until=None, version=1, created_at=now, expires_at=expires_at, revoked_at=None,
                models=None if models is None else json.dumps(sorted(models)), buckets=json.dumps(sorted(buckets)), last_used_at=None,
            )
        )  # fmt: skip


def find(connection: Connection, key_id: str) -> KeyRecord | None:
    row = connection.execute(select(KEYS).where(KEYS.c.id == key_id)).mappings().one_or_none()
    return None if row is None else _record(row)


def listed(connection: Connection, tenant: str = "") -> list[KeyRecord]:
    """The keys of `tenant`, or all of them; the oldest first."""
    query = select(KEYS).order_by(KEYS.c.created_at, KEYS.c.id)
    if tenant:
        query = query.where(KEYS.c.tenant == tenant)
    return [_record(row) for row in connection.execute(query).mappings()]


def revoke(connection: Connection, key_id: str, now: float) -> KeyRecord:
    """End a key for good. One that was revoked before keeps its time.

    Raises:
        KeyNotFound: there is none.
    """
    record = _existing(connection, key_id)
    if record.revoked_at is None:
        connection.execute(update(KEYS).where(KEYS.c.id == key_id).values(revoked_at=now))
    return _existing(connection, key_id)


def rotate(connection: Connection, secret: NewSecret, version: int, now: float, overlap_s: float) -> None:
    """Give a key the new secret that `Keyring.renewed` made for `version`, the one after its present one.

    The secret before counts for `overlap_s` longer; one that still did ends now. A second call does nothing.

    Raises:
        KeyNotFound: there is none.
        InvalidRequest: it is revoked or has expired, or was rotated by somebody else meanwhile.
    """
    record = _existing(connection, secret.id)
    if record.secret_hmac == secret.digest:
        return
    if not record.usable(now) or record.version + 1 != version:
        problem = "was rotated meanwhile" if record.usable(now) else "was revoked or has expired"
        raise InvalidRequest((FieldViolation("id", f"must be of a key in use, as it was read; got {secret.id}, which {problem}"),))
    connection.execute(
        update(KEYS)
        .where(KEYS.c.id == secret.id)
        .values(secret_hmac=secret.digest, previous_hmac=record.secret_hmac, previous_until=now + overlap_s, version=version)
    )


def touch(connection: Connection, key_id: str, now: float) -> None:
    """The key was used."""
    connection.execute(update(KEYS).where(KEYS.c.id == key_id).values(last_used_at=now))


def _existing(connection: Connection, key_id: str) -> KeyRecord:
    record = find(connection, key_id)
    if record is None:
        raise KeyNotFound(f"no key has the id {key_id[:64]!r}")
    return record


def _record(row: RowMapping) -> KeyRecord:
    fields: dict[str, Any] = dict(row)
    models = fields.pop("models")
    buckets = fields.pop("buckets")
    return KeyRecord(
        **fields, models=None if models is None else frozenset(json.loads(models)), buckets=frozenset(json.loads(buckets or "[]"))
    )
