"""Offers three times more viewers than fit, with admission control and without: `python -m bench.faults.overload`.

    capacity       simultaneous live sessions of full quality without a late chunk, measured without admission control
    trace          Poisson arrivals, whether the server keeps up or not, exponential lengths, a fixed seed; the refused do not come back
    on time        a chunk that arrives before its first frame is due on a screen that began to play at the first frame's arrival

Client and server share the machine. Absolute figures say something about this machine only, so the load average is recorded with them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.costs.realtime import MODEL, play
from bench.kit.load import Arrival, Heard, Mix, offer, poisson, together
from bench.kit.tally import lateness, quantile, stall_s
from bench.kit.wires import GrpcWire
from deployments.cluster.local import Overrides, start_local
from headrace.client import HeadraceClient

SLOTS = 64
SILENCE_S = 20.0
LEAD_S = 1.0


@dataclass(slots=True)
class OverloadReport:
    """A run, summed up."""

    offered: int
    started: int
    completed: int
    cut_off: int
    refused: int
    hung: int
    errors: list[str]
    waited: int
    refused_p50_ms: float
    refused_max_ms: float
    refused_with_retry_delay: int
    chunks: int
    on_time_share: float
    sessions_all_on_time: int
    max_late_s: float
    ttff_p50_s: float
    ttff_max_s: float
    degraded_sessions: int
    degraded_chunks: int
    quality_changes: int
    load_average: float = field(default_factory=lambda: round(os.getloadavg()[0], 2))


def trace(seed: int, seconds: float, concurrent: float, mean_s: float) -> list[Arrival]:
    """Arrivals over `seconds` that would keep `concurrent` sessions of `mean_s` on average running, if all were served at once."""
    return poisson(seed, seconds, concurrent / mean_s, Mix(mean_s=mean_s))


def summed(outcomes: Sequence[Heard]) -> OverloadReport:
    """The figures of a run."""
    refused = [o for o in outcomes if o.result == "refused"]
    played = [o for o in outcomes if o.ttff_s is not None]
    late = [[value > 0 for value in lateness(o, MODEL.fps)] for o in played]
    chunks = sum(map(len, late))
    degraded = [sum(chunk.degraded for chunk in o.chunks) for o in played]
    known = {"completed", "cut off", "refused", "hung"}
    first = [o.ttff_s or 0.0 for o in played] or [0.0]
    answers = [1000 * o.refused_after_s for o in refused] or [0.0]
    return OverloadReport(
        offered=len(outcomes), started=len(played), completed=sum(o.result == "completed" for o in outcomes),
        cut_off=sum(o.result == "cut off" for o in outcomes), refused=len(refused), hung=sum(o.result == "hung" for o in outcomes),
        errors=sorted({o.result for o in outcomes} - known), waited=sum(o.waited for o in outcomes),
        refused_p50_ms=round(quantile(answers, 0.5), 1), refused_max_ms=round(max(answers), 1),
        refused_with_retry_delay=sum(bool(o.retry_after_s) for o in refused), chunks=chunks,
        on_time_share=round(1 - sum(map(sum, late)) / max(1, chunks), 5),
        sessions_all_on_time=sum(not any(session) for session in late),
        max_late_s=round(max((stall_s(o, MODEL.fps) for o in played), default=0.0), 3),
        ttff_p50_s=round(quantile(first, 0.5), 3), ttff_max_s=round(max(first), 3),
        degraded_sessions=sum(map(bool, degraded)), degraded_chunks=sum(degraded),
        quality_changes=sum(o.changes for o in played),
    )  # fmt: skip


async def capacity(client: HeadraceClient, seconds: float, most: int) -> int:
    """Simultaneous sessions of full quality without a late chunk; the search stops at the first number that has one."""
    await play(client, together(1, 2.0, "job"))
    sessions = 1
    while sessions < most:
        result = await play(client, together(sessions + 1, seconds), LEAD_S)
        print(f"  {sessions + 1} sessions: {result.on_time_share:.2%} of {result.chunks} chunks on time")
        if result.on_time_share < 1:
            break
        sessions += 1
    return sessions


def overrides(mode: str) -> Overrides:
    """A server with room for everybody, so that admission alone decides."""
    args = {"admission": {"mode": mode}, "engine": {"slots": SLOTS}, "decoder": {"slots": SLOTS}, "front_door": {"max_sessions": SLOTS}}
    return Overrides(grpc_port=0, metrics_port=0, args=args)


async def run(address: str, visits: Sequence[Arrival], grace_s: float) -> OverloadReport:
    """One server, one trace."""
    async with HeadraceClient(address) as client:
        await play(client, together(1, 2.0, "job"))
        return summed(await offer(visits, GrpcWire(client, LEAD_S, SILENCE_S), grace_s))


async def measure(address: str, a: argparse.Namespace) -> int:
    """`--capacity`, or what is measured."""
    if a.capacity:
        return int(a.capacity)
    async with HeadraceClient(address) as client:
        return await capacity(client, a.step_seconds, most=32)


def table(reports: dict[str, OverloadReport]) -> str:
    """The reports side by side."""
    rows = [("", *reports)]
    rows += [(name.replace("_", " "), *(str(asdict(r)[name]) for r in reports.values())) for name in asdict(next(iter(reports.values())))]
    return "\n".join(f"{row[0]:28}" + "".join(f"{cell:>22}" for cell in row[1:]) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="length of the trace")
    parser.add_argument("--factor", type=float, default=3.0, help="offered load, in capacities")
    parser.add_argument("--mean", type=float, default=10.0, help="mean length of a session, in seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--grace", type=float, default=30, help="seconds after the trace before what still runs is cut off")
    parser.add_argument("--capacity", type=int, help="sessions that fit, instead of measuring")
    parser.add_argument("--step-seconds", type=float, default=6, help="length of each step of that measurement")
    parser.add_argument("--modes", nargs="+", choices=["none", "measured"], default=["none", "measured"])
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    fits, reports = 0, {}
    visits: list[Arrival] = []
    for mode in a.modes:
        with start_local(None, overrides(mode)) as app:
            if not fits:
                fits = asyncio.run(measure(app.address, a))
                visits = trace(a.seed, a.seconds, a.factor * fits, a.mean)
                print(f"capacity {fits} sessions; offered: {len(visits)} sessions in {a.seconds:g} s, {a.factor:g} times that")
            reports["no control" if mode == "none" else "admission control"] = asyncio.run(run(app.address, visits, a.grace))
    print(table(reports))
    if a.json:
        found = {"capacity": fits, "seed": a.seed, "factor": a.factor, "runs": {name: asdict(r) for name, r in reports.items()}}
        a.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
