"""Sessions in Redis, for clusters: any front door can go on with any session."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from service.records.store import Lease, LeaseState, StoreUnavailable

T = TypeVar("T")

_PREFIX = "headrace:session:"
_MAX_CONNECTIONS = 32
# A session is a hash {holder, record}. Each script is one step to everybody else.
_PUT = """
local holder = redis.call('HGET', KEYS[1], 'holder')
if holder and holder ~= ARGV[1] then return 'taken' end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'record', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 'mine'
"""
_TOUCH = """
local holder = redis.call('HGET', KEYS[1], 'holder')
if not holder then return 'lost' end
if holder ~= ARGV[1] then return 'taken' end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 'mine'
"""
_CLAIM = """
local record = redis.call('HGET', KEYS[1], 'record')
if record then redis.call('HSET', KEYS[1], 'holder', ARGV[1]) end
return record
"""
_DELETE = """
if redis.call('HGET', KEYS[1], 'holder') == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""


class RedisStore:
    """A `SessionStore`. Nothing is connected before the first call.

    Whoever has a token has the session. Redis is told a digest of it, so that those who can look into it cannot take sessions over.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        timeout_s: for connecting, and for each answer.
        password: the server's; None: the URL's, if it has one.

    Raises:
        ValueError: the URL is none of these.
    """

    def __init__(self, url: str, timeout_s: float, password: str | None = None) -> None:
        authentication = {} if password is None else {"password": password}
        pool = BlockingConnectionPool.from_url(
            url, max_connections=_MAX_CONNECTIONS, timeout=timeout_s, socket_timeout=timeout_s, socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 1),  # a connection may have died with the server that was there before
            **authentication,
        )  # fmt: skip
        self._redis: Redis = Redis.from_pool(pool)
        self._put = self._redis.register_script(_PUT)
        self._touch = self._redis.register_script(_TOUCH)
        self._claim = self._redis.register_script(_CLAIM)
        self._delete = self._redis.register_script(_DELETE)

    async def put(self, token: str, holder: str, record: bytes, ttl_s: float) -> LeaseState:
        return _state(await _answer(self._put(keys=[_key(token)], args=[holder, record, _milliseconds(ttl_s)])))

    async def touch(self, leases: Sequence[Lease], ttl_s: float) -> list[LeaseState]:
        pipeline = self._redis.pipeline(transaction=False)  # one round trip for all of them
        for token, holder in leases:
            await self._touch(keys=[_key(token)], args=[holder, _milliseconds(ttl_s)], client=pipeline)
        return [_state(answer) for answer in await _answer(pipeline.execute())]

    async def get(self, token: str) -> bytes | None:
        command: Any = self._redis.hget(_key(token), "record")
        record: bytes | None = await _answer(command)
        return record

    async def claim(self, token: str, holder: str) -> bytes | None:
        record: bytes | None = await _answer(self._claim(keys=[_key(token)], args=[holder]))
        return record

    async def delete(self, token: str, holder: str) -> None:
        await _answer(self._delete(keys=[_key(token)], args=[holder]))

    async def aclose(self) -> None:
        await self._redis.aclose()


def _key(token: str) -> str:
    return _PREFIX + hashlib.sha256(token.encode()).hexdigest()


async def _answer(command: Awaitable[T]) -> T:
    try:
        return await command
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreUnavailable(f"Redis: {type(error).__name__}: {error}") from error


def _state(answer: Any) -> LeaseState:
    return LeaseState(answer.decode() if isinstance(answer, bytes) else answer)


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
