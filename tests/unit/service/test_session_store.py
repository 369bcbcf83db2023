"""The stores: one holder, expiry, bounds; the same for memory and for a real Redis."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest
import redis
from prometheus_client import CollectorRegistry

from deployments.config.application import SessionStoreSettings
from deployments.replicas.front_door import session_keeper
from observability.metrics import Metrics
from service.clock import MonotonicClock
from service.records.redis import RedisStore
from service.records.store import LeaseState, MemoryStore, SessionStore, StoreUnavailable
from tests.fakes import ManualClock
from tests.stores import REDIS_SERVER, WITHOUT_REDIS, RedisServer, redis_server

TTL_S = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    if REDIS_SERVER is None:
        pytest.skip(WITHOUT_REDIS)
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncGenerator[SessionStore, None]:
    made: SessionStore
    if request.param == "memory":
        made = MemoryStore(1 << 20, ManualClock())
    else:
        made = RedisStore(request.getfixturevalue("server").url, timeout_s=5)
    yield made
    await made.aclose()


async def test_what_was_put_is_found_by_its_token_alone(store: SessionStore) -> None:
    token, record = secrets.token_hex(8), secrets.token_bytes(100_000)
    assert await store.get(token) is None
    assert await store.claim(token, "a") is None
    assert await store.touch([(token, "a")], TTL_S) == [LeaseState.LOST]
    assert await store.put(token, "a", record, TTL_S) is LeaseState.MINE
    assert await store.get(token) == record
    assert await store.get(token + "x") is None
    assert await store.put(token, "a", b"newer", TTL_S) is LeaseState.MINE
    assert await store.touch([(token, "a")], TTL_S) == [LeaseState.MINE]
    assert await store.get(token) == b"newer"
    await store.delete(token, "a")
    assert await store.get(token) is None


async def test_who_claims_is_the_holder_and_nobody_else_writes(store: SessionStore) -> None:
    token = secrets.token_hex(8)
    await store.put(token, "a", b"one", TTL_S)
    assert await store.claim(token, "b") == b"one"
    assert await store.put(token, "a", b"two", TTL_S) is LeaseState.TAKEN
    assert await store.touch([(token, "a")], TTL_S) == [LeaseState.TAKEN]
    await store.delete(token, "a")
    assert await store.get(token) == b"one"
    assert await store.put(token, "b", b"three", TTL_S) is LeaseState.MINE
    claims = await asyncio.gather(*(store.claim(token, holder) for holder in "cdef"))
    assert claims == [b"three"] * 4
    written = [await store.put(token, holder, holder.encode(), TTL_S) for holder in "bcdef"]
    assert written.count(LeaseState.MINE) == 1


async def test_memory_expires_and_a_touch_prolongs() -> None:
    clock = ManualClock()
    store = MemoryStore(1 << 20, clock)
    await store.put("t", "a", b"one", 10)
    await clock.advance(9)
    assert await store.touch([("t", "a")], 10) == [LeaseState.MINE]
    await clock.advance(9)
    assert await store.get("t") == b"one"
    await clock.advance(1)
    assert await store.get("t") is None
    assert await store.claim("t", "b") is None
    assert store.stored_bytes == 0


async def test_what_expired_is_forgotten_although_nobody_asks_for_it() -> None:
    clock = ManualClock()
    store = MemoryStore(1 << 20, clock)
    for n in range(10):
        await store.put(f"gone{n}", "a", b"x" * 100, 10)
    await clock.advance(11)
    await store.put("new", "a", b"one", 10)
    assert store.stored_bytes == 3


async def test_memory_is_bounded_and_drops_what_expires_first() -> None:
    store = MemoryStore(100, ManualClock())
    await store.put("long", "a", b"x" * 40, 60)
    await store.put("short", "a", b"x" * 40, 30)
    await store.put("new", "a", b"x" * 40, 60)
    assert [await store.get(token) is not None for token in ("long", "short", "new")] == [True, False, True]
    assert store.stored_bytes == 80
    with pytest.raises(StoreUnavailable, match="at most 100 bytes; got 101"):
        await store.put("huge", "a", b"x" * 101, 60)
    for n in range(1000):
        await store.put(f"t{n}", "a", b"x" * 10, 60 + n)
    assert store.stored_bytes <= 100


async def test_redis_expires_by_itself(server: RedisServer) -> None:
    store = RedisStore(server.url, timeout_s=5)
    await store.put("expiring", "a", b"one", 0.05)
    async with asyncio.timeout(20):
        while await store.get("expiring") is not None:  # noqa: ASYNC110 - another process forgets
            await asyncio.sleep(0.01)
    await store.aclose()


async def test_redis_away_is_said_and_back_again_is_used(tmp_path: Path) -> None:
    if REDIS_SERVER is None:
        pytest.skip(WITHOUT_REDIS)
    with redis_server(tmp_path) as own:
        store = RedisStore(own.url, timeout_s=5)
        assert await store.put("t", "a", b"one", TTL_S) is LeaseState.MINE
        own.stop()
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="Redis: ConnectionError"):
                await store.put("t", "a", b"two", TTL_S)
        own.start()
        assert await store.touch([("t", "a")], TTL_S) == [LeaseState.LOST]
        assert await store.put("t", "a", b"two", TTL_S) is LeaseState.MINE
        assert await store.get("t") == b"two"
        await store.aclose()


def test_an_address_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="scheme"):
        RedisStore("http://127.0.0.1", timeout_s=1)


async def test_a_password_that_is_not_in_the_environment_is_missed_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SessionStoreSettings(url="redis://127.0.0.1:1/0", password_variable="HEADRACE_TEST_PASSWORD")  # noqa: S106 - a name
    with pytest.raises(ValueError, match="HEADRACE_TEST_PASSWORD is not set"):
        session_keeper(settings, Metrics(CollectorRegistry()), MonotonicClock())
    monkeypatch.setenv("HEADRACE_TEST_PASSWORD", "sesame")
    await session_keeper(settings, Metrics(CollectorRegistry()), MonotonicClock()).aclose()


async def test_redis_never_hears_of_a_token(server: RedisServer) -> None:
    """Whoever looks into it could otherwise take sessions over."""
    token = secrets.token_urlsafe(24)
    store = RedisStore(server.url, timeout_s=5)
    with redis.Redis(port=server.port) as spy, spy.monitor() as heard:
        assert await store.put(token, "a", b"record", TTL_S) is LeaseState.MINE
        assert await store.touch([(token, "a")], TTL_S) == [LeaseState.MINE]
        assert await store.get(token) == b"record"
        assert await store.claim(token, "b") == b"record"
        await store.delete(token, "b")
        await store.aclose()
        spy.echo("the end")
        commands: list[str] = []
        while "the end" not in (commands or [""])[-1]:
            commands.append(heard.next_command()["command"])
    assert any("headrace:session:" in command for command in commands)
    assert not any(token in command for command in commands)


async def test_a_password_opens_redis(tmp_path: Path) -> None:
    if REDIS_SERVER is None:
        pytest.skip(WITHOUT_REDIS)
    with redis_server(tmp_path) as running:
        with redis.Redis(port=running.port) as operator:
            operator.config_set("requirepass", "sesame")
        stranger, friend = RedisStore(running.url, timeout_s=5), RedisStore(running.url, timeout_s=5, password="sesame")  # noqa: S106 - a test's
        with pytest.raises(StoreUnavailable):
            await stranger.get("t")
        assert await friend.get("t") is None
        await stranger.aclose()
        await friend.aclose()
