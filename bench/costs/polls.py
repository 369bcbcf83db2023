"""Many callers that ask for something once a second, each on a connection of its own: what a front door pays for them.

They are in another process, `python -m bench.costs.polls`, and speak just enough HTTP that a thousand of them take little of a core.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from deployments.cluster.local import ROOT

ALLOWED_SHARE = 0.15
_ANSWERED = 0.97  # of those that were to ask, so many must have an answer, or the measurement means nothing
_EVERY_S = 1.0
_TICK_S = 0.005
_LAST_ANSWERS_S = 2.0
_CONNECT_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Order:
    """What the process is to do. Poller number n asks for the n-th of the paths, and begins again at the first."""

    url: str
    paths: Sequence[str]
    key: str
    pollers: int
    seconds: float


class Poller(asyncio.Protocol):
    """One caller. It asks again only when it has its answer.

    Args:
        request: the bytes of one.
    """

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._transport: asyncio.Transport | None = None
        self._left = b""
        self._asking = False
        self.asked = self.good = self.bad = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # it is no datagram's
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def ask(self) -> None:
        self.asked += 1
        if self._asking or self._transport is None:
            return
        self._asking = True
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._left += data
        head, whole, rest = self._left.partition(b"\r\n\r\n")
        if not whole or len(rest) < (size := _length(head)):
            return
        self._left, self._asking = rest[size:], False
        if head.startswith(b"HTTP/1.1 200 "):
            self.good += 1
        else:
            self.bad += 1

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _itself(poller: Poller) -> Poller:
    return poller


def _length(head: bytes) -> int:
    _, _, after = head.lower().partition(b"\r\ncontent-length:")
    return int(after.partition(b"\r\n")[0] or 0)


async def poll(order: Order) -> dict[str, int]:
    """Connect, say `ready`, poll for so long, and return what became of it."""
    url, loop = urlsplit(order.url), asyncio.get_running_loop()
    pollers: list[Poller] = []
    for number in range(order.pollers):
        path = order.paths[number % len(order.paths)]
        authorization = f"authorization: Bearer {order.key}\r\n" if order.key else ""
        poller = Poller(f"GET {path} HTTP/1.1\r\nhost: {url.netloc}\r\naccept: application/json\r\n{authorization}\r\n".encode())
        await loop.create_connection(partial(_itself, poller), url.hostname or "", url.port or 80)
        pollers.append(poller)
        if number % _CONNECT_AT_ONCE == 0:
            await asyncio.sleep(_TICK_S)
    print("ready", flush=True)
    began, asked = time.monotonic(), 0
    while (passed_s := time.monotonic() - began) < order.seconds:
        while asked < passed_s * order.pollers / _EVERY_S:
            pollers[asked % order.pollers].ask()
            asked += 1
        await asyncio.sleep(_TICK_S)
    until = time.monotonic() + _LAST_ANSWERS_S
    while sum(poller.good + poller.bad for poller in pollers) < asked and time.monotonic() < until:  # noqa: ASYNC110 - they are many
        await asyncio.sleep(_TICK_S)
    for poller in pollers:
        poller.close()
    return {"asked": asked, "good": sum(poller.good for poller in pollers), "bad": sum(poller.bad for poller in pollers)}


async def measured(what: str, order: Order, cpu_s: Callable[[], Awaitable[float]]) -> dict[str, Any]:
    """The front door's share of a core with the pollers and without them.

    Args:
        cpu_s: processor time that the front door has used until now.
    """
    before, began = await cpu_s(), time.monotonic()
    await asyncio.sleep(order.seconds)
    idle = (await cpu_s() - before) / (time.monotonic() - began)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.costs.polls", json.dumps(asdict(order)), cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        if process.stdout is None or await process.stdout.readline() != b"ready\n":
            raise RuntimeError("the pollers must connect; they did not")
        before, began = await cpu_s(), time.monotonic()
        counts = json.loads(await process.stdout.readline())
        share = (await cpu_s() - before) / (time.monotonic() - began)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
    return report(what, order, counts, idle, share)


def report(what: str, order: Order, counts: dict[str, int], idle: float, share: float) -> dict[str, Any]:
    """One row. `idle` and `share` are parts of a core."""
    enough = counts["good"] >= _ANSWERED * counts["asked"] and counts["asked"] >= _ANSWERED * order.pollers * order.seconds / _EVERY_S
    ms = 1000 * (share - idle) * order.seconds / max(1, counts["good"])
    return {
        "what": what, "pollers": order.pollers, **counts, "idle_cores": round(idle, 3), "cores": round(share, 3), "ms_a_poll": round(ms, 3),
        "passed": enough and share - idle <= ALLOWED_SHARE,
    }  # fmt: skip


def main() -> None:
    os.nice(19)
    print(json.dumps(asyncio.run(poll(Order(**json.loads(sys.argv[1]))))), flush=True)


if __name__ == "__main__":
    main()
