"""The demo load under a real Prometheus: `python -m bench.operate.observe`, until Ctrl-C; `--check` proves that there is something to see.

    metrics    every metric of the catalogue has data; one that needs an event may have had none
    panels     every query of every dashboard gives a number
    trace      the slowest first frame's exemplar leads to its trace
    alert      a decoder made slow fires HeadraceChunksLate; what its runbook says finds the replica and ends the fault, and it goes out

For the check the rules' windows are a sixtieth as long (an hour is a minute), everything else in them is what is shipped.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import grpc.aio
import ray
from ray.serve._private.constants import SERVE_NAMESPACE

from bench.kit.prometheus import Prometheus, prometheus
from bench.kit.slowed import FILE_VARIABLE, slower
from deployments.cluster.local import ROOT, Overrides, RunningApp, start_local
from deployments.config.names import APP_NAME
from headrace.client import Busy, ClientError, HeadraceClient
from headrace.v1 import video_pb2 as pb
from headrace.v1 import video_pb2_grpc
from model_core.tasks import cancel_and_wait
from observability import waterfall
from observability.catalogue import CATALOGUE, TTFF, Process
from observability.dashboards import WINDOW, queries
from observability.rules import BURNS, OBJECTIVES, runbook, share_name

PROMPTS = ("a large yellow star moving right on a navy background", "a small green square rising on a cream background")
PAGES = {"Prometheus": "graph", "alerts": "alerts", "targets": "targets"}
ALERT = "HeadraceChunksLate"
SLOWED, TRACES = "slowed", "traces.jsonl"  # files
CHUNKS = next(objective for objective in OBJECTIVES if objective.alert == ALERT)
SCALE = 1 / 60
SLOW_BY_S = 1.0
FIRES_WITHIN_S = 180.0
_LEAD_S = 0.5
_CHECK_WINDOW = "30s"
_SETTLE_S = 5.0
# Late chunks that a busy machine may have without a fault; the alert's limit is 14.4 %.
_USUAL = 0.05
_PLAYING = 2  # chunks a second; a viewer in real time has three
_ASK_AGAIN_S = 20.0

Visit = Callable[[HeadraceClient, str, int], Awaitable[None]]


async def watch(client: HeadraceClient, _: str, seed: int) -> None:
    """A paced stream."""
    async for _event in client.stream(PROMPTS[0], seconds=4.0, seed=seed, codec=pb.CODEC_JPEG, max_lead_s=_LEAD_S):
        pass


async def glance(client: HeadraceClient, _: str, seed: int) -> None:
    """A paced stream that is on time on almost any machine: one step a chunk, and a second in hand."""
    async for _event in client.stream(PROMPTS[0], seconds=4.0, seed=seed, steps=1, codec=pb.CODEC_JPEG, max_lead_s=1.0):
        pass


async def steer(client: HeadraceClient, _: str, seed: int) -> None:
    """A live session that changes its prompt every other second of video, and pauses once."""
    async with client.live(PROMPTS[0], seconds=8.0, seed=seed, codec=pb.CODEC_RAW_RGB, max_lead_s=_LEAD_S) as session:
        changes = itertools.cycle(PROMPTS[::-1])
        async for event in session:
            if isinstance(event, pb.Frames) and event.chunk_index % 6 == 5:
                await session.set_prompt(next(changes))
            if isinstance(event, pb.Frames) and event.chunk_index == 8:
                await session.pause()
                await session.resume()


async def make(client: HeadraceClient, _: str, seed: int) -> None:
    """A job."""
    await client.generate(PROMPTS[1], seconds=1.0, seed=seed)


async def come_back(_: HeadraceClient, address: str, seed: int) -> None:
    """A stream whose connection breaks, and the rest of it on another."""
    token, seen = "", 0
    async with grpc.aio.insecure_channel(address) as channel:
        stub = video_pb2_grpc.VideoServiceStub(channel)
        spec = pb.VideoSpec(prompt=PROMPTS[1], seconds=4.0, seed=seed)
        call = stub.Stream(pb.StreamRequest(spec=spec, codec=pb.CODEC_RAW_RGB, max_lead_seconds=_LEAD_S))
        async for event in call:
            token = event.started.resume_token or token
            seen = event.frames.first_frame + event.frames.frame_count if event.HasField("frames") else seen
            if seen > 24:
                call.cancel()
                break
        await asyncio.sleep(0.2)
        async for _event in stub.Stream(pb.StreamRequest(resume=pb.SessionResume(token=token, next_frame=seen))):
            pass


VISITS: tuple[tuple[Visit, str], ...] = ((watch, ""), (watch, "somebody"), (steer, ""), (make, ""), (come_back, ""))


@asynccontextmanager
async def load(address: str, visits: Sequence[tuple[Visit, str]]) -> AsyncGenerator[None, None]:
    """Visitors of each kind, one after the other, for as long as the context lasts."""

    async def visitor(visit: Visit, tenant: str, number: int) -> None:
        async with HeadraceClient(address, tenant=tenant) as client:
            for seed in itertools.count(number * 1000):
                try:
                    await visit(client, address, seed)
                except Busy as error:
                    await asyncio.sleep(min(2.0, error.retry_after_s or 1.0))
                except (ClientError, grpc.aio.AioRpcError) as error:
                    print(f"{visit.__name__}: {error}", file=sys.stderr)
                    await asyncio.sleep(1.0)

    visitors = [asyncio.create_task(visitor(visit, tenant, n)) for n, (visit, tenant) in enumerate(visits)]
    try:
        yield
    finally:
        await cancel_and_wait(*visitors)


async def check(address: str, seen: Prometheus, folder: Path, seconds: float) -> int:
    """Print the tables. Returns how many things are not as they should be."""
    async with load(address, VISITS):
        await asyncio.sleep(seconds)
        wrong = await asyncio.to_thread(check_metrics, seen) + await asyncio.to_thread(check_panels, seen)
        wrong += await asyncio.to_thread(check_trace, seen, folder / TRACES, seconds)
    async with load(address, ((glance, ""),)):
        return wrong + await check_alert(seen, folder / SLOWED)


def check_metrics(seen: Prometheus) -> int:
    """One line for each metric."""
    wrong = 0
    print(f"{'metric':44} {'process':14} series")
    for metric in CATALOGUE:
        series = len(seen.query(f"{metric.series} > 0 or {metric.series}"))
        wrong += not (series or metric.eventful)
        print(f"{metric.full:44} {metric.process:14} {series or ('no event' if metric.eventful else 'MISSING')}")
    print(f"{len(CATALOGUE)} metrics, {wrong} missing\n")
    return wrong


def check_panels(seen: Prometheus) -> int:
    """One line for each query without a number; asked again for a while, because a window of five minutes is one of five seconds here."""
    asked = list(queries())
    empty, deadline = asked, time.monotonic() + _ASK_AGAIN_S
    while True:
        empty = [each for each in empty if not seen.has_data(each[2].replace(WINDOW, _CHECK_WINDOW))]
        wrong = sum(not panel.eventful for _, panel, _ in empty)
        if not wrong or time.monotonic() > deadline:
            break
        time.sleep(1.0)
    for title, panel, query in empty:
        print(f"{'no event' if panel.eventful else 'EMPTY':9} {title}, {panel.title}: {query}")
    print(f"{len(asked)} queries of dashboards, {wrong} empty\n")
    return wrong


def check_trace(seen: Prometheus, traces: Path, seconds: float) -> int:
    """From the histogram to the session: the parts of its first frame."""
    exemplars = seen.exemplars(f"{TTFF.full}_bucket", seconds)
    with traces.open(encoding="utf-8") as lines:
        found = {call.root.trace_id: waterfall.first_frame(call) for call in waterfall.read(lines)}
    slow = max((each for each in exemplars if found.get(each[1])), default=None)
    print(f"{len(exemplars)} exemplars of {TTFF.full}; the slowest whose session is over: {slow}")
    if slow is None or (first := found[slow[1]]) is None:
        return 1
    print(*waterfall.table(first), sep="\n", end="\n\n")
    return 0


async def check_alert(seen: Prometheus, slowed: Path) -> int:
    """Make the decoder slow, watch the alert come, do what its runbook says, and watch it go."""
    firing = f'ALERTS{{alertname="{ALERT}",alertstate="firing",window="1h"}}'
    # Late chunks of the load before must have left the long window, or they would count for the fault.
    late = f"{share_name(CHUNKS, BURNS[0].long_s)} > {_USUAL:g}"
    if await _until(lambda: not seen.query(late) and not seen.query(firing)) is None:
        print("chunks are late before anything was done: this machine is too slow for a single session")
        return 1
    with slower(slowed, SLOW_BY_S):
        fired_s = await _until(lambda: bool(seen.query(firing)))
        windows = f"page, windows 1 h and 5 m at {SCALE:.3g} of their length"
        print(f"decoder slower by {SLOW_BY_S:g} s a chunk: {ALERT} ({windows}) fired after {fired_s} s")
        if fired_s is None:
            return 1
        await asyncio.sleep(_SETTLE_S)
        replica = await asyncio.to_thread(slow_decoder, seen)
        if replica is None:
            return 1
        await asyncio.to_thread(take_out, replica)
        # Where no chunk is sent none is late, and the alert goes out: it is over when chunks come again, and on time.
        short = BURNS[0].short_s
        plays = f"{CHUNKS.total.format(w=f'{short * SCALE:g}s')} > {_PLAYING} and {share_name(CHUNKS, short)} <= {_USUAL:g}"
        healed_s = await _until(lambda: not seen.query(firing) and bool(seen.query(plays)))
        print(f"replica {replica} taken out, as the runbook says; another plays on time, and the alert is out, after {healed_s} s")
    return healed_s is None


def runbook_queries() -> list[str]:
    """As they stand in the alert's runbook: for stages, and for replicas."""
    text = (ROOT / runbook(ALERT)).read_text(encoding="utf-8")
    return [" ".join(query.split()) for query in re.findall(r"^ *```promql\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)]


def slow_decoder(seen: Prometheus) -> str | None:
    """The replica that the two queries of the runbook find; None if they blame another stage, or nobody."""
    stages, replicas = (query.replace("5m", _CHECK_WINDOW) for query in runbook_queries())
    served = {sample["metric"]["stage"]: float(sample["value"][1]) for sample in seen.query(stages)}
    print(f"{runbook(ALERT)}, service time by stage: {', '.join(f'{stage} {seconds:.3f} s' for stage, seconds in served.items())}")
    if not served or max(served, key=lambda stage: served[stage]) != "decoder":
        return None
    slow = {sample["metric"]["replica"]: float(sample["value"][1]) for sample in seen.query(replicas)}
    print(f"and by replica: {', '.join(f'{replica} {seconds:.3f} s' for replica, seconds in slow.items())}")
    return max(slow, key=lambda replica: slow[replica], default=None)


def take_out(replica: str) -> None:
    """As the runbook does it."""
    ray.kill(ray.get_actor(f"SERVE_REPLICA::{APP_NAME}#{Process.DECODER}#{replica}", namespace=SERVE_NAMESPACE))


async def _until(condition: Callable[[], bool]) -> float | None:
    """Seconds until it holds; None if it does not in time."""
    started = time.monotonic()
    while (passed_s := time.monotonic() - started) < FIRES_WITHIN_S:
        if await asyncio.to_thread(condition):
            return round(passed_s, 1)
        await asyncio.sleep(0.5)
    return None


async def show(address: str) -> None:
    async with load(address, VISITS):
        await asyncio.Event().wait()


@contextmanager
def observed(folder: Path, *, checking: bool) -> Iterator[tuple[RunningApp, Prometheus]]:
    """A cluster whose decoder can be slowed, and a Prometheus that watches it."""
    env = {"PYTHONPATH": str(ROOT), FILE_VARIABLE: str(folder / SLOWED)}
    tracing = {"exporter": "file", "file": str(folder / TRACES), "sample": 1.0}
    overrides = Overrides(grpc_port=0, metrics_port=0, args={"stages": "bench.kit.slowed", "tracing": tracing}, env=env)
    with start_local(None, overrides) as app:
        every_s, scale = (1.0, SCALE) if checking else (5.0, 1.0)
        with prometheus(app.metrics_address, folder, every_s, scale) as seen:
            yield app, seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="check, print tables, and end with 1 if something is missing")
    parser.add_argument("--seconds", type=float, default=60.0, help="of load before the check")
    a = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: nothing that was started stays behind
    with tempfile.TemporaryDirectory(prefix="hr-observe-") as name, suppress(KeyboardInterrupt):
        folder = Path(name)
        print("starting a local cluster and Prometheus", flush=True)
        with observed(folder, checking=a.check) as (app, seen):
            print(*(f"{name:<12}{seen.page(page)}" for name, page in PAGES.items()), sep="\n")
            print(f"metrics     http://{app.metrics_address}/metrics", f"server      {app.address}", sep="\n")
            print(f"dashboards  {ROOT / 'observability' / 'dashboards'}/*.json, for Grafana with this Prometheus")
            print(f"terminal    .venv/bin/headrace top --metrics {app.metrics_address}")
            print(f"traces      .venv/bin/headrace trace {folder / TRACES}", flush=True)
            if a.check:
                sys.exit(1 if asyncio.run(check(app.address, seen, folder, a.seconds)) else 0)
            print("Ctrl-C ends it", flush=True)
            asyncio.run(show(app.address))


if __name__ == "__main__":
    main()
