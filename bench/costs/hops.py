"""Measures the CPU time that each process of the server takes for a chunk: `python -m bench.costs.hops`.

CPU time hardly depends on what else the machine does.

    device   the busiest thread of each stage: the networks, and the codec
    rest     all other threads: event loop, gRPC, pickling, Ray's own
    idle     CPU while nobody is served, in percent of a core: health, statistics, control loops

The floor is the device time alone. To see where the rest goes: `py-spy record -r 100 -f raw -p PID`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.kit.load import offer, together
from bench.kit.systems import SYSTEMS, descendants, running
from bench.kit.tally import chunk_ms
from model_core.presets import millrace_64

CHUNK_S = millrace_64().chunk_seconds
GRACE_S = 120.0
DEVICE_THREADS = {"Denoiser": 1, "Decoder": 1, "FusedPipeline": 2}  # the text encoder's has nothing to do: the prompt is always the same

Usage = dict[tuple[str, int], float]  # CPU seconds so far, by process name and thread


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one process: milliseconds of CPU a chunk, and percent of a core without load."""

    process: str
    device_ms: float
    rest_ms: float
    idle_percent: float


def usage(root: int) -> Usage:
    """Every thread of `root` and below."""
    found: Usage = {}
    for pid in (root, *descendants(root)):
        with suppress(OSError):
            name = _name(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
            for task in Path(f"/proc/{pid}/task").iterdir():
                fields = (task / "stat").read_text().rpartition(")")[2].split()
                found[name, int(task.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def _name(command: str) -> str:
    """Replicas by their deployment; everything else that Ray runs together."""
    if "ServeReplica" in command:
        return command.strip().rpartition(":")[2]
    return "Serve's controller" if "ServeController" in command else "the rest of Ray"


def costs(idle: tuple[Usage, Usage], idle_s: float, busy: tuple[Usage, Usage], chunks: int) -> list[Cost]:
    """From two readings each without load and with it. Threads that came between count from zero."""
    rows = []
    for name in sorted({name for name, _ in busy[1]}):
        quiet = sum(value - idle[0].get(key, 0.0) for key, value in idle[1].items() if key[0] == name)
        spent = sorted((value - busy[0].get(key, 0.0) for key, value in busy[1].items() if key[0] == name), reverse=True)
        device = sum(spent[: DEVICE_THREADS.get(name, 0)])
        rows.append(Cost(name, 1000 * device / chunks, 1000 * (sum(spent) - device) / chunks, 100 * quiet / idle_s))
    return rows


async def measure(name: str, sessions: int, chunks: int, idle_s: float) -> None:
    async with running(SYSTEMS[name], 1, 0.0) as server:
        for _ in range(60):
            if (await offer(together(2, CHUNK_S, "job"), server.play, GRACE_S))[0].result == "completed":
                break
            await asyncio.sleep(0.5)
        quiet = usage(server.pid)
        await asyncio.sleep(idle_s)
        before = usage(server.pid)
        heard = await offer(together(sessions, chunks * CHUNK_S, "job"), server.play, GRACE_S)
        made = sum(len(one.chunks) for one in heard)
        rows = costs((quiet, before), idle_s, (before, usage(server.pid)), max(1, made))
    print(f"{name}, {sessions} jobs, {made} chunks, {chunk_ms(heard):.1f} ms each; CPU ms a chunk:")
    print(f"  {'process':22}{'device':>8}{'rest':>8}{'idle, % of a core':>20}")
    for row in rows:
        print(f"  {row.process:22}{row.device_ms:8.2f}{row.rest_ms:8.2f}{row.idle_percent:20.1f}")
    device, rest = sum(row.device_ms for row in rows), sum(row.rest_ms for row in rows)
    print(f"  {'all':22}{device:8.2f}{rest:8.2f}{sum(row.idle_percent for row in rows):20.1f}")
    print(f"  not compute: {100 * rest / max(1e-9, device + rest):.1f} % of the CPU time", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", choices=["staged", "fused"], default=["staged", "fused"])
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--chunks", type=int, default=40, help="of each session")
    parser.add_argument("--idle", type=float, default=10.0, help="seconds without load")
    a = parser.parse_args()
    for name in a.systems:
        for sessions in a.sessions:
            asyncio.run(measure(name, sessions, a.chunks, a.idle))


if __name__ == "__main__":
    main()
