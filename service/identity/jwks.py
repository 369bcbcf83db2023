"""The public keys of a token issuer, from a file or a URL, read again when a token names a key that is not known."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, build_opener

from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key

from model_core.errors import StageUnavailable
from model_core.tasks import run_in_thread
from service.clock import Clock
from service.identity.peers import is_local

_MAX_BYTES = 1024 * 1024
_MAX_KEYS = 256
_FETCH_WITHIN_S = 5.0
# Tokens with made-up key ids cause one fetch in so long, and no more.
_REFRESH_EVERY_S = 30.0
# Keys that the issuer has withdrawn are forgotten after so long.
_MAX_AGE_S = 3600.0

log = logging.getLogger(__name__)

Fetch = Callable[[], bytes]


class IssuerKeys:
    """One event loop owns it. Reading goes on in a thread, one at a time.

    Args:
        fetch: the bytes of a JWK set; blocks; raises OSError or ValueError.
        clock: time.
    """

    def __init__(self, fetch: Fetch, clock: Clock) -> None:
        self._fetch, self._clock = fetch, clock
        self._keys: dict[str, Key] = {}
        self._only: Key | None = None
        self._read_at: float | None = None  # when it last succeeded
        self._tried_at: float | None = None
        self._reading: asyncio.Task[None] | None = None

    async def key(self, key_id: str | None) -> Key | None:
        """The key that a token names; of a token that names none, the only key there is. None: the issuer has no such key.

        Raises:
            StageUnavailable: the keys could never be read.
        """
        found = self._found(key_id)
        if (found is None or self._old()) and self._may_read():
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read())
            if found is None:
                await asyncio.shield(self._reading)
                found = self._found(key_id)
        elif found is None and self._reading is not None and not self._reading.done():
            await asyncio.shield(self._reading)
            found = self._found(key_id)
        if found is None and self._read_at is None:
            raise StageUnavailable("the keys of the token issuer cannot be read")
        return found

    def _found(self, key_id: str | None) -> Key | None:
        return self._only if key_id is None else self._keys.get(key_id)

    def _old(self) -> bool:
        return self._read_at is None or self._clock.now() - self._read_at >= _MAX_AGE_S

    def _may_read(self) -> bool:
        return self._tried_at is None or self._clock.now() - self._tried_at >= _REFRESH_EVERY_S

    async def _read(self) -> None:
        """Put new keys in the place of the old ones. Where they cannot be read, the old ones stay."""
        self._tried_at = self._clock.now()
        try:
            keys = key_set(await run_in_thread(self._fetch))
        except (OSError, ValueError) as error:
            log.warning("the keys of the token issuer cannot be read: %s", error)
            return
        self._keys = {key.kid: key for key in keys if key.kid}
        self._only = keys[0] if len(keys) == 1 else None
        self._read_at = self._clock.now()


def key_set(data: bytes) -> list[Key]:
    """The keys of a JWK set for signatures. Kinds that are not known are left out, as RFC 7517 has it, and so are secret ones.

    Raises:
        ValueError: it is no JWK set.
    """
    document: Any = json.loads(data)
    found = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(found, list) or len(found) > _MAX_KEYS:
        raise ValueError(f"a JWK set must be an object with a list `keys` of at most {_MAX_KEYS} keys")
    keys: list[Key] = []
    for each in found:
        if not isinstance(each, dict) or each.get("kty") == "oct" or each.get("use", "sig") != "sig":
            continue
        try:
            keys.append(JWKRegistry.import_key(each))
        except (JoseError, ValueError, TypeError, KeyError) as error:
            log.warning("a key of the token issuer is left out: %s", type(error).__name__)
    return keys


def fetched_from(where: str) -> Fetch:
    """Reads a JWK set from a URL, which must not redirect, or from a file."""
    if "://" not in where:
        return lambda: _bounded(Path(where).open("rb"))
    host = urlsplit(where).hostname or "nobody"
    # A proxy of the environment is for other machines.
    opener = build_opener(_NoRedirects, *([ProxyHandler({})] if host == "localhost" or is_local(host) else []))
    return lambda: _bounded(opener.open(where, timeout=_FETCH_WITHIN_S))


class _NoRedirects(HTTPRedirectHandler):
    """A redirect could lead from https to a place where keys can be forged on their way."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _bounded(stream: Any) -> bytes:
    with stream:
        data: bytes = stream.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError(f"a JWK set must have at most {_MAX_BYTES} bytes")
    return data
