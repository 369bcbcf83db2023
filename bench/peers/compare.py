"""Headrace beside its peers, on one machine: `python -m bench.peers.compare` (`make bench`), `--quick` to see whether it works.

Every system has the same model, weights, libraries, cores, engine settings and pacing, is started for its turn and stopped after it. Turns
are interleaved: a repeat measures every system once, in an order that rotates. Client and server share the cores. A turn is

    first     streams of one chunk, one after the other                time to first frame, overhead
    alone     one job                                                  milliseconds a chunk, CPU a chunk
    crowd     eight jobs at once                                       the same
    paced     one live session                                         gaps
    goodput   more or fewer live sessions, until the most are found of which at least 99 % of the chunks are on time
    trace     live sessions and jobs, arriving at random and in bursts, half of what the floor can do: the same trace for all

On time: before the frame is due on a screen that begins to play one start-up allowance after the call was meant to be sent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bench.kit import tally
from bench.kit.load import Arrival, Heard, Mix, burst, offer, record, replay, together
from bench.kit.systems import SYSTEMS, Running, System, running, used
from bench.peers import report
from deployments.cluster.local import ROOT
from model_core.presets import millrace_64

MODEL = millrace_64()
WARM_WITHIN_S = 120.0
CROWD = 8
BURST_S, PERIOD_S = 1.0, 5.0
RESULTS = ROOT / "bench" / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How long each part of a turn is.

    Attributes:
        first: streams of one chunk.
        alone, crowd: chunks of each job.
        paced_s, step_s, trace_s: seconds of the live session, of each step of the search, of the trace.
        steps: most steps of the search.
        most: most sessions it tries.
        lead_s: how far live sessions may run ahead of playback.
        start_s: the start-up allowance.
    """

    first: int = 12
    alone: int = 24
    crowd: int = 10
    paced_s: float = 4.0
    step_s: float = 4.0
    steps: int = 4
    most: int = 48
    trace_s: float = 10.0
    lead_s: float = 1.0
    start_s: float = 1.0


QUICK = Sizes(first=3, alone=6, crowd=2, paced_s=2.0, step_s=2.0, steps=2, trace_s=3.0)


class Turn:
    """One system, measured once."""

    def __init__(self, system: System, server: Running, sizes: Sizes, start: int, trace: Sequence[Arrival]) -> None:
        self._system, self._server, self._sizes, self._start, self._trace = system, server, sizes, start, trace

    async def run(self) -> dict[str, Any]:
        """All parts, in order."""
        s = self._sizes
        await self._warm()
        load_before = os.getloadavg()[0]
        first = [heard for n in range(s.first) for heard in await self._offer([Arrival(0.0, "job", MODEL.chunk_seconds, n)])]
        alone, crowd = await self._job(1, s.alone), await self._job(CROWD, s.crowd)
        paced = await self._offer(together(1, s.paced_s))
        tried = await self._search()
        traced = await self._offer(self._trace)
        held = max((count for count, figures in tried.items() if _kept(figures)), default=0)
        return {
            "system": self._system.name, "load_before": load_before, "load_after": os.getloadavg()[0],
            "memory_mib": round(used(self._server.pid).memory_bytes / 2**20), "alone": alone, "crowd": crowd, "goodput": held,
            "tried": {str(count): _kept(figures) for count, figures in sorted(tried.items())},
            "most": asdict(tried[held]) if held else None,
            "first": asdict(self._figures(first)), "paced": asdict(self._figures(paced)), "trace": asdict(self._figures(traced)),
            "gaps_ms": [round(1000 * gap, 1) for heard in (*paced, *traced) if heard.arrival.kind == "live" for gap in tally.gaps(heard)],
            "errors": sorted({heard.result for heard in (*first, *paced, *traced)} - {"completed"}),
        }  # fmt: skip

    async def _warm(self) -> None:
        """Calls until as many as there can be replicas have been answered; a server may listen before it serves."""
        deadline = time.monotonic() + WARM_WITHIN_S
        while True:
            heard = await self._offer(together(CROWD, MODEL.chunk_seconds, "job"))
            if all(one.result == "completed" for one in heard):
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self._system.title} does not serve: {heard[0].result}")
            await asyncio.sleep(0.5)

    async def _job(self, sessions: int, chunks: int) -> dict[str, float]:
        before = used(self._server.pid, memory=False).cpu_s
        heard = await self._offer(together(sessions, chunks * MODEL.chunk_seconds, "job"))
        cpu_s = used(self._server.pid, memory=False).cpu_s - before
        return {"chunk_ms": tally.chunk_ms(heard), "cpu_ms": round(1000 * cpu_s / (sessions * chunks), 2)}

    async def _search(self) -> dict[int, tally.Figures]:
        """By number of sessions: what they met."""
        s, tried = self._sizes, dict[int, tally.Figures]()
        while len(tried) < s.steps:
            count = tally.next_count({n: _kept(figures) for n, figures in tried.items()}, self._start, s.most)
            if count is None:
                break
            tried[count] = self._figures(await self._offer(together(count, s.step_s, spread_s=MODEL.chunk_seconds)))
        return tried

    async def _offer(self, arrivals: Sequence[Arrival]) -> list[Heard]:
        longest_s = max((arrival.seconds for arrival in arrivals), default=0.0)
        return await offer(arrivals, self._server.play, grace_s=4 * longest_s + 10)

    def _figures(self, heard: Sequence[Heard]) -> tally.Figures:
        return tally.figures(heard, MODEL.fps, self._sizes.start_s)


def _kept(figures: tally.Figures) -> bool:
    return figures.on_time_share >= tally.ON_TIME and not figures.failed


def trace_for(capacity: float, seconds: float, seed: int) -> list[Arrival]:
    """Half of `capacity` sessions on average; a fifth of them jobs; every few seconds a burst of three times the rate between."""
    mix = Mix(live=0.8, job=0.2, mean_s=2.5, least_s=1.5)
    mean_per_s = capacity / 2 / mix.mean_s
    quiet_per_s = mean_per_s * PERIOD_S / (PERIOD_S + 2 * BURST_S)
    return burst(seed, seconds, quiet_per_s, 3 * quiet_per_s, PERIOD_S, BURST_S, mix)


async def compare(systems: Sequence[System], repeats: int, replicas: int, sizes: Sizes, trace: Path | None) -> list[dict[str, Any]]:
    """Turns of all systems, interleaved."""
    capacity, arrivals = await _measure_floor(sizes)
    arrivals = replay(trace) if trace else arrivals
    starts = dict.fromkeys((system.name for system in systems), max(1, round(0.7 * capacity)))
    turns: list[dict[str, Any]] = []
    for repeat in range(repeats):
        for system in (*systems[repeat % len(systems) :], *systems[: repeat % len(systems)]):
            async with running(system, replicas, sizes.lead_s) as server:
                turn = await Turn(system, server, sizes, starts[system.name], arrivals).run()
            starts[system.name] = turn["goodput"] or starts[system.name]
            turns.append({"repeat": repeat, **turn})
            print(report.line(turn), file=sys.stderr, flush=True)
    return turns


async def _measure_floor(sizes: Sizes) -> tuple[float, list[Arrival]]:
    """Sessions that the bare pipeline makes in real time, and the trace for that."""
    async with running(SYSTEMS["floor"], 1, sizes.lead_s) as server:
        await offer(together(CROWD, MODEL.chunk_seconds, "job"), server.play, WARM_WITHIN_S)
        heard = await offer(together(CROWD, sizes.crowd * MODEL.chunk_seconds, "job"), server.play, WARM_WITHIN_S)
    capacity = 1000 * MODEL.chunk_seconds / tally.chunk_ms(heard)
    return capacity, trace_for(capacity, sizes.trace_s, seed=1)


def machine() -> dict[str, Any]:
    """What the figures say something about."""
    cpu = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30
    return {
        "cpu": cpu or platform.processor(), "cores": len(os.sched_getaffinity(0)), "memory_gib": memory,
        "python": platform.python_version(), "torch": torch.__version__, "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--replicas", type=int, default=cores, help="of the monoliths and the fused one; default: one a core")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one repeat: shows that it works, its figures mean nothing")
    parser.add_argument("--trace", type=Path, help="replay this CSV instead of the trace that is made")
    parser.add_argument("--save-trace", type=Path, help="write the trace that would be used, and stop")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--html", type=Path)
    a = parser.parse_args()
    sizes, name = (QUICK, "compare-quick") if a.quick else (Sizes(), "compare")
    if a.save_trace:
        record(asyncio.run(_measure_floor(sizes))[1], a.save_trace)
        return
    began = time.monotonic()
    turns = asyncio.run(compare([SYSTEMS[n] for n in a.systems], 1 if a.quick else a.repeats, a.replicas, sizes, a.trace))
    found = {
        "machine": machine(), "sizes": asdict(sizes), "replicas": a.replicas, "minutes": round((time.monotonic() - began) / 60, 1),
        "systems": {n: {"title": SYSTEMS[n].title, "note": SYSTEMS[n].note} for n in a.systems}, "turns": turns,
    }  # fmt: skip
    path = a.json or (ROOT / "build" / f"{name}.json" if a.quick else RESULTS / f"{name}.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found) + "\n")
    html = a.html or ROOT / "build" / f"{name}.html"
    html.parent.mkdir(exist_ok=True)
    html.write_text(report.html(found))
    print(report.text(found))
    print(f"\n{path}\n{html}")


if __name__ == "__main__":
    main()
