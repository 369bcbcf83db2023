"""A guard against slow regressions: what serving costs, as a ratio to the bare pipeline, compared with `bench/baseline.json`.

`python -m bench.costs.quick` (`make bench-quick`) alternates between the pipeline here and a server, many short rounds, and forms a
ratio in each round: what else the machine does slows both, the pipeline more, whose fewer threads are given less time. It fails only on a
clear loss: when even the better rounds, by their lower quartile, are beyond the baseline and its tolerance. `--update` writes a new
baseline: on a quiet machine, or it would be too strict or too lax, with the reason in the commit.

    alone    milliseconds a chunk, one job
    crowd    the same, four jobs at once
    first    time to first frame
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.kit.load import Play, offer, together
from bench.kit.systems import SYSTEMS, running
from bench.kit.tally import chunk_ms, quantile
from deployments.cluster.local import ROOT
from model_core.presets import millrace_64

BASELINE = ROOT / "bench" / "baseline.json"
GUARDED = ("staged", "fused")
CHUNK_S = millrace_64().chunk_seconds
GRACE_S = 60.0
TOLERANCE = 0.25

Ratios = dict[str, list[float]]  # by system and part, one a round


async def measure(rounds: int) -> Ratios:
    """Every guarded system beside the floor."""
    ratios: Ratios = {}
    async with running(SYSTEMS["floor"], 1, 0.0) as floor:
        for name in GUARDED:
            async with running(SYSTEMS[name], 1, 0.0) as server:
                await _until_served(server.play)
                await _parts(floor.play)
                for _ in range(rounds):
                    bare, served = await _parts(floor.play), await _parts(server.play)
                    for part, value in served.items():
                        ratios.setdefault(f"{name}.{part}", []).append(value / bare[part])
            print(name, {key: round(statistics.median(r), 3) for key, r in ratios.items() if key.startswith(name)}, file=sys.stderr)
    return ratios


async def _parts(play: Play) -> dict[str, float]:
    first = [heard.ttff_s or GRACE_S for _ in range(3) for heard in await offer(together(1, CHUNK_S, "job"), play, GRACE_S)]
    alone = await offer(together(1, 12 * CHUNK_S, "job"), play, GRACE_S)
    crowd = await offer(together(4, 5 * CHUNK_S, "job"), play, GRACE_S)
    return {"alone": chunk_ms(alone), "crowd": chunk_ms(crowd), "first": statistics.median(first)}


async def _until_served(play: Play) -> None:
    """A server may listen before it serves."""
    for _ in range(120):
        if (await offer(together(1, CHUNK_S, "job"), play, GRACE_S))[0].result == "completed":
            return
        await asyncio.sleep(0.5)
    raise RuntimeError("the server listens and does not serve")


def losses(ratios: Mapping[str, Sequence[float]], baseline: Mapping[str, float], tolerance: float = TOLERANCE) -> list[str]:
    """A sentence for each clear loss; also for what the baseline has and was not measured."""
    found = [f"{name}: the baseline has it, and it was not measured" for name in baseline if name not in ratios]
    for name, values in ratios.items():
        limit = baseline.get(name, float("inf")) * (1 + tolerance)
        if (better := quantile(values, 0.25)) > limit:
            found.append(f"{name}: {better:.3f} of the bare pipeline in the better rounds; the limit is {limit:.3f}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--update", action="store_true", help="write the baseline")
    parser.add_argument("--baseline", type=Path, default=BASELINE)
    a = parser.parse_args()
    if not (a.update or a.baseline.is_file()):
        sys.exit(f"there is no baseline at {a.baseline}; write one with --update, on a quiet machine")
    before = os.getloadavg()[0]
    ratios = asyncio.run(measure(a.rounds))
    medians = {name: round(statistics.median(values), 3) for name, values in ratios.items()}
    print(f"{'':16}{'median':>8}{'lowest':>8}{'highest':>9}")
    for name, values in ratios.items():
        print(f"{name:16}{medians[name]:8.3f}{min(values):8.3f}{max(values):9.3f}")
    print(f"load average {before:.1f} before, {os.getloadavg()[0]:.1f} after")
    if a.update:
        a.baseline.write_text(json.dumps(medians, indent=1) + "\n")
        return
    if lost := losses(ratios, json.loads(a.baseline.read_text())):
        sys.exit("slower than the baseline:\n  " + "\n  ".join(lost))
    print("not slower than the baseline")


if __name__ == "__main__":
    main()
