"""Thousands of open streams on one front door: `python -m bench.costs.streams` (`make streams`).

    paused    the crowd are viewers who have paused: Live sessions, paused before their first chunk
    waiting   the crowd are callers in line for a slot that does not come free

Live viewers are measured without the crowd and among it: those who come while others are paused, by their first frame; those who run while
others wait, by their chunks. The memory of a stream is that of the front door's process, less what it had without the crowd.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ray import serve

from autoscaling.reports import FrontDoorReport, ProcessStatistics
from bench.kit.load import PROMPT, Arrival, offer, together
from bench.kit.tally import Figures, figures
from bench.kit.wires import GrpcWire
from deployments.cluster.local import Overrides, start_local
from deployments.config.names import APP_NAME, FRONT_DOOR
from deployments.links.remote import reports
from headrace.client import HeadraceClient
from headrace.v1 import video_pb2 as pb
from model_core.presets import millrace_64
from model_core.tasks import cancel_and_wait

MODEL = millrace_64()
LEAD_S = 1.0
AT_ONCE = 32  # streams that are being opened
SPARE = 64
GRACE_S = 60.0
LONGEST_S = 3000.0
ASK_WITHIN_S = 30.0
_GOODBYES_S = 2.0


@dataclass(slots=True)
class Crowd:
    """What became of it: `settled` are paused or in line, `errors` counts those that ended, by what they were told."""

    settled: int = 0
    errors: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """One kind of crowd. `answers_s`: how long the front door's own statistics took to come with the crowd there."""

    kind: str
    streams: int
    settled: int
    errors: dict[str, int]
    opening_s: float
    kib_a_stream: float
    files: int
    answers_s: float
    viewers_without: Figures
    viewers_among: Figures
    load_average: float


async def stay(client: HeadraceClient, seed: int, settled: Callable[[], None]) -> None:
    """One of the crowd, for ever: paused, or in line. Raises when the server ends it."""
    async with client.live(PROMPT, seed=seed, codec=pb.CODEC_RAW_RGB, max_lead_s=LEAD_S) as session:
        await session.pause()
        async for event in session:
            match event:
                case pb.Paused() | pb.QueuePosition():
                    settled()
    raise RuntimeError("the server ended the session")


@asynccontextmanager
async def crowd(clients: Sequence[HeadraceClient], streams: int) -> AsyncGenerator[Crowd, None]:
    """Open `streams`, a few at a time, spread over the clients; hand out when all have settled or ended; close them."""
    found, turnstile = Crowd(), asyncio.Semaphore(AT_ONCE)

    async def member(number: int, done: asyncio.Event) -> None:
        def settled() -> None:
            found.settled += not done.is_set()
            done.set()

        try:
            await stay(clients[number % len(clients)], number, settled)
        except Exception as error:  # noqa: BLE001 - whatever ended it is what is to be found
            said = f"{type(error).__name__}: {error}"[:120]
            found.errors[said] = found.errors.get(said, 0) + 1
        finally:
            done.set()

    async def enter(number: int) -> asyncio.Task[None]:
        async with turnstile:
            done = asyncio.Event()
            task = asyncio.create_task(member(number, done))
            await done.wait()
            return task

    tasks = await asyncio.gather(*(enter(number) for number in range(streams)))
    try:
        yield found
    finally:
        await cancel_and_wait(*tasks)


async def front_door() -> ProcessStatistics:
    """Its process."""
    (report,) = await reports(serve.get_deployment_handle(FRONT_DOOR, APP_NAME), FrontDoorReport, ASK_WITHIN_S)
    if report.process is None:
        raise RuntimeError("the front door must report its process; it does not")
    return report.process


async def viewers(kind: str, client: HeadraceClient, live: int, seconds: float) -> Figures:
    """Among the paused: one viewer after the other, for a second each. Among those in line: all at once, watched for `seconds`."""
    if kind == "paused":
        arrivals, grace_s = [Arrival(1.5 * n, "live", 1.0, n) for n in range(live)], GRACE_S
    else:
        arrivals, grace_s = together(live, LONGEST_S), seconds
    return figures(await offer(arrivals, GrpcWire(client, LEAD_S), grace_s), MODEL.fps)


async def measure(kind: str, address: str, a: argparse.Namespace) -> Found:
    """The viewers without the crowd, the crowd, the viewers among it. Those in line find the viewers there already: they have the slots."""
    try:
        return await _measured(kind, address, a)
    finally:
        await asyncio.sleep(_GOODBYES_S)  # what gRPC still has to say of thousands of cancelled calls comes while their loop is there


async def _measured(kind: str, address: str, a: argparse.Namespace) -> Found:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(HeadraceClient(address))
        clients = [await stack.enter_async_context(HeadraceClient(address)) for _ in range(a.connections)]
        await viewers("paused", client, 1, 0.0)
        without = await viewers(kind, client, a.live, 10.0)
        before = await front_door()
        watching = asyncio.create_task(viewers(kind, client, a.live, a.seconds)) if kind == "waiting" else None
        await asyncio.sleep(2.0)
        began = time.monotonic()
        there = await stack.enter_async_context(crowd(clients, a.streams))
        opening_s, asked = time.monotonic() - began, time.monotonic()
        after = await front_door()
        answers_s = time.monotonic() - asked
        among = await watching if watching is not None else await viewers(kind, client, a.live, a.seconds)
        return Found(
            kind=kind, streams=a.streams, settled=there.settled, errors=dict(there.errors), opening_s=round(opening_s, 1),
            kib_a_stream=round((after.resident_bytes - before.resident_bytes) / 1024 / a.streams, 1),
            files=after.files, answers_s=round(answers_s, 3), viewers_without=without, viewers_among=among,
            load_average=round(os.getloadavg()[0], 1),
        )  # fmt: skip


def overrides(kind: str, streams: int, live: int) -> Overrides:
    """Room for the crowd: as running sessions, or as places in line behind viewers who have all the slots."""
    if kind == "paused":
        args: dict[str, Any] = {"admission": {"mode": "none"}, "front_door": {"max_sessions": streams + SPARE}}
    else:
        waits = {"mode": "measured", "tiers": [], "utilisation": 1.0, "max_waiting": streams + SPARE, "max_wait_seconds": 86400}
        args = {"admission": waits, "front_door": {"max_sessions": live}}
    return Overrides(grpc_port=0, metrics_port=0, args=args)


def text(found: Found) -> str:
    """A paragraph."""
    without, among = found.viewers_without, found.viewers_among
    return (
        f"{found.kind}: {found.settled} of {found.streams} streams open, errors {found.errors or 'none'}; opened in {found.opening_s:g} s; "
        f"{found.kib_a_stream:g} KiB a stream in the front door, {found.files} open files; it answered in {found.answers_s:g} s; load "
        f"{found.load_average:g}\n"
        f"  viewers without the crowd: {_times(without)}\n  among it:                  {_times(among)}"
    )


def _times(of: Figures) -> str:
    first = f"first frame p50 {of.ttff_p50_ms:.0f} p99 {of.ttff_p99_ms:.0f} ms"
    return f"{first}, gap p50 {of.gap_p50_ms:.0f} p99 {of.gap_p99_ms:.0f} ms, stalled {100 * of.stall_share:.2f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--connections", type=int, default=50, help="that the crowd is spread over")
    parser.add_argument("--live", type=int, default=4, help="viewers")
    parser.add_argument("--seconds", type=float, default=90, help="for which viewers are watched while others wait, the opening among it")
    parser.add_argument("--kinds", nargs="+", choices=["paused", "waiting"], default=["paused", "waiting"])
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    founds = []
    for kind in a.kinds:
        with start_local(None, overrides(kind, a.streams, a.live)) as app:
            founds.append(asyncio.run(measure(kind, app.address, a)))
        print(text(founds[-1]), flush=True)
    if a.json:
        a.json.write_text(json.dumps([asdict(found) for found in founds], indent=1) + "\n")
    if any(found.errors or found.settled < found.streams for found in founds):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
