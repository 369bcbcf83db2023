"""What is left after callers leave: `python -m bench.faults.cancels` cancels calls of every kind at random moments, and counts.

A private local cluster with the real model. Callers come and go in batches: Generate, Stream and Live; cancelled, out of deadline,
half-closed, or with their connection closed under them. Beside them readers that take one message and then nothing. When they have all
gone, every replica is asked what it still holds: sessions, slots, places in line, finished chunks, links, tasks. The exit code is 1 if
anything is left once the time of one step is over, or if memory keeps growing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from autoscaling.reports import FrontDoorReport, ProcessStatistics, ReplicaReport
from bench.kit.leavers import PROMPT, Leaver
from deployments.cluster.local import Overrides, start_local
from deployments.config.names import APP_NAME, FRONT_DOOR
from deployments.links.remote import reports
from headrace.client import HeadraceClient

DEPLOYMENTS = ("TextEncoder", "Denoiser", "Decoder", "FrontDoor")
_SPARE_TASKS = 3  # health checks and probes come and go
_GROWTH = 1.10
_ASK_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Holdings:
    """What all replicas hold together; `tasks`, `files` and `resident_mb` by deployment."""

    holdings: dict[str, int]
    tasks: dict[str, int]
    files: dict[str, int]
    resident_mb: dict[str, float]

    @property
    def total(self) -> int:
        return sum(self.holdings.values())


AnyReport = ReplicaReport | FrontDoorReport


def holdings(report: AnyReport) -> Iterator[tuple[str, int]]:
    """What a replica holds for callers, in words."""
    if isinstance(report, FrontDoorReport):
        yield from (("calls", report.open), ("sessions", report.admission.live), ("places in line", report.admission.waiting))
        return
    if report.link:
        yield "links", report.link.open
    if report.denoiser:
        yield from (("denoiser sessions", report.denoiser.sessions), ("denoiser waiting", report.denoiser.waiting))
        yield "undelivered chunks", report.denoiser.undelivered
    if report.decoder:
        yield "decoder sessions", report.decoder.sessions


class Inspector:
    """Asks replicas for their reports."""

    def __init__(self) -> None:
        self._handles: dict[str, DeploymentHandle[Any]] = {d: serve.get_deployment_handle(d, APP_NAME) for d in DEPLOYMENTS}

    def close(self) -> None:
        for handle in self._handles.values():
            handle.shutdown()

    async def replicas(self) -> dict[str, list[AnyReport]]:
        """From each replica that answers, by deployment."""
        found: dict[str, list[AnyReport]] = {}
        for deployment, handle in self._handles.items():
            if deployment == FRONT_DOOR:
                found[deployment] = [*await reports(handle, FrontDoorReport, _ASK_WITHIN_S)]
            else:
                found[deployment] = [*await reports(handle, ReplicaReport, _ASK_WITHIN_S)]
        return found

    async def processes(self) -> dict[str, list[ProcessStatistics]]:
        """Of each replica that answers, by deployment."""
        return {d: [r.process for r in rs if r.process] for d, rs in (await self.replicas()).items()}

    async def held(self) -> Holdings:
        replicas = await self.replicas()
        held: Counter[str] = Counter()
        for name, number in (each for rs in replicas.values() for r in rs for each in holdings(r)):
            held[name] += number
        processes = {d: [r.process for r in rs if r.process] for d, rs in replicas.items()}
        return Holdings(
            dict(held),
            {d: sum(p.tasks for p in ps) for d, ps in processes.items()},
            {d: sum(p.files for p in ps) for d, ps in processes.items()},
            {d: round(sum(p.resident_bytes for p in ps) / 2**20, 1) for d, ps in processes.items()},
        )

    async def until_empty(self, within_s: float, tasks: dict[str, int]) -> tuple[Holdings, float]:
        """Ask until nothing is held and tasks are back to `tasks`, or the time is over. Returns what was held last, and seconds waited."""
        started = time.monotonic()
        while True:
            held = await self.held()
            waited = time.monotonic() - started
            back = all(held.tasks[d] <= n + _SPARE_TASKS for d, n in tasks.items())
            if (held.total == 0 and back) or waited > within_s:
                return held, waited
            await asyncio.sleep(0.05)


@dataclass(frozen=True, slots=True)
class StormReport:
    """Of one storm. `left` names what was still held; `memory` is megabytes by deployment before, and after each quarter."""

    calls: dict[str, int]
    slow_readers: int
    waited_s: tuple[float, ...]
    left: tuple[str, ...]
    tasks_before: dict[str, int]
    tasks_after: dict[str, int]
    files_before: dict[str, int]
    files_after: dict[str, int]
    memory: tuple[dict[str, float], ...]


async def storm(
    address: str, inspector: Inspector, *, calls: int, slow_readers: int, at_once: int, steps: int, seed: int, within_s: float,
    say: Callable[[str], None] = lambda _: None,
) -> StormReport:  # fmt: skip
    """Send the callers, `at_once` at a time, and look after each quarter what is left.

    Slow readers come with the first quarter: what they take at most is then in what memory is compared with.
    """
    caller = Leaver(address, random.Random(seed), steps, patience_s=1.0)
    kinds = caller.kinds()
    before = await inspector.held()
    made: Counter[str] = Counter()
    memory = [before.resident_mb]
    left: list[str] = []
    waits: list[float] = []
    after = before
    for quarter in range(4):
        gone = asyncio.Event()
        readers = [asyncio.create_task(caller.slow_reader(gone)) for _ in range(slow_readers if quarter == 0 else 0)]
        places = asyncio.Semaphore(at_once)

        async def one(name: str, places: asyncio.Semaphore = places) -> None:
            async with places:
                await kinds[name]()

        names = [list(kinds)[n % len(kinds)] for n in range(quarter * calls // 4, (quarter + 1) * calls // 4)]
        made.update(names)
        await asyncio.gather(*(one(name) for name in names))
        gone.set()
        await asyncio.gather(*readers)
        after, waited = await inspector.until_empty(within_s, before.tasks)
        waits.append(round(waited, 3))
        memory.append(after.resident_mb)
        left += [f"after {sum(made.values())} calls: {name} = {n:g}" for name, n in after.holdings.items() if n]
        left += [
            f"after {sum(made.values())} calls: {d} has {after.tasks[d]:g} tasks, before {n:g}"
            for d, n in before.tasks.items()
            if after.tasks[d] > n + _SPARE_TASKS
        ]
        say(f"{sum(made.values()):5d} calls: empty after {waited:.2f} s; tasks {after.tasks}; files {after.files}; MB {after.resident_mb}")
    return StormReport(
        calls=dict(made),
        slow_readers=slow_readers,
        waited_s=tuple(waits),
        left=tuple(left),
        tasks_before=before.tasks,
        tasks_after=after.tasks,
        files_before=before.files,
        files_after=after.files,
        memory=tuple(memory),
    )


def grown(memory: tuple[dict[str, float], ...]) -> list[str]:
    """Deployments that hold more after the last quarter than after the first, beyond noise: the first still fills pools and caches."""
    return [f"{d}: {memory[1][d]} MB, then {memory[-1][d]} MB" for d in memory[0] if memory[-1][d] > memory[1][d] * _GROWTH]


async def measure(address: str, a: argparse.Namespace) -> StormReport:
    async with HeadraceClient(address) as client:
        async for _ in client.stream(PROMPT, seconds=2.0, steps=a.steps):
            pass
    inspector = Inspector()
    try:
        await asyncio.sleep(2.0)
        return await storm(
            address,
            inspector,
            calls=a.calls,
            slow_readers=a.slow,
            at_once=a.at_once,
            steps=a.steps,
            seed=a.seed,
            within_s=a.within,
            say=print,
        )
    finally:
        inspector.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--slow", type=int, default=50, help="slow readers")
    parser.add_argument("--at-once", type=int, default=24)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--within", type=float, default=2.0, help="seconds in which everything must be free: one step, and the asking")
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    # What is kept for those who may come back goes within the run, so that it does not pass for a leak, nor hide one.
    more = {"admission": {"mode": "none", "max_waiting": 128}, "session_store": {"ttl_seconds": 3}}
    with start_local(None, Overrides(grpc_port=0, metrics_port=0, args=more)) as app:
        report = asyncio.run(measure(app.address, a))
    problems = [*report.left, *grown(report.memory)]
    print(f"calls: {report.calls}, and {report.slow_readers} slow readers")
    print("\n".join(problems) or "nothing is left")
    if a.json:
        a.json.write_text(json.dumps(asdict(report), indent=1) + "\n")
    if problems:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
