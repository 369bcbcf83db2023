"""What viewers see when something breaks: `python -m bench.faults.failures` kills, cuts and redeploys under live sessions.

A real Ray cluster on this machine: a head with the controller and two front doors, and two worker nodes with one replica of each
stage on each, so that a spare is running. In every round all sessions play from their start; a little later the fault strikes; every
frame is then compared with an undisturbed run of the same seed and prompts. The exit code is 1 if any frame was lost, came twice, or
differs.

    none, prompts   nothing breaks; the second with prompts that change all the time, as under text_encoder
    late    of all sessions in all rounds: how long the screen stood still at worst, the frames sent ahead being played meanwhile
    gap     of one session in one round: its longest wait for a chunk after the fault, beyond the paced interval
    hit     sessions that used what was struck; p50 is over the longest gaps, as many as there were hits, max over all
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.kit.harness import FaultCluster
from bench.kit.nodes import LocalNodes, with_cluster_environment
from bench.kit.tally import quantile
from bench.kit.viewers import Programme, Reference, Seen, Verdict, judge, reference, watch
from headrace.client import ClientError
from model_core.presets import millrace_64

SETTLE_S = 3.0


@dataclass(frozen=True, slots=True)
class Row:
    """One fault over its rounds."""

    fault: str
    rounds: int
    sessions: int
    hit: int
    lost: int
    duplicated: int
    differ: int
    gap_p50_s: float
    gap_max_s: float
    late_max_s: float
    errors: tuple[str, ...]

    @property
    def clean(self) -> bool:
        return self.lost == self.duplicated == self.differ == 0


Strike = Callable[[FaultCluster, random.Random], Awaitable[int]]


async def nothing(_: FaultCluster, __: random.Random) -> int:
    return 0


def replica(deployment: str) -> Strike:
    async def strike(cluster: FaultCluster, chance: random.Random) -> int:
        found = [(r.process.pid, r.link.open) for r in await cluster.stages(deployment) if r.process and r.link]
        pid, streams = chance.choice([victim for victim in found if victim[1]] or found)
        os.kill(pid, 9)
        return streams

    return strike


async def front_door(cluster: FaultCluster, chance: random.Random) -> int:
    pid, calls = chance.choice([(r.process.pid, r.open) for r in await cluster.front_doors() if r.process and r.open])
    os.kill(pid, 9)
    return calls


async def text_encoder(cluster: FaultCluster, chance: random.Random) -> int:
    await replica("TextEncoder")(cluster, chance)
    return cluster.sessions


async def controller(cluster: FaultCluster, _: random.Random) -> int:
    os.kill(cluster.controller_pid(), 9)
    return cluster.sessions


async def node_kill(cluster: FaultCluster, chance: random.Random) -> int:
    node, hit = await cluster.choose_node(chance)
    cluster.nodes.kill(node)
    return hit


async def node_cut(cluster: FaultCluster, chance: random.Random) -> int:
    node, hit = await cluster.choose_node(chance)
    cluster.nodes.cut(node)
    node.alive = False
    return hit


async def redeploy(cluster: FaultCluster, _: random.Random) -> int:
    await asyncio.to_thread(cluster.redeploy_stages)
    return cluster.sessions


FAULTS: dict[str, Strike] = {
    "none": nothing,
    "prompts": nothing,
    "denoiser": replica("Denoiser"),
    "decoder": replica("Decoder"),
    "text_encoder": text_encoder,
    "front_door": front_door,
    "controller": controller,
    "node": node_kill,
    "cut": node_cut,
    "redeploy": redeploy,
}
PROMPTS_CHANGE = ("prompts", "text_encoder")  # in every other chunk


async def play_round(
    cluster: FaultCluster, programmes: list[Programme], strike: Strike, chance: random.Random
) -> tuple[list[Seen], int, float]:
    """All viewers from start to end, with the fault on the way. Returns what they saw, how many were hit, and when."""
    viewers = [Seen(p) for p in programmes]
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(cluster.client()) for _ in viewers]

        async def play(n: int) -> None:
            try:
                await watch(clients[n], programmes[n], cluster.config, viewers[n], time.monotonic)
            except ClientError as error:
                viewers[n].error = f"{error.code.name}: {error}"

        tasks = [asyncio.create_task(play(n)) for n in range(len(viewers))]
        while not all(len(v.arrivals) > 1 or v.error for v in viewers):  # noqa: ASYNC110 - many writers
            await asyncio.sleep(0.05)
        await asyncio.sleep(chance.uniform(0.5, 2.0))
        struck = time.monotonic()
        hit = await strike(cluster, chance)
        await asyncio.gather(*tasks)
    return viewers, hit, struck


async def measure(cluster: FaultCluster, truth: Reference, name: str, a: argparse.Namespace) -> Row:
    chance = random.Random(f"{a.seed} {name}")
    gaps: list[float] = []
    longest: list[float] = []
    late_s = 0.0
    hits = 0
    total = Verdict(0, 0, 0)
    errors: list[str] = []
    chunk_s = cluster.config.chunk_seconds
    for _ in range(a.rounds):
        await cluster.until_whole()
        programmes = [Programme(seed, a.steps, a.chunks, a.lead, 2 if name in PROMPTS_CHANGE else 0) for seed in range(a.sessions)]
        viewers, hit, struck = await play_round(cluster, programmes, FAULTS[name], chance)
        verdict = await judge(viewers, cluster.config.grid.first_frame(a.chunks), truth)
        total = Verdict(total.lost + verdict.lost, total.duplicated + verdict.duplicated, total.differ + verdict.differ)
        now = sorted((v.gap(struck, chunk_s) for v in viewers), reverse=True)
        late_s = max(late_s, *(v.late_s for v in viewers))
        hits += hit
        gaps += now
        longest += now[: hit or len(now)]
        errors += sorted({v.error for v in viewers if v.error})
        print(f"  {name}: {hit} hit, {verdict}, gaps {[round(g, 2) for g in now]} {errors[-1:]}", file=sys.stderr, flush=True)
    return Row(
        fault=name,
        rounds=a.rounds,
        sessions=a.sessions * a.rounds,
        hit=hits,
        lost=total.lost,
        duplicated=total.duplicated,
        differ=total.differ,
        gap_p50_s=round(quantile(longest, 0.5), 3),
        gap_max_s=round(max(gaps), 3),
        late_max_s=round(late_s, 3),
        errors=tuple(errors),
    )


def table(rows: list[Row]) -> str:
    head = f"{'fault':14}{'rounds':>7}{'hit':>6}{'lost':>6}{'twice':>6}{'differ':>7}{'gap p50':>9}{'gap max':>9}{'late max':>10}"
    lines = [
        f"{r.fault:14}{r.rounds:>7}{r.hit:>6}{r.lost:>6}{r.duplicated:>6}{r.differ:>7}{r.gap_p50_s:>8.2f}s{r.gap_max_s:>8.2f}s{r.late_max_s:>9.2f}s"
        for r in rows
    ]
    return "\n".join([head, *lines])


async def run(cluster: FaultCluster, a: argparse.Namespace) -> list[Row]:
    rows = []
    async with reference(replace(millrace_64(), fps=a.fps)) as truth:
        for name in a.only or FAULTS:
            rows.append(await measure(cluster, truth, name, a))
            print(table(rows[-1:]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=FAULTS, help="these faults; default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2, help="denoise steps a chunk")
    parser.add_argument("--fps", type=int, default=8, help="rate that sessions are played at: all of them must fit this machine")
    parser.add_argument("--lead", type=float, default=1.0, help="how far frames may run ahead of playback, in seconds")
    parser.add_argument("--chunks", type=int, default=14, help="length of a session")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-namespaces", action="store_true", help="stop a node's processes in place of cutting its network")
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    with_cluster_environment()
    with LocalNodes(namespaces=not a.no_namespaces) as nodes, FaultCluster(nodes, a.fps, a.sessions) as cluster:
        rows = asyncio.run(run(cluster, a))
    print("\n" + table(rows))
    if a.json:
        a.json.write_text(
            json.dumps({"options": {k: v for k, v in vars(a).items() if k != "json"}, "rows": [asdict(r) for r in rows]}, indent=1) + "\n"
        )
    if not all(row.clean for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
