"""Session stores that misbehave as they are told, and a Redis server of one's own."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import redis

from deployments.cluster.local import free_port
from service.clock import Clock, MonotonicClock
from service.records.store import Lease, LeaseState, MemoryStore, StoreUnavailable

REDIS_SERVER = shutil.which("redis-server")
WITHOUT_REDIS = "redis-server is not installed (Debian: apt-get install redis-server)"


class FakeStore:
    """A memory store with switches.

    Attributes:
        down: every call fails.
        gate: if set, every write waits for it.
        under_way, most_under_way: writes now, and at most.
        puts: records written, in order.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.inner = MemoryStore(1 << 30, clock or MonotonicClock())
        self.down = False
        self.gate: asyncio.Event | None = None
        self.under_way = 0
        self.most_under_way = 0
        self.puts: list[bytes] = []
        self.calls = 0

    def called(self, times: int) -> bool:
        return self.calls >= times

    async def put(self, token: str, holder: str, record: bytes, ttl_s: float) -> LeaseState:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self._obey()
            self.puts.append(record)
            return await self.inner.put(token, holder, record, ttl_s)
        finally:
            self.under_way -= 1

    async def touch(self, leases: Sequence[Lease], ttl_s: float) -> list[LeaseState]:
        await self._obey()
        return await self.inner.touch(leases, ttl_s)

    async def get(self, token: str) -> bytes | None:
        await self._obey()
        return await self.inner.get(token)

    async def claim(self, token: str, holder: str) -> bytes | None:
        await self._obey()
        return await self.inner.claim(token, holder)

    async def delete(self, token: str, holder: str) -> None:
        await self._obey()
        await self.inner.delete(token, holder)

    async def aclose(self) -> None:
        """Shared by the servers of a test: it stays."""

    async def _obey(self) -> None:
        self.calls += 1
        if self.down:
            raise StoreUnavailable("told to fail")
        if self.gate is not None:
            await self.gate.wait()


class RedisServer:
    """A process that can be stopped and started again, empty, on the same port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        assert REDIS_SERVER is not None
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(self._folder)]
        self._process = subprocess.Popen([REDIS_SERVER, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 200
        with redis.Redis(port=self.port) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.ConnectionError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
