"""Many viewers of one session on one front door: `python -m bench.costs.watchers` (`make watchers`).

    reading   viewers of a session that plays, over gRPC and over HTTP: who is late, what is left out, and what a viewer costs
    paused    viewers who have joined a session that is paused: open streams on which nothing comes. Then it goes on

The viewers are in a process of their own, which shares the cores with the server, so it reads no more of what comes than it must. What they
saw counts from when all of them had joined: to start so many takes both cores for a while, which the session has to share. What a viewer
costs is the processor time of the front door's process among them, less what it takes for the session alone, over the same time. A chunk is
late for a viewer when it comes after its first frame is due, by the moment at which the viewer's first chunk came and `SLACK_S`. That
counts what made the session late, too. How long after the session's own viewer the others have a chunk is what watching adds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.costs.streams import front_door
from bench.kit.load import PROMPT
from bench.kit.readers import channel, over_grpc, over_http
from bench.kit.tally import quantile
from deployments.cluster.local import Overrides, RunningApp, start_local
from headrace.client import HeadraceClient, LiveSession
from headrace.v1 import video_pb2 as pb
from model_core.presets import millrace_64
from model_core.tasks import cancel_and_wait

MODEL = millrace_64()
LEAD_S = 1.0
# A viewer begins with a chunk that may already be as old as a chunk is long.
SLACK_S = MODEL.chunk_seconds
AT_ONCE = 32
_HERTZ = os.sysconf("SC_CLK_TCK")
_GRACE_S = 120.0
_SETTLE_S = 3.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What the viewers of one process saw.

    `worst_s`: by how much the latest chunk missed its moment, less the slack. `late_moments`: different chunks that came late to anybody;
    one that all missed was late before it was sent. `share`: of a core, that the process took. `behind_ms`: median, 99th percentile and
    longest time for which the session's own viewer had a chunk before another one did.
    """

    joined: int
    chunks: int
    late: int
    skipped_frames: int
    worst_s: float
    errors: dict[str, int]
    late_moments: int = 0
    share: float = 0.0
    behind_ms: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def plus(self, other: Seen) -> Seen:
        return Seen(
            self.joined + other.joined, self.chunks + other.chunks, self.late + other.late, self.skipped_frames + other.skipped_frames,
            max(self.worst_s, other.worst_s), dict(Counter(self.errors) + Counter(other.errors)),
            max(self.late_moments, other.late_moments), self.share + other.share,
            (
                max(self.behind_ms[0], other.behind_ms[0]), max(self.behind_ms[1], other.behind_ms[1]),
                max(self.behind_ms[2], other.behind_ms[2]),
            ),
        )  # fmt: skip


class View:
    """One viewer: when each chunk came, by when it was due."""

    def __init__(self) -> None:
        self.chunks = self.late = self.skipped = 0
        self.late_frames: set[int] = set()
        self.arrivals: dict[int, float] = {}
        self.worst_s = -SLACK_S
        self._origin: float | None = None

    def note(self, event: str, number: int) -> None:
        """See `bench.kit.readers.Note`."""
        if event == "frames":
            self.chunk(number)
        elif event in {"skipped", "resumed"}:
            self.went_on(number)

    def begin(self) -> None:
        """Nothing of what came before counts."""
        self.chunks = self.late = self.skipped = 0
        self.late_frames.clear()
        self.arrivals.clear()
        self.worst_s = -SLACK_S
        self._origin = None

    def chunk(self, first_frame: int) -> None:
        now = time.monotonic()
        if self._origin is None:
            self._origin = now - first_frame / MODEL.fps
        late_s = now - self._origin - first_frame / MODEL.fps - SLACK_S
        self.chunks += 1
        self.arrivals[first_frame] = now
        if late_s > 0:
            self.late += 1
            self.late_frames.add(first_frame)
        self.worst_s = max(self.worst_s, late_s)

    def went_on(self, skipped: int = 0) -> None:
        self.skipped += skipped
        self._origin = None


async def crowd(a: argparse.Namespace) -> Seen:
    """The viewers of this process, for `a.seconds` from when all have joined."""
    views = [View() for _ in range(a.viewers)]
    errors: Counter[str] = Counter()
    turnstile, joined = asyncio.Semaphore(AT_ONCE), [asyncio.Event() for _ in views]
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(channel(a.address)) for _ in range(a.connections)]

        async def view(number: int) -> None:
            def note(event: str, value: int) -> None:
                views[number].note(event, value)
                joined[number].set()

            try:
                if a.wire == "grpc":
                    await over_grpc(channels[number % len(channels)], a.token, note)
                else:
                    await over_http(a.url, a.token, note)
            except Exception as error:  # noqa: BLE001 - whatever ended it is what is to be found
                errors[f"{type(error).__name__}: {error}"[:120]] += 1
            finally:
                joined[number].set()

        async def enter(number: int) -> asyncio.Task[None]:
            async with turnstile:
                task = asyncio.create_task(view(number))
                await joined[number].wait()
                return task

        tasks = await asyncio.gather(*(enter(number) for number in range(a.viewers)))
        print("joined", flush=True)
        await asyncio.to_thread(sys.stdin.readline)  # until all have
        began, took_s = time.monotonic(), time.process_time()
        for each in views:
            each.begin()
        own = {int(frame): at for frame, at in json.loads(await asyncio.to_thread(sys.stdin.readline)).items()}  # when it is over
        took = (time.process_time() - took_s) / (time.monotonic() - began)
        there = sum(not task.done() for task in tasks)
        await cancel_and_wait(*tasks)
    return Seen(
        there, sum(v.chunks for v in views), sum(v.late for v in views), sum(v.skipped for v in views),
        max(v.worst_s for v in views), dict(errors), len(set[int]().union(*(v.late_frames for v in views))), round(took, 3),
        behind([1000 * (at - own[frame]) for v in views for frame, at in v.arrivals.items() if frame in own]),
    )  # fmt: skip


def behind(values_ms: Sequence[float]) -> tuple[float, float, float]:
    """See `Seen.behind_ms`."""
    if not values_ms:
        return 0.0, 0.0, 0.0
    return round(quantile(values_ms, 0.5), 1), round(quantile(values_ms, 0.99), 1), round(max(values_ms), 1)


@asynccontextmanager
async def crowds(
    app: RunningApp, wire: str, viewers: int, token: str, own: View, a: argparse.Namespace
) -> AsyncGenerator[list[Seen], None]:
    """Viewers in processes of their own, beside the session's `own`; what they saw is in the list once the context is left."""
    shares = [viewers // a.processes + (n < viewers % a.processes) for n in range(a.processes)]
    running = []
    for share in shares:
        command = ("--crowd", "--wire", wire, "--viewers", str(share), "--token", token, "--address", app.address, "--url", app.http_url)
        running.append(
            await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bench.costs.watchers", *command, "--connections", str(max(1, share // 20)),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            )
        )  # fmt: skip
    seen: list[Seen] = []
    async with asyncio.timeout(_GRACE_S):
        for process in running:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            await process.stdout.readline()
    await asyncio.sleep(_SETTLE_S)
    for process in running:
        assert process.stdin is not None  # noqa: S101 - as above
        process.stdin.write(b"\n")
    yield seen
    for process in running:
        out, _ = await process.communicate(json.dumps(own.arrivals).encode() + b"\n")
        seen.append(Seen(**json.loads(out)))


def processor_s(pid: int) -> float:
    """Seconds of processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _HERTZ


@asynccontextmanager
async def session(app: RunningApp, codec: pb.Codec) -> AsyncGenerator[tuple[LiveSession, str, View, asyncio.Event], None]:
    """A session that plays, with its own viewer in this process, and its token to watch."""
    async with HeadraceClient(app.address) as client, client.live(PROMPT, seed=1, codec=codec, max_lead_s=LEAD_S) as live:
        own, token, paused = View(), asyncio.get_running_loop().create_future(), asyncio.Event()

        async def read() -> None:
            async for event in live:
                match event:
                    case pb.Started(watch_token=watch_token):
                        token.set_result(watch_token)
                    case pb.Frames(first_frame=first):
                        own.chunk(first)
                    case pb.Paused():
                        paused.set()
                        own.went_on()

        reading = asyncio.create_task(read())
        try:
            yield live, await token, own, paused
        finally:
            await cancel_and_wait(reading)


@dataclass(frozen=True, slots=True)
class Found:
    """`share_of_a_core`: of the front door, for each viewer. `kib_a_viewer`: the same of its memory."""

    kind: str
    wire: str
    viewers: int
    seen: Seen
    own_late: int
    alone_share: float
    among_share: float
    share_of_a_core: float
    kib_a_viewer: float
    opening_s: float
    load_average: float


async def reading(app: RunningApp, wire: str, viewers: int, a: argparse.Namespace) -> Found:
    async with session(app, pb.CODEC_FMP4_H264) as (_, token, own, _paused):
        await asyncio.sleep(3.0)
        before = await front_door()
        alone = await share(before.pid, a.seconds)
        began = time.monotonic()
        async with crowds(app, wire, viewers, token, own, a) as seen:
            opening_s = time.monotonic() - began - _SETTLE_S
            own.begin()
            among = await share(before.pid, a.seconds)
            after = await front_door()
    return found("reading", wire, viewers, seen, own, alone, among, opening_s, (before.resident_bytes, after.resident_bytes))


async def paused(app: RunningApp, wire: str, viewers: int, a: argparse.Namespace) -> Found:
    """All join while the session is paused. Then it goes on for `a.seconds`, and stays on time for its own viewer."""
    async with session(app, pb.CODEC_FMP4_H264) as (live, token, own, stopped):
        await asyncio.sleep(2.0)
        before = await front_door()
        await live.pause()
        await stopped.wait()
        alone = await share(before.pid, a.seconds)
        began = time.monotonic()
        async with crowds(app, wire, viewers, token, own, a) as seen:
            opening_s = time.monotonic() - began - _SETTLE_S
            own.begin()
            after = await front_door()
            idle = await share(before.pid, a.seconds)
            await live.resume()
            await asyncio.sleep(a.seconds)
    return found("paused", wire, viewers, seen, own, alone, idle, opening_s, (before.resident_bytes, after.resident_bytes))


def found(
    kind: str,
    wire: str,
    viewers: int,
    seen: Sequence[Seen],
    own: View,
    alone: float,
    among: float,
    opening_s: float,
    memory: tuple[int, int],
) -> Found:
    total = seen[0]
    for each in seen[1:]:
        total = total.plus(each)
    return Found(
        kind=kind, wire=wire, viewers=viewers, seen=total, own_late=own.late, alone_share=round(alone, 4), among_share=round(among, 4),
        share_of_a_core=round((among - alone) / viewers, 6), kib_a_viewer=round((memory[1] - memory[0]) / 1024 / viewers, 1),
        opening_s=round(opening_s, 1), load_average=round(os.getloadavg()[0], 1),
    )  # fmt: skip


async def share(pid: int, seconds: float) -> float:
    """Share of a core that a process takes, over `seconds` from now."""
    began, at = time.monotonic(), processor_s(pid)
    await asyncio.sleep(seconds)
    return (processor_s(pid) - at) / (time.monotonic() - began)


def text(found: Found) -> str:
    """Two lines."""
    seen, all_ = found.seen, 100 * found.among_share
    return (
        f"{found.kind}, {found.wire}: {seen.joined} of {found.viewers} viewers stayed, joined in {found.opening_s:g} s; "
        f"{seen.chunks} chunks, {seen.late} late ({seen.late_moments} of the session's), {seen.skipped_frames} frames left out, the latest "
        f"{1000 * seen.worst_s:+.0f} ms; after the session's own viewer {seen.behind_ms[0]:g} ms (p50), {seen.behind_ms[1]:g} (p99), "
        f"{seen.behind_ms[2]:g} at most; "
        f"errors {seen.errors or 'none'}\n"
        f"  front door: {100 * found.share_of_a_core:.3f} % of a core a viewer ({100 * found.alone_share:.1f} % alone, {all_:.1f} % among "
        f"them), {found.kib_a_viewer:g} KiB a viewer; {found.own_late} chunks late for the session's own viewer; readers "
        f"{100 * seen.share:.0f} % of a core; load {found.load_average:g}"
    )


def failed(found: Found) -> bool:
    """Whether a viewer was lost, a chunk late, or a viewer cost more than half a percent of a core."""
    seen = found.seen
    lost = seen.joined < found.viewers or bool(seen.errors)
    return lost or (found.kind == "reading" and (seen.late > 0 or found.own_late > 0 or found.share_of_a_core > 0.005))


async def every(app: RunningApp, a: argparse.Namespace) -> list[Found]:
    """Each kind, and a line about it."""
    founds = []
    for of, wire, viewers in ((reading, "grpc", a.viewers), (reading, "sse", a.viewers), (paused, "grpc", a.paused)):
        founds.append(await of(app, wire, viewers, a))
        print(text(founds[-1]), flush=True)
    return founds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, default=200, help="who read")
    parser.add_argument("--paused", type=int, default=2000, help="who have joined a session that is paused")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--processes", type=int, default=1, help="that the viewers are spread over")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--crowd", action="store_true", help=argparse.SUPPRESS)
    for inner, default in (("wire", "grpc"), ("token", ""), ("address", ""), ("url", "")):
        parser.add_argument(f"--{inner}", default=default, help=argparse.SUPPRESS)
    parser.add_argument("--connections", type=int, default=1, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.crowd:
        print(json.dumps(asdict(asyncio.run(crowd(a)))))
        return
    args: dict[str, Any] = {
        "admission": {"mode": "none"},
        "front_door": {"watch": {"max_session_watchers": 4000}, "http": {"max_connections": 4096}},
    }
    with start_local(None, Overrides(grpc_port=0, metrics_port=0, http_port=0, args=args)) as app:
        founds = asyncio.run(every(app, a))
    if a.json:
        a.json.write_text(json.dumps([asdict(found) for found in founds], indent=1) + "\n")
    if any(map(failed, founds)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
