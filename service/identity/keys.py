"""API keys: how they are made, what is stored of them, and how a presented one is compared. Pure; the table is `table`'s.

A key is `hr_live_ID_SECRET`. The id is public: it names the key in logs, in usage and in the audit log, and it is the access key id of the
SigV4 pair. Its last characters are a keyed check of the others, so an invented id is refused without a look at the database.

Nothing stored is of use without the master secret. Of a key's secret the table has an HMAC. A SigV4 secret is derived from the id and the
key's version, so it is not stored at all.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from model_core.errors import FieldViolation, InvalidRequest

PREFIX = "hr_live_"
CLIENT_PREFIX = "hr_token_"
MIN_MASTER_CHARS = 32
MAX_CLIENT_TOKEN_S = 24 * 3600.0
TICKET_S = 60.0

_SECRET_BYTES = 32
_SECRET_CHARS = 43
_RANDOM_CHARS, _CHECK_CHARS = 12, 8
_ID_CHARS = _RANDOM_CHARS + _CHECK_CHARS
_KEY = re.compile(rf"{PREFIX}([a-z2-7]{{{_ID_CHARS}}})_([A-Za-z0-9_-]{{{_SECRET_CHARS}}})")
_ID = re.compile(rf"[a-z2-7]{{{_ID_CHARS}}}")

Random = Callable[[int], bytes]


class Master:
    """The master secret. Each use has a key of its own, derived from it, and nothing prints it.

    Raises:
        ValueError: `secret` is too short. The message has its length alone.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: str) -> None:
        if len(secret) < MIN_MASTER_CHARS:
            raise ValueError(f"must have at least {MIN_MASTER_CHARS} characters; got {len(secret)}")
        self._secret = secret.encode()

    def key_for(self, use: str) -> bytes:
        """32 bytes that only this use has."""
        return hmac.digest(self._secret, f"headrace 1 {use}".encode(), "sha256")

    def __repr__(self) -> str:
        return "Master(...)"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a master secret stays in its process")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """A key as the table has it. Times are Unix seconds.

    Attributes:
        prefix: what a list shows of the key: all of it but the secret.
        secret_hmac: of the secret in force; `previous_hmac` of the one before, which counts until `previous_until`.
        version: counts rotations, from 1.
        models: None for all.
        buckets: that results may be written to.
    """

    id: str
    tenant: str
    name: str
    prefix: str
    secret_hmac: str = field(repr=False)
    previous_hmac: str | None = field(repr=False, default=None)
    previous_until: float | None = None
    version: int = 1
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None
    models: frozenset[str] | None = None
    buckets: frozenset[str] = frozenset()
    last_used_at: float | None = None

    def usable(self, now: float) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def overlaps(self, now: float) -> bool:
        """Whether the secret before the last rotation still counts."""
        return self.previous_until is not None and now < self.previous_until


@dataclass(frozen=True, slots=True)
class NewSecret:
    """What is shown once, to whoever makes or rotates a key.

    Attributes:
        key: the whole API key.
        access_key, secret_key: the SigV4 pair of the same key.
        digest: for the table.
    """

    id: str
    key: str = field(repr=False)
    access_key: str
    secret_key: str = field(repr=False)
    digest: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PresentedKey:
    """A key, taken apart."""

    id: str
    secret: str = field(repr=False)


def parsed(presented: str) -> PresentedKey | None:
    """None: it does not look like a key of ours."""
    found = _KEY.fullmatch(presented)
    return None if found is None else PresentedKey(found[1], found[2])


def check_token_length(seconds: float) -> None:
    """Raises InvalidRequest: a client token may not last for `seconds`."""
    if not 0 < seconds <= MAX_CLIENT_TOKEN_S:
        sentence = f"must be more than 0 and at most {MAX_CLIENT_TOKEN_S:g}; got {seconds:g}"
        raise InvalidRequest((FieldViolation("seconds", sentence),))


def shown(key_id: str) -> str:
    """What may be shown of a key, to recognise it by."""
    return f"{PREFIX}{key_id}"


class Keyring:
    """Makes and checks secrets with one master secret.

    Args:
        master: the secret that all front doors share.
        random: `n` random bytes.
    """

    def __init__(self, master: Master, random: Random = secrets.token_bytes) -> None:
        self._ids, self._secrets, self._signing = (master.key_for(use) for use in ("key ids", "key secrets", "sigv4 secrets"))
        self._random = random

    def new(self) -> NewSecret:
        """A key that nobody had before, of version 1."""
        chosen = _base32(self._random(8))[:_RANDOM_CHARS]
        return self.renewed(chosen + self._check(chosen), 1)

    def renewed(self, key_id: str, version: int) -> NewSecret:
        """A new secret for a key, whose version it makes `version`."""
        secret = _base64url(self._random(_SECRET_BYTES))
        return NewSecret(
            id=key_id, key=f"{PREFIX}{key_id}_{secret}", access_key=key_id, secret_key=self._signing_secret(key_id, version),
            digest=self.digest(PresentedKey(key_id, secret)),
        )  # fmt: skip

    def made(self, key_id: str) -> bool:
        """Whether the id was made with this master secret. It says nothing of whether the key exists still."""
        return _ID.fullmatch(key_id) is not None and hmac.compare_digest(self._check(key_id[:_RANDOM_CHARS]), key_id[_RANDOM_CHARS:])

    def digest(self, key: PresentedKey) -> str:
        """What the table has of a key's secret."""
        return hmac.digest(self._secrets, f"{key.id} {key.secret}".encode(), "sha256").hex()

    def matches(self, record: KeyRecord, key: PresentedKey, now: float) -> bool:
        """Whether `key` is the record's, in constant time, and may be used now."""
        digest = self.digest(key)
        current = hmac.compare_digest(record.secret_hmac, digest)
        previous = hmac.compare_digest(record.previous_hmac or "", digest)
        return record.usable(now) and (current or (previous and record.overlaps(now)))

    def signing_secrets(self, record: KeyRecord, now: float) -> tuple[str, ...]:
        """The SigV4 secrets that may have signed now, the newest first."""
        versions = (record.version, record.version - 1) if record.version > 1 and record.overlaps(now) else (record.version,)
        return tuple(self._signing_secret(record.id, version) for version in versions)

    def _signing_secret(self, key_id: str, version: int) -> str:
        return _base64url(hmac.digest(self._signing, f"{key_id} {version}".encode(), "sha256"))

    def _check(self, chosen: str) -> str:
        return _base32(hmac.digest(self._ids, chosen.encode(), "sha256")[:5])


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
