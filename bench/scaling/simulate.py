"""Simulates policies over workloads: `python -m bench.scaling.simulate` tunes on some, reports on others, and says where ours loses.

    tuned     ours and Ray Serve's default, by the same coordinate search over the same workloads and seeds, from their defaults
    told      Ray Serve's default once more, tuned on other seeds of the very workload that is reported: what nobody knows beforehand
    beside    LightX2V's thresholds as they are described, and a static cluster for the peak, which is known in hindsight only
    equal     stages, admission, brown-out, hand-over on drain, routing, visitors and faults; so that it is the policy that differs

A search minimises node-hours among the settings that hold the objectives, and misses of the objectives where none does. Stage times are
assumed, not measured: figures compare policies with each other, and say nothing about a machine. Runs are spread over the cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from autoscaling.simulator import report
from autoscaling.simulator.outcome import Outcome, Timeline
from autoscaling.simulator.presets import setting
from autoscaling.simulator.report import Mean, mean, summary
from autoscaling.simulator.simulation import Setting, Simulation
from autoscaling.simulator.workload import workloads
from deployments.cluster.local import ROOT
from deployments.scaling.simulated import POLICIES, Tuned, policy

# Objectives, in percent of visitors and of chunks. Nobody may be killed besides.
TTFF, CHUNKS = 99.5, 99.9
TUNED_ON = ("diurnal", "step", "clumps", "rush")
REPORTED = ("poisson", "gamma", "mmpp", "flash", "pareto", "spot")
# Before it ends, nothing counts: policies that learn what is usual have had some minutes to.
WARM_S = 600.0
# Ends of sessions are seen so late; less than half the cost of the default.
TICK_S = 0.25
TUNING_SEEDS, FIRST_SEED = (1001, 1002), 2001
SEARCH: dict[str, dict[str, tuple[float, ...]]] = {
    "ray": {"floor": (1.0, 1.5, 2.0, 2.5), "target": (0.65, 0.8, 1.0), "down_s": (60.0, 180.0, 600.0)},
    "headrace": {"floor": (1.0, 1.5, 2.0, 2.2), "burst_z": (1.64, 2.33, 3.0), "down_window_s": (60.0, 180.0, 300.0)},
}
PASSES = 1
TOLD = "ray, told"


@dataclass(frozen=True, slots=True)
class Run:
    """One simulation."""

    policy: str
    workload: str
    seed: int
    tuned: Tuned


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of one, and the processor seconds that it took."""

    outcome: Outcome
    timeline: Timeline
    cpu_s: float


def simulate(x: Setting, sessions: float, run: Run) -> Ran:
    """In whatever process."""
    began = time.process_time()
    workload = workloads(sessions)[run.workload]
    simulation = Simulation(x, workload, policy(run.policy, x, workload, run.seed, run.tuned), run.seed)
    outcome = simulation.run()
    return Ran(outcome, simulation.timeline, time.process_time() - began)


class Study:
    """Runs, each made once. Those in `store`, of the same code and setting, need not be made again."""

    def __init__(self, x: Setting, sessions: float, pool: ProcessPoolExecutor, store: Path | None) -> None:
        self._simulate = partial(simulate, x, sessions)
        self._pool = pool
        self._store = store
        self._of = code_digest(repr((x, sessions)))
        self._ran: dict[Run, Ran] = {}
        if store is not None and store.exists():
            of, ran = pickle.loads(store.read_bytes())  # noqa: S301 - written by this program
            self._ran = ran if of == self._of else {}

    def all(self, runs: Iterable[Run]) -> list[Ran]:
        runs = list(runs)
        new = [run for run in dict.fromkeys(runs) if run not in self._ran]
        self._ran.update(zip(new, self._pool.map(self._simulate, new), strict=True))
        if new and self._store is not None:
            self._store.parent.mkdir(parents=True, exist_ok=True)
            self._store.write_bytes(pickle.dumps((self._of, self._ran)))
        return [self._ran[run] for run in runs]

    def cost(self) -> tuple[int, float]:
        """Runs and processor seconds."""
        return len(self._ran), sum(ran.cpu_s for ran in self._ran.values())


def code_digest(also: str) -> str:
    """Of all code that a run depends on, and of `also`."""
    files = sorted([*(ROOT / "autoscaling").rglob("*.py"), *(ROOT / "deployments/scaling").glob("simulated*.py")])
    return hashlib.sha256(b"".join(f.read_bytes() for f in files) + also.encode()).hexdigest()


def misses(o: Mapping[str, Mean]) -> float:
    """Points by which a policy misses the objectives on a workload; ten for each session killed."""
    return max(0.0, TTFF - o["ttff_share"].value) + max(0.0, CHUNKS - o["on_time_share"].value) + 10 * o["killed"].value


def score(study: Study, name: str, on: Sequence[str], tuned: Tuned) -> tuple[float, float]:
    """To be minimised: misses, workload by workload, then node-hours a run."""
    runs = [Run(name, w, seed, tuned) for w in on for seed in TUNING_SEEDS]
    ran = study.all(runs)
    by_workload = {w: [r.outcome for run, r in zip(runs, ran, strict=True) if run.workload == w] for w in on}
    hours = sum(r.outcome.node_hours for r in ran) / len(ran)
    return round(sum(misses(summary(outcomes)) for outcomes in by_workload.values()), 6), hours


def tune(study: Study, name: str, on: Sequence[str], tuned: Tuned) -> Tuned:
    """Coordinate search over `SEARCH[name]` from the defaults, until a pass changes nothing."""
    part = "ours" if name == "headrace" else name
    best, best_score = tuned, score(study, name, on, tuned)
    for _ in range(PASSES):
        before = best
        for key, values in SEARCH[name].items():
            candidates = [replace(best, **{part: replace(getattr(best, part), **{key: value})}) for value in values]
            study.all(Run(name, w, seed, c) for c in candidates for w in on for seed in TUNING_SEEDS)
            for candidate in candidates:
                if (found := score(study, name, on, candidate)) < best_score:
                    best, best_score = candidate, found
        if best == before:
            break
    where = ", ".join(on)
    print(
        f"{name} on {where}: {getattr(best, part)}; beyond the objectives {best_score[0]:.3f} points, {best_score[1]:.3f} node-hours a run"
    )
    return best


@dataclass(frozen=True, slots=True)
class Saving:
    """Node-hours that our policy saves against another one, seed by seed; `holds` says whether the other one holds the objectives."""

    percent: Mean
    holds: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """How our policy compares on one workload.

    Attributes:
        ours_holds: whether our policy holds the objectives.
        ttff_share, on_time_share: of our policy, in percent.
        best: the cheapest other policy that holds the objectives without knowing the workload beforehand; None if none does.
        saved: against `best`, each of Ray's, and the static cluster.
    """

    ours_holds: bool
    ttff_share: Mean
    on_time_share: Mean
    best: str | None
    saved: Mapping[str, Saving]

    def lines(self) -> list[str]:
        """The verdict in words."""
        lines = []
        if not self.ours_holds:
            lines.append(f"ours MISSES: TTFF {self.ttff_share} %, chunks {self.on_time_share} %")
        if self.best is None:
            lines.append("no other policy that was not told holds the objectives")
        for other, saving in self.saved.items():
            word, how = "fewer" if saving.percent.value >= 0 else "MORE", "" if saving.holds else ", which misses"
            lines.append(f"{abs(saving.percent.value):.1f} ± {saving.percent.half:.1f} % {word} node-hours than {other}{how}")
        return lines

    def to_json(self) -> dict[str, Any]:
        saved = {other: {"percent": s.percent.value, "half": s.percent.half, "holds": s.holds} for other, s in self.saved.items()}
        return {"ours_holds": self.ours_holds, "best": self.best, "saved": saved, "lines": self.lines()}


def verdict(rows: Mapping[str, Sequence[Outcome]]) -> Verdict:
    """Compare our policy with the others that ran in `rows`."""
    means = {p: summary(o) for p, o in rows.items()}
    holds = {p: misses(m) == 0 for p, m in means.items()}
    others = [p for p in rows if holds[p] and p not in {"headrace", "static", TOLD}]
    best = min(others, key=lambda p: means[p]["node_hours"].value, default=None)
    saved = {}
    for other in dict.fromkeys(p for p in (best, "ray", TOLD, "static") if p is not None and p in rows):
        share = mean([100 * (1 - a.node_hours / b.node_hours) for a, b in zip(rows["headrace"], rows[other], strict=True)])
        saved[other] = Saving(share, holds[other])
    ours = means["headrace"]
    return Verdict(holds["headrace"], ours["ttff_share"], ours["on_time_share"], best, saved)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=60, help="at once, on average")
    parser.add_argument("--seconds", type=float, default=1500.0, help="simulated, of each run")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--reported", nargs="+", choices=list(workloads(1)), default=REPORTED)
    parser.add_argument("--quick", action="store_true", help="two seeds, two workloads, no search: does it run?")
    parser.add_argument("--defaults", action="store_true", help="no search: the settings in the code, which an earlier one has found")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--told", action="store_true", help="also Ray's policy as tuned on each reported workload")
    parser.add_argument("--store", type=Path, help="file to remember runs in, to go on from there")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--html", type=Path)
    a = parser.parse_args()
    reported, seeds = (REPORTED[:2], 2) if a.quick else (a.reported, a.seeds)
    began, search = time.monotonic(), not (a.quick or a.defaults)
    with ProcessPoolExecutor(a.processes) as pool:
        study = Study(replace(setting(a.sessions, a.seconds, WARM_S), tick_s=TICK_S), a.sessions, pool, a.store)
        tuned = {name: tune(study, name, TUNED_ON, Tuned()) if search else Tuned() for name in SEARCH}
        found: dict[str, Any] = {"sessions": a.sessions, "seconds": a.seconds, "seeds": seeds, "searched": search, "workloads": {}}
        pages, texts = [], []
        for workload in reported:
            named: dict[str, tuple[str, Tuned]] = {name: (name, tuned.get(name, Tuned())) for name in POLICIES}
            if a.told:
                named[TOLD] = ("ray", tune(study, "ray", (workload,), tuned["ray"]))
            runs = {shown: [Run(n, workload, FIRST_SEED + k, t) for k in range(seeds)] for shown, (n, t) in named.items()}
            study.all(run for group in runs.values() for run in group)
            ran = {shown: study.all(group) for shown, group in runs.items()}
            rows = {shown: [r.outcome for r in group] for shown, group in ran.items()}
            text = f"{workload}\n{report.table(rows)}"
            print("\n" + text, flush=True)
            judged = verdict(rows)
            print("  " + "\n  ".join(judged.lines()))
            settings = {shown: asdict(t.ray if n == "ray" else t.ours) for shown, (n, t) in named.items() if n in SEARCH}
            parts = {shown: report.as_json(o) for shown, o in rows.items()}
            found["workloads"][workload] = {"settings": settings, **parts, "verdict": judged.to_json()}
            texts.append(text + "\n" + "\n".join(judged.lines()))
            pages.append(report.plots(f"{workload}, seed {FIRST_SEED}", {shown: group[0].timeline for shown, group in ran.items()}))
            write(a.json, json.dumps(found, indent=1) + "\n")
            write(a.html, report.page("Policies, simulated", pages, "\n\n".join(texts)))
        number, cpu_s = study.cost()
    print(f"\n{number} runs, {cpu_s:.0f} s of CPU, {time.monotonic() - began:.0f} s")


def write(path: Path | None, content: str) -> None:
    """Where one was named."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


if __name__ == "__main__":
    main()
