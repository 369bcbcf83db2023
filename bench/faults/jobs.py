"""Jobs beside live sessions while things break: `python -m bench.faults.jobs` queues jobs, plays sessions, and strikes.

On the cluster of `bench.faults.failures`, with a database and a folder for files. While there are jobs, live sessions play one after the
other, and every few seconds the next fault strikes. In the end every job must have one file, equal to what an undisturbed run makes, the
ledger must hold each of them once, and nothing else may be left in the store. The exit code is 1 if anything of that is not so, or if
the screen of a live session stood still.

    late    of live sessions: how long the screen stood still at worst; alone, before there were jobs, and beside jobs
    waits   of jobs: from the queue to the finished file
    spared  faults that never struck: the run was too short to show anything of them
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import secrets
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager, closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, make_url, select

from bench.faults.failures import FAULTS, nothing, play_round
from bench.kit.harness import FaultCluster
from bench.kit.nodes import LocalNodes, with_cluster_environment
from bench.kit.postgres import WITHOUT_POSTGRES, Postgres, server_programs
from bench.kit.tally import quantile
from bench.kit.viewers import Programme, Reference, Seen, judge, prompt, reference
from model_core.config import ModelConfig
from model_core.pipeline import SessionRequest, VideoPipeline
from model_core.tasks import cancel_and_wait
from model_core.types import FrameChunk
from service.checks import Catalogue, Limits, Validator
from service.clock import MonotonicClock
from service.database.engine import Database
from service.database.schema import LEDGER
from service.identity.principal import NOBODY
from service.jobs.desk.drafts import JobChecks
from service.jobs.desk.table_desk import TableDesk
from service.jobs.files.artifacts import ArtifactFiles, result_key
from service.jobs.files.folder import FolderArtifacts
from service.jobs.files.presentation import placement
from service.jobs.files.render import Rendering
from service.jobs.job import Job, JobQuery, JobStatus, NewJob, Presentation, Variant
from service.jobs.work import JobPolicy
from service.orders import Doorway, Mode, VideoRequest

_DOOR = "bench"
_LOCKED_S = 6.0
_SETTLE_S = 90.0  # for the sweep to remove what is left of jobs whose workers died
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it."""

    jobs: int
    completed: int
    differ: int
    missing: int
    ledger_rows: int
    ledger_frames: int
    expected_frames: int
    strays: int
    attempts: int
    wall_s: float
    wait_p50_s: float
    wait_max_s: float
    struck: dict[str, int]
    spared: tuple[str, ...]
    live_sessions: int
    live_lost: int
    live_duplicated: int
    live_differ: int
    late_alone_s: float
    late_beside_s: float
    errors: tuple[str, ...]

    @property
    def clean(self) -> bool:
        whole = self.completed == self.jobs == self.ledger_rows and self.ledger_frames == self.expected_frames
        wrong = self.differ + self.missing + self.strays + self.live_lost + self.live_duplicated + self.live_differ
        return whole and not wrong and not self.spared and self.live_sessions > 0


@asynccontextmanager
async def desk_of(url: str, folder: Path, config: ModelConfig) -> AsyncGenerator[tuple[TableDesk, Database, FolderArtifacts], None]:
    """The job desk of a front door, here: the table is all that they share."""
    database = await Database.open(url)
    artifacts = FolderArtifacts(folder, time.time)
    validator = Validator(Catalogue({config.name: config}, config.name), Limits())
    checks = JobChecks(validator, JobPolicy(), partial(secrets.randbits, 64))
    desk = TableDesk(database, ArtifactFiles(artifacts), checks, MonotonicClock(), time.time, lambda: secrets.token_hex(6))
    try:
        yield desk, database, artifacts
    finally:
        await desk.aclose()
        await database.close()


async def truths(pipeline: VideoPipeline, requests: Sequence[NewJob]) -> list[str]:
    """The hash of the file that each request must come to, made here without any fault."""
    found = []
    for new in requests:
        request, config = new.request, pipeline.config
        frames = round(request.seconds * config.fps)
        session = await pipeline.open(SessionRequest("truth", request.prompt, request.seed or 0, request.steps, frames))
        with tempfile.TemporaryDirectory() as folder:
            rendering = Rendering(Path(folder), config.fps, placement(new.presentation, config))
            async with aclosing(session.events()) as events:
                async for event in events:
                    if isinstance(event, FrameChunk):
                        await asyncio.to_thread(rendering.add, event.pixels(), event.first_frame)
            found.append((await asyncio.to_thread(rendering.finish)).sha256)
    return found


async def strike_database(url: str, server: Postgres | None) -> None:
    """Break every connection to PostgreSQL; hold SQLite's one lock for longer than most statements wait."""
    await asyncio.to_thread(partial(_hold_sqlite, str(make_url(url).database)) if server is None else server.break_connections)


def _hold_sqlite(file: str) -> None:
    connection = sqlite3.connect(file, timeout=30, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(_LOCKED_S)
        connection.execute("ROLLBACK")
    finally:
        connection.close()


async def everything(desk: TableDesk) -> list[Job]:
    found: list[Job] = []
    while True:
        after = found[-1].id if found else ""
        page = await desk.list(NOBODY, JobQuery(after=after, limit=_PAGE, ascending=True, door=_DOOR))
        found += page.jobs
        if not page.more:
            return found


async def play_on(cluster: FaultCluster, a: argparse.Namespace, seen: list[Seen], stop: asyncio.Event, chance: random.Random) -> None:
    """Live sessions, one round after the other, until the end of the round in which `stop` is set."""
    number = 0
    while not (stop.is_set() and seen):
        programmes = [Programme(10_000 + number + n, a.steps, a.live_chunks, a.lead) for n in range(a.sessions)]
        number += a.sessions
        viewers, _, _ = await play_round(cluster, programmes, nothing, chance)
        seen += viewers
        print(f"  live: late {[round(v.late_s, 2) for v in viewers]} {[v.error for v in viewers if v.error]}", file=sys.stderr, flush=True)


async def strike_on(
    cluster: FaultCluster, a: argparse.Namespace, url: str, server: Postgres | None, struck: Counter[str], chance: random.Random
) -> None:
    """The next fault every few seconds, until cancelled."""
    while True:
        for name in a.faults:
            await asyncio.sleep(a.every)
            try:
                await (strike_database(url, server) if name == "database" else FAULTS[name](cluster, chance))
            except Exception as error:  # noqa: BLE001 - nothing was there to be struck, or it is still coming back
                print(f"  {name}: not struck: {error!r}", file=sys.stderr, flush=True)
            else:
                struck[name] += 1
                print(f"  struck: {name}", file=sys.stderr, flush=True)
            if name in {"node", "cut"}:
                await cluster.until_whole()


async def run(cluster: FaultCluster, a: argparse.Namespace, url: str, server: Postgres | None, folder: Path) -> Result:
    config, chance = cluster.config, random.Random(a.seed)
    seconds = config.grid.first_frame(a.chunks) / config.fps
    shape = Presentation(a.width, a.height)
    kinds = [
        NewJob(
            door=_DOOR, doorway=Doorway(Mode.FILE), presentation=shape,
            request=VideoRequest(prompt=prompt(number), seconds=seconds, seed=number, steps=a.steps),
        )
        for number in range(a.distinct)
    ]  # fmt: skip
    struck: Counter[str] = Counter()
    async with reference(config) as truth, desk_of(url, folder, config) as (desk, database, artifacts):
        await cluster.until_whole()
        alone = [Programme(5_000 + n, a.steps, a.live_chunks, a.lead) for n in range(a.sessions)]
        before, _, _ = await play_round(cluster, alone, nothing, chance)
        expected = await truths(truth.pipeline, kinds)
        began = time.monotonic()
        made = {(await desk.submit(NOBODY, kinds[number % a.distinct])).id: number % a.distinct for number in range(a.jobs)}
        seen: list[Seen] = []
        stop = asyncio.Event()
        playing = asyncio.create_task(play_on(cluster, a, seen, stop, chance))
        striking = asyncio.create_task(strike_on(cluster, a, url, server, struck, chance))
        try:
            await until_over(desk, a)
            wall_s = time.monotonic() - began
            await cancel_and_wait(striking)
            stop.set()
            await playing
        finally:
            await cancel_and_wait(striking, playing)
        return await judged(a, config, made, expected, before, seen, struck, wall_s, truth, desk, database, artifacts)


async def until_over(desk: TableDesk, a: argparse.Namespace) -> None:
    """Wait for all jobs, and no longer than that may take."""
    deadline = time.monotonic() + a.within
    while (waiting := sum(not job.status.over for job in await everything(desk))) > 0:
        print(f"  {waiting} of {a.jobs} jobs to come", file=sys.stderr, flush=True)
        if time.monotonic() > deadline:
            print("  out of time", file=sys.stderr, flush=True)
            return
        await asyncio.sleep(5)


async def judged(
    a: argparse.Namespace, config: ModelConfig, made: dict[str, int], expected: list[str], before: list[Seen], seen: list[Seen],
    struck: Counter[str], wall_s: float, truth: Reference, desk: TableDesk, database: Database, artifacts: FolderArtifacts,
) -> Result:  # fmt: skip
    """What is in the table, in the ledger and in the store."""
    jobs = [job for job in await everything(desk) if job.id in made]
    completed = [job for job in jobs if job.status is JobStatus.COMPLETED]
    wanted = {result_key(job.id, job.sha256, variant) for job in completed for variant in Variant}
    deadline = time.monotonic() + _SETTLE_S
    stored = {file.key for file in await artifacts.listed("jobs/")}
    while stored - wanted and time.monotonic() < deadline:
        await asyncio.sleep(2)
        stored = {file.key for file in await artifacts.listed("jobs/")}
    rows = await database.run(partial(ledger_rows, ids=list(made)), write=False)
    total = config.grid.first_frame(a.live_chunks)
    verdict = await judge(seen, total, truth)
    waits = [job.ended_at - job.created_at for job in completed if job.ended_at is not None]
    return Result(
        jobs=len(made), completed=len(completed), differ=sum(job.sha256 != expected[made[job.id]] for job in completed),
        missing=len(wanted - stored), ledger_rows=len(rows), ledger_frames=sum(rows),
        expected_frames=len(made) * config.grid.first_frame(a.chunks), strays=len(stored - wanted),
        attempts=sum(job.attempts for job in jobs), wall_s=round(wall_s, 1), wait_p50_s=round(quantile(waits, 0.5), 1),
        wait_max_s=round(max(waits, default=0.0), 1), struck=dict(struck),
        spared=tuple(name for name in a.faults if not struck[name]), live_sessions=len(seen), live_lost=verdict.lost,
        live_duplicated=verdict.duplicated, live_differ=verdict.differ,
        late_alone_s=round(max((v.late_s for v in before), default=0.0), 3),
        late_beside_s=round(max((v.late_s for v in seen), default=0.0), 3),
        errors=tuple(sorted({v.error for v in seen if v.error} | {job.error.message for job in jobs if job.error})),
    )  # fmt: skip


def ledger_rows(connection: Connection, ids: list[str]) -> list[int]:
    """Frames of each row that these jobs have."""
    return [int(frames) for frames in connection.scalars(select(LEDGER.c.frames).where(LEDGER.c.source.in_(ids)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--distinct", type=int, default=6, help="different requests among them; each is made here once, too")
    parser.add_argument("--chunks", type=int, default=10, help="length of a job")
    parser.add_argument("--width", type=int, default=0, help="of the files; 0 for the model's")
    parser.add_argument("--height", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=2, help="jobs of each front door")
    parser.add_argument("--sessions", type=int, default=4, help="live ones")
    parser.add_argument("--live-chunks", type=int, default=20, help="length of a live session")
    parser.add_argument("--lead", type=float, default=1.0, help="how far live frames may run ahead of playback, in seconds")
    parser.add_argument("--steps", type=int, default=2, help="denoise steps a chunk")
    parser.add_argument("--fps", type=int, default=6, help="rate that sessions are played at: all of them must fit this machine")
    parser.add_argument("--faults", nargs="*", choices=[*FAULTS, "database"], default=["front_door", "denoiser", "database"])
    parser.add_argument("--every", type=float, default=10.0, help="seconds from one fault to the next")
    parser.add_argument("--within", type=float, default=3600.0, help="seconds that all jobs may take")
    parser.add_argument("--postgres", action="store_true", help="a PostgreSQL server of its own, in place of a SQLite file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-namespaces", action="store_true", help="stop a node's processes in place of cutting its network")
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    with_cluster_environment()
    with ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-jobs-"))
        server: Postgres | None = None
        if a.postgres:
            programs = server_programs()
            if programs is None:
                raise SystemExit(WITHOUT_POSTGRES)
            server = stack.enter_context(closing(Postgres(programs)))
        url, folder = f"sqlite:///{place}/headrace.db" if server is None else server.fresh(), Path(place) / "files"
        args = {
            "state": {"url": url}, "artifacts": {"folder": str(folder)},
            "jobs": {"at_once": a.at_once, "lease_seconds": 5.0, "checkpoint_seconds": 1.0, "max_lost": 20},
        }  # fmt: skip
        nodes = stack.enter_context(LocalNodes(namespaces=not a.no_namespaces))
        cluster = stack.enter_context(FaultCluster(nodes, a.fps, a.sessions, args))
        result = asyncio.run(run(cluster, a, url, server, folder))
    print(json.dumps(asdict(result), indent=1))
    if a.json:
        options = {name: value for name, value in vars(a).items() if name != "json"}
        a.json.write_text(json.dumps({"options": options, "result": asdict(result)}, indent=1) + "\n")
    if not result.clean:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
