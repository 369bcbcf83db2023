"""An hour's soak, `python -m bench.faults.soak`: callers of every kind on a local cluster, and bystanders who must not notice them.

The cluster has two replicas of each stage, and each stage's younger one is killed now and then. At half of what the cluster can carry,
well-behaved viewers play one paced session after the other. Beside them `bench.kit.guests` make calls of every kind, sound and not,
one in twenty of them poisoned. The exit code is 1 if any of this is missed:

    on time     of the bystanders' chunks, at least 99.9 %, on a screen that began to play at the first frame's arrival
    ended       none of the bystanders' sessions ends before its end
    statuses    every call of a guest ends, with a status that its kind may end with; "try again" is none of them, although a client
                would, because another replica of the stage is always there
    memory      no replica that was there for most of the run holds more in its last quarter than in its first, beyond noise
    left        nothing is held once all have gone
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.faults.cancels import Inspector
from bench.faults.overload import LEAD_S, capacity
from bench.kit.guests import TENANT as GUESTS
from bench.kit.guests import Call, Guests
from bench.kit.load import Arrival, Heard
from bench.kit.tally import lateness, quantile
from bench.kit.wires import GrpcWire
from deployments.cluster.local import ROOT, Overrides, start_local
from headrace.client import HeadraceClient
from model_core.presets import millrace_64

STAGES = ("TextEncoder", "Denoiser", "Decoder")
ON_TIME = 0.999
TENANT = "bystanders"
MODEL = millrace_64()
_SILENCE_S = 20.0
_SESSION_S = (20.0, 60.0)
_WARM_S, _LEAST_S = 60.0, 600.0  # pools and caches fill
_GROWTH, _GROWTH_MB = 1.10, 16.0
_FREE_WITHIN_S = 30.0
_RECOVERY_S = 15.0  # from a kill until the replica that replaces it serves
_SEED_BITS = 32
_EXAMPLES = 3
_NO_END = ("completed", "refused", "cut off")  # ends of a session that are nobody's fault, the end of the run among them


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one replica: megabytes by seconds from the start of the run."""

    deployment: str
    pid: int
    at_s: list[float] = field(default_factory=list)
    mb: list[float] = field(default_factory=list)

    def quarters(self) -> tuple[float, float]:
        """The median of the first and of the last quarter of its life, from when it was warm."""
        warm = [mb for at_s, mb in zip(self.at_s, self.mb, strict=True) if at_s >= self.at_s[0] + _WARM_S] or self.mb
        quarter = max(1, len(warm) // 4)
        return quantile(warm[:quarter], 0.5), quantile(warm[-quarter:], 0.5)

    def slope_mb_an_hour(self) -> float:
        """By least squares."""
        n, sum_t, sum_m = len(self.at_s), sum(self.at_s), sum(self.mb)
        spread = n * sum(t * t for t in self.at_s) - sum_t * sum_t
        products = n * sum(t * m for t, m in zip(self.at_s, self.mb, strict=True)) - sum_t * sum_m
        return round(3600 * products / spread, 1) if spread else 0.0

    def grew(self) -> bool:
        """Of a replica that lived too short for its pools and caches to fill, nothing is said."""
        if self.at_s[-1] - self.at_s[0] < _LEAST_S:
            return False
        first, last = self.quarters()
        return last > first * _GROWTH and last > first + _GROWTH_MB


@dataclass(frozen=True, slots=True)
class Late:
    """One chunk that came too late: by how much, how long its viewer had been playing, and the newest kill before it."""

    late_s: float
    playing_s: float
    killed: str = ""
    killed_before_s: float | None = None


@dataclass(frozen=True, slots=True)
class SoakReport:
    """A run, summed up. `unexpected` is what guests must not end with; `calls` counts statuses by kind."""

    seconds: float
    capacity: int
    bystanders: int
    sessions: int
    chunks: int
    on_time_share: float
    max_late_s: float
    refused: int
    ended: list[str]
    calls: dict[str, dict[str, int]]
    unexpected: list[str]
    kills: dict[str, int]
    late: list[Late]
    memory: list[dict[str, Any]]
    left: list[str]
    load_average: float

    def missed(self) -> list[str]:
        """What the run should not have shown, in sentences."""
        grown = [
            f"{m['deployment']} {m['pid']}: {m['first_mb']} MB, then {m['last_mb']} MB, {m['slope_mb_an_hour']:+} MB an hour"
            for m in self.memory
            if m["grew"]
        ]
        on_time = [] if self.on_time_share >= ON_TIME else [f"{self.on_time_share:.3%} of the bystanders' chunks were on time"]
        ended = [f"a bystander's session ended: {text}" for text in self.ended]
        return [
            *on_time,
            *ended,
            *(f"unexpected: {text}" for text in self.unexpected),
            *grown,
            *(f"left over: {name}" for name in self.left),
        ]


def late_chunks(heard: Sequence[Heard], kills: Sequence[tuple[float, str]]) -> list[Late]:
    """Each late chunk of `heard`, with what was killed before it. `kills` are times, on the clock of `heard`, in order."""
    found = []
    for caller in heard:
        for chunk, late_s in zip(caller.chunks, lateness(caller, MODEL.fps), strict=True):
            if late_s > 0:
                at_s = caller.intended + chunk.at_s
                before = [(at_s - killed_at, stage) for killed_at, stage in kills if killed_at <= at_s]
                since, stage = before[-1] if before else (None, "")
                playing_s = chunk.at_s - caller.chunks[0].at_s
                found.append(Late(round(late_s, 3), round(playing_s, 2), stage, None if since is None else round(since, 2)))
    return found


def summed(
    seconds: float, capacity: int, bystanders: int, heard: Sequence[Heard], calls: Sequence[Call], kills: Sequence[tuple[float, str]],
    memory: Sequence[Memory], left: Sequence[str],
) -> SoakReport:  # fmt: skip
    """The figures of a run. `kills` are times and stages."""
    late = [value for caller in heard for value in lateness(caller, MODEL.fps)]
    statuses: dict[str, Counter[str]] = {}
    for call in calls:
        statuses.setdefault(call.kind, Counter())[call.status] += 1
    unexpected: dict[str, list[str]] = {}
    for call in calls:
        if not call.allowed:
            unexpected.setdefault(f"{call.kind}: {call.status}", []).append(call.details)
    long_lived = [m for m in memory if len(m.at_s) > 1 and m.at_s[-1] - m.at_s[0] > seconds / 2]
    return SoakReport(
        seconds=round(seconds, 1), capacity=capacity, bystanders=bystanders, sessions=len(heard), chunks=len(late),
        on_time_share=round(1 - sum(value > 0 for value in late) / max(1, len(late)), 6), max_late_s=round(max(0.0, *late, 0.0), 3),
        refused=sum(caller.result == "refused" for caller in heard),
        ended=[caller.result for caller in heard if caller.result not in _NO_END],
        calls={kind: dict(counts) for kind, counts in sorted(statuses.items())},
        unexpected=[f"{text}, {len(told)} times{_examples(told)}" for text, told in sorted(unexpected.items())],
        kills=dict(Counter(stage for _, stage in kills)), late=late_chunks(heard, kills),
        memory=[
            {
                "deployment": m.deployment, "pid": m.pid, "first_mb": round(m.quarters()[0], 1), "last_mb": round(m.quarters()[1], 1),
                "slope_mb_an_hour": m.slope_mb_an_hour(), "grew": m.grew(), "at_s": m.at_s, "mb": m.mb,
            }
            for m in long_lived
        ],
        left=list(left), load_average=round(os.getloadavg()[0], 2),
    )  # fmt: skip


def _examples(details: Sequence[str]) -> str:
    """Some of what came with the statuses: two that differ may differ by no more than an id."""
    some = list(dict.fromkeys(told for told in details if told))[:_EXAMPLES]
    return "".join(f"\n    {told}" for told in some)


class Soak:
    """One run against a cluster. What it sees grows with the run, by some bytes a chunk."""

    def __init__(self, address: str, inspector: Inspector, chance: random.Random, poisoned: float) -> None:
        self.heard: list[Heard] = []
        self.calls: list[Call] = []
        self.kills: list[tuple[float, str]] = []
        self.memory: dict[int, Memory] = {}
        self._address = address
        self._inspector = inspector
        self._chance = chance
        self._guests = Guests(address, chance, poisoned)
        self._began = time.monotonic()

    async def run(self, seconds: float, bystanders: int, guests: int, kill_every_s: float, look_every_s: float) -> None:
        """Until the time is over; what plays then is cut off."""
        places = (
            *(self._bystander() for _ in range(bystanders)), *(self._again_and_again(self._guest) for _ in range(guests)),
            self._every(look_every_s, self._look), self._every(kill_every_s, self._kill),
        )  # fmt: skip
        tasks = [asyncio.create_task(place) for place in places]
        try:
            done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()  # a fault of this program

    async def _bystander(self) -> None:
        async with HeadraceClient(self._address, tenant=TENANT) as client:
            wire = GrpcWire(client, LEAD_S, _SILENCE_S)
            while True:
                arrival = Arrival(0.0, "live", self._chance.uniform(*_SESSION_S), self._chance.getrandbits(_SEED_BITS))
                heard = Heard(arrival, time.monotonic(), time.monotonic)
                self.heard.append(heard)
                try:
                    await wire(heard)
                except Exception as error:  # noqa: BLE001 - whatever a server does is a result
                    heard.result = f"{type(error).__name__}: {error}"
                made, asked = sum(chunk.frames for chunk in heard.chunks), round(arrival.seconds * MODEL.fps)
                if heard.result == "completed" and made < asked:
                    heard.result = f"ended after {made} of {asked} frames"
                if heard.result != "completed":
                    await asyncio.sleep(heard.retry_after_s or 1.0)

    async def _guest(self) -> None:
        self.calls.append(await self._guests.one())
        await asyncio.sleep(self._chance.uniform(0.0, 0.5))

    async def _look(self) -> None:
        at_s = round(time.monotonic() - self._began, 1)
        for deployment, processes in (await self._inspector.processes()).items():
            for process in processes:
                memory = self.memory.setdefault(process.pid, Memory(deployment, process.pid))
                memory.at_s.append(at_s)
                memory.mb.append(round(process.resident_bytes / 2**20, 1))

    async def _kill(self) -> None:
        """The youngest replica of a stage, where another one is left; so the oldest shows whether memory grows."""
        deployment = STAGES[len(self.kills) % len(STAGES)]
        answering = [process.pid for process in (await self._inspector.processes())[deployment]]
        if len(answering) < 2:
            return
        known = {pid: age for age, pid in enumerate(self.memory)}
        with suppress(ProcessLookupError):
            os.kill(max(answering, key=lambda pid: known.get(pid, len(known))), signal.SIGKILL)
            self.kills.append((time.monotonic(), deployment))

    async def _again_and_again(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await work()

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await work()
            await asyncio.sleep(seconds)


async def measure(address: str, a: argparse.Namespace) -> SoakReport:
    """The whole run."""
    async with HeadraceClient(address) as client:
        fits = a.capacity or await capacity(client, seconds=6.0, most=32)
    inspector = Inspector()
    try:
        before = await inspector.held()
        bystanders = max(1, fits // 2)
        print(f"capacity {fits}: {bystanders} bystanders, {a.guests} guests at a time, for {a.minutes:g} minutes", flush=True)
        soak = Soak(address, inspector, random.Random(a.seed), a.poisoned)
        await soak.run(60 * a.minutes, bystanders, a.guests, a.kill_every, a.look_every)
        after, _ = await inspector.until_empty(_FREE_WITHIN_S, before.tasks)
        left = [f"{name} = {count:g}" for name, count in after.holdings.items() if count]
        return summed(60 * a.minutes, fits, bystanders, soak.heard, soak.calls, soak.kills, list(soak.memory.values()), left)
    finally:
        inspector.close()


def overrides() -> Overrides:
    """Two replicas of each stage, stages that can be poisoned, and a share of the capacity for bystanders that guests cannot take."""
    stage = {"autoscaling_config": None, "num_replicas": 2, "ray_actor_options": {"num_cpus": 0.05}}  # all of them on a small machine
    door = {"user_config": {"tenants": {TENANT: {"weight": 4}, GUESTS: {"weight": 1}}}}
    # What is kept for those who may come back goes within the run, so that it does not pass for a leak, nor hide one.
    args = {"stages": "bench.kit.poisoned", "session_store": {"ttl_seconds": 10}}
    blocks: dict[str, dict[str, Any]] = {**dict.fromkeys(STAGES, stage), "FrontDoor": door}
    return Overrides(grpc_port=0, metrics_port=0, args=args, deployments=blocks, env={"PYTHONPATH": str(ROOT)}, scaling=None)


def lateness_by_kill(late: Sequence[Late]) -> list[str]:
    """How many late chunks followed within `_RECOVERY_S` of a kill of each stage, and how many did not."""
    groups: dict[str, list[Late]] = {}
    for chunk in late:
        soon = chunk.killed_before_s is not None and chunk.killed_before_s <= _RECOVERY_S
        groups.setdefault(f"within {_RECOVERY_S:g} s of a killed {chunk.killed}" if soon else "at other times", []).append(chunk)
    return [f"{len(chunks)} {when}, {max(c.late_s for c in chunks):g} s at worst" for when, chunks in sorted(groups.items())]


def table(report: SoakReport) -> str:
    seen = f"{report.chunks} chunks, {report.on_time_share:.3%} on time, {report.max_late_s} s late at worst, {report.refused} refused"
    lines = [f"bystanders: {report.sessions} sessions, {seen}; kills {report.kills}; load average {report.load_average}"]
    lines += [f"  late: {line}" for line in lateness_by_kill(report.late)]
    lines += [f"  {kind:32}{counts}" for kind, counts in report.calls.items()]
    lines += [
        f"  {m['deployment']:14}{m['pid']:>9}{m['first_mb']:>9} MB{m['last_mb']:>9} MB{m['slope_mb_an_hour']:>+9} MB/h"
        for m in report.memory
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--guests", type=int, default=4, help="calls of guests at a time")
    parser.add_argument("--poisoned", type=float, default=0.05, help="share of them that are poisoned")
    parser.add_argument("--capacity", type=int, help="sessions that fit, instead of measuring")
    parser.add_argument("--kill-every", type=float, default=60, help="seconds from one killed replica to the next")
    parser.add_argument("--look-every", type=float, default=10, help="seconds from one look at memory to the next")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    with start_local(None, overrides()) as app:
        report = asyncio.run(measure(app.address, a))
    print(table(report))
    missed = report.missed()
    print("\n".join(missed) or "nothing was missed")
    if a.json:
        a.json.parent.mkdir(parents=True, exist_ok=True)
        a.json.write_text(json.dumps({"seed": a.seed, "missed": missed, **asdict(report)}, indent=1) + "\n")
    if missed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
