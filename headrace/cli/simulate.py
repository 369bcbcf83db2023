"""`headrace simulate`: what a policy would do for visitors, and what that would cost, without a cluster."""

from __future__ import annotations

import gc
import json
import resource
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli import console
from headrace.cli.console import bad_input, note

MAX_SESSIONS, MAX_HOURS, MAX_SEEDS = 100_000, 168.0, 1000
# From so many sessions on, signals and decisions are taken less often, as they would be on a cluster of that size.
_LARGE = 2000


def simulate(
    sessions: Annotated[int, typer.Option(help="Sessions at once, on average.")] = 100,
    hours: Annotated[float, typer.Option(help="Simulated time.")] = 0.5,
    workload: Annotated[str, typer.Option(help="poisson, diurnal, step, gamma, mmpp, flash, pareto or spot.")] = "poisson",
    trace: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="Arrivals with lengths, in place of a workload.")] = None,
    policy: Annotated[str, typer.Option(help="headrace, ray, lightx2v, static or all.")] = "headrace",
    seeds: Annotated[int, typer.Option(help="Runs, with seeds from 1 on.")] = 1,
    mean: Annotated[float, typer.Option(help="Mean length of a session in seconds.")] = 180.0,
    profile: Annotated[Path | None, typer.Option(metavar="FILE.json", help="A measured step profile; else an assumed one.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report here: .json or .html.")] = None,
) -> None:
    """Simulate the serving layer under a workload. Times of the stages are assumed unless a measured profile is given."""
    for name, value, low, high in (
        ("--sessions", sessions, 1, MAX_SESSIONS), ("--hours", hours, 0.02, MAX_HOURS), ("--seeds", seeds, 1, MAX_SEEDS),
        ("--mean", mean, 5, 36_000),
    ):  # fmt: skip
        console.in_range(name, value, low, high)
    for option, file in (("--trace", trace), ("--profile", profile)):
        if file is not None:
            console.existing_file(option, file)
    if out is not None and out.suffix not in {".json", ".html"}:
        raise bad_input("--out", f"must end in .json or .html; got {out}")
    console.writable_file("--out", out)
    console.guarded(lambda: _run(sessions, hours, workload, trace, policy, seeds, mean, profile, out))


def _run(
    sessions: int, hours: float, workload: str, trace: Path | None, policy: str, seeds: int, mean: float, profile: Path | None,
    out: Path | None,
) -> None:  # fmt: skip
    from autoscaling.capacity.profile import CapacityProfile
    from autoscaling.simulator import report
    from autoscaling.simulator.presets import setting
    from autoscaling.simulator.simulation import Simulation
    from autoscaling.simulator.workload import from_csv, workloads
    from deployments.scaling.simulated import POLICIES, Tuned
    from deployments.scaling.simulated import policy as make

    known = workloads(sessions, mean)
    if trace is None and workload not in known:
        raise bad_input("--workload", f"must be one of {', '.join(known)}; got {workload}")
    if policy != "all" and policy not in POLICIES:
        raise bad_input("--policy", f"must be one of {', '.join(POLICIES)}, all; got {policy}")
    try:
        visitors = known[workload] if trace is None else from_csv(trace)
        steps = None if profile is None else CapacityProfile(**{k: tuple(v) for k, v in json.loads(profile.read_text()).items()})
    except (OSError, ValueError, TypeError) as error:
        raise bad_input("--trace" if trace else "--profile", str(error)) from None
    x = setting(sessions, 3600 * hours, min(300.0, 900 * hours), steps)
    if sessions > _LARGE:
        x = replace(x, tick_s=0.5, sample_s=5.0)

    outcomes, timelines, events = {}, {}, 0
    # What is imported stays, and nearly all that a run makes goes without: garbage is looked for seldom, and not among that.
    gc.freeze()
    gc.set_threshold(100_000)
    began = time.process_time()
    for name in POLICIES if policy == "all" else (policy,):
        policies = [make(name, x, visitors, seed, Tuned()) for seed in range(1, seeds + 1)]
        for decider in policies:
            decider.interval_s = max(decider.interval_s, x.sample_s)  # it would see nothing new in between
        runs = [Simulation(x, visitors, decider, seed) for seed, decider in enumerate(policies, 1)]
        outcomes[name] = [run.run() for run in runs]
        timelines[name] = runs[0].timeline
        events += sum(o.events for o in outcomes[name])
    text = report.table(outcomes)
    print(text)
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cpu_s = time.process_time() - began
    peak = max(o.peak_sessions for runs in outcomes.values() for o in runs)
    note(f"{visitors.name}: {events:,} events, at most {peak:,} sessions at once, {cpu_s:.1f} s of CPU, {rss_mb:.0f} MiB")
    if out is not None:
        title = f"headrace simulate: {visitors.name}, about {sessions} sessions, {hours:g} h"
        document = {"title": title, "policies": {name: report.as_json(runs) for name, runs in outcomes.items()}}
        html = report.page(title, [report.plots("over time, seed 1", timelines)], text)
        out.write_text(html if out.suffix == ".html" else json.dumps(document, indent=1) + "\n")
