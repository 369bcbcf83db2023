"""What the HTTP door costs beside gRPC's: `python -m bench.costs.doors` (`make door-costs`).

    starts    time to the first fragment of a video, and to a whole file: gRPC and HTTP take turns in one run
    uploads   gaps between chunks of live sessions, with uploads of 25 MB going on and without: turns again
    pollers   processor time of the front door while many callers with a key ask once a second: for the models, for a job, for a video

The calls alternate, so what else the machine does falls on both. Uploads come from another process, which gives way to all others.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from ray import serve

from autoscaling.reports import FrontDoorReport
from bench.costs import polls
from bench.kit.tally import quantile
from deployments.cluster.local import ROOT, Overrides, start_local
from deployments.config.identity import IdentitySettings
from deployments.config.names import APP_NAME, FRONT_DOOR
from deployments.links.remote import reports
from headrace.client import HeadraceClient
from headrace.v1 import video_pb2 as pb
from model_core.presets import millrace_64
from service.database.engine import Database
from service.identity import table
from service.identity.keys import Keyring, Master

MODEL = millrace_64()
PROMPT = "a large yellow star moving right on a navy background"
ALLOWED_START_MS = 5.0
ALLOWED_GAP = 0.05
UPLOAD_BYTES = 25_000_000
_WARM_UP = 3
_ASK_WITHIN_S = 30.0
_JOBS = 50  # that are polled
_KEY = "HEADRACE_API_KEY"


async def grpc_first(client: HeadraceClient) -> float:
    """Seconds to the first fragment of a stream."""
    began = time.perf_counter()
    async for event in client.stream(PROMPT, seconds=MODEL.chunk_seconds, seed=7, codec=pb.CODEC_FMP4_H264):
        if isinstance(event, pb.Frames):
            return time.perf_counter() - began
    raise RuntimeError("the stream has no frames")


async def http_first(client: httpx.AsyncClient) -> float:
    """The same over HTTP."""
    began = time.perf_counter()
    body = {"prompt": PROMPT, "seconds": MODEL.chunk_seconds, "seed": 7}
    async with client.stream("POST", "/v1/stream", json=body) as answer:
        async for part in answer.aiter_raw():
            if b"moof" in part:
                return time.perf_counter() - began
    raise RuntimeError("the stream has no fragment")


async def grpc_file(client: HeadraceClient) -> float:
    """Seconds to a whole file."""
    began = time.perf_counter()
    await client.generate(PROMPT, seconds=1.0, seed=7)
    return time.perf_counter() - began


async def http_file(client: httpx.AsyncClient) -> float:
    """The same over OpenAI's API."""
    began = time.perf_counter()
    fields = {"prompt": PROMPT, "num_frames": str(MODEL.fps), "seed": "7"}
    answer = await client.post("/v1/videos/sync", files=[(name, (None, value)) for name, value in fields.items()])
    answer.raise_for_status()
    return time.perf_counter() - began


Call = Callable[[], Awaitable[float]]


async def turns(one: Call, other: Call, rounds: int) -> tuple[list[float], list[float]]:
    """Both, again and again, each first in every second round."""
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(rounds + _WARM_UP):
        pair = ((one, ours), (other, theirs))
        for call, times in pair if number % 2 else reversed(pair):
            took = await call()
            if number >= _WARM_UP:
                times.append(took)
    return ours, theirs


def compared(name: str, grpc_s: Sequence[float], http_s: Sequence[float]) -> dict[str, Any]:
    """Medians, and the median of the differences of each round, in milliseconds."""
    apart = [1000 * (b - a) for a, b in zip(grpc_s, http_s, strict=True)]
    return {
        "what": name, "rounds": len(apart), "grpc_ms": round(1000 * statistics.median(grpc_s), 2),
        "http_ms": round(1000 * statistics.median(http_s), 2), "apart_ms": round(statistics.median(apart), 2),
        "passed": statistics.median(apart) <= ALLOWED_START_MS,
    }  # fmt: skip


async def live_gaps(client: HeadraceClient, sessions: int, seconds: float) -> list[float]:
    """Seconds between neighbouring chunks of live sessions, all of them."""

    async def one(seed: int) -> list[float]:
        async with client.live(PROMPT, seconds=seconds, seed=seed, codec=pb.CODEC_FMP4_H264, max_lead_s=1.0) as session:
            at = [time.perf_counter() async for event in session if isinstance(event, pb.Frames)]
        return [after - before for before, after in itertools.pairwise(at[1:])]  # the first ones run ahead

    return [gap for gaps in await asyncio.gather(*(one(seed) for seed in range(sessions))) for gap in gaps]


def uploading(url: str, count: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "bench.costs.doors", "--upload-to", url, "--uploads", str(count)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


async def uploads(client: HeadraceClient, url: str, rounds: int, sessions: int, seconds: float, count: int) -> dict[str, Any]:
    """Gaps with uploads and without, in turns."""
    quiet: list[float] = []
    busy: list[float] = []
    for number in range(rounds):
        for with_uploads in (False, True) if number % 2 else (True, False):
            process = uploading(url, count) if with_uploads else None
            try:
                (busy if with_uploads else quiet).extend(await live_gaps(client, sessions, seconds))
            finally:
                if process is not None:
                    process.terminate()
                    await asyncio.to_thread(process.wait)
    report: dict[str, Any] = {"what": "gaps of live sessions beside uploads", "sessions": sessions, "uploads": count}
    for share in (0.5, 0.95, 0.99):
        without, with_them = quantile(quiet, share), quantile(busy, share)
        report[f"p{100 * share:g}_ms"] = [round(1000 * without, 1), round(1000 * with_them, 1)]
    report["passed"] = quantile(busy, 0.95) <= (1 + ALLOWED_GAP) * quantile(quiet, 0.95)
    return report


async def upload(url: str, count: int) -> None:
    """Uploads without end, so many at once, as forms and as JSON. The server reads all of each, and refuses it."""
    os.nice(19)
    data = b"\x89PNG\r\n\x1a\n" + os.urandom(UPLOAD_BYTES)
    text = json.dumps({"prompt": PROMPT, "image": "QUJD" * (UPLOAD_BYTES // 3)})

    async def one(number: int, client: httpx.AsyncClient) -> None:
        while True:
            with suppress(httpx.HTTPError):
                if number % 4:
                    await client.post("/v1/stream", data={"prompt": PROMPT}, files={"image": ("image.png", data, "image/png")})
                else:
                    await client.post("/v1/stream", content=text, headers={"content-type": "application/json"})

    limits, headers = httpx.Limits(max_connections=None), _bearer(os.environ.get(_KEY, ""))
    async with httpx.AsyncClient(base_url=url, timeout=600, trust_env=False, limits=limits, headers=headers) as client:
        await asyncio.gather(*(one(number, client) for number in range(count)))


async def polled(http_client: httpx.AsyncClient) -> dict[str, list[str]]:
    """What is polled: the models, and jobs, as our own clients and as OpenAI's see them. The jobs are over, so that none disturbs."""
    answers = [await http_client.post("/v1/jobs", json={"prompt": PROMPT, "seconds": 1}) for _ in range(_JOBS)]
    own = [answer.raise_for_status().json()["id"] for answer in answers]
    answers = [await http_client.post("/v1/videos", json={"prompt": PROMPT, "seconds": "1"}) for _ in range(_JOBS)]
    videos = [answer.raise_for_status().json()["id"] for answer in answers]
    for job in (*own, *(f"job_{video.removeprefix('video_')}" for video in videos)):
        (await http_client.post(f"/v1/jobs/{job}/cancel")).raise_for_status()
    return {
        "pollers of models": ["/v1/models"],
        "pollers of jobs": [f"/v1/jobs/{job}" for job in own],
        "pollers of videos": [f"/v1/videos/{video}" for video in videos],
    }


async def cpu_s() -> float:
    """Processor time of the front door."""
    (report,) = await reports(serve.get_deployment_handle(FRONT_DOOR, APP_NAME), FrontDoorReport, _ASK_WITHIN_S)
    if report.process is None:
        raise RuntimeError("the front door must report its process; it does not")
    return _cpu_s_of(report.process.pid)


def _cpu_s_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(address: str, url: str, key: str, a: argparse.Namespace) -> list[dict[str, Any]]:
    async with (
        HeadraceClient(address, key=key) as grpc_client,
        httpx.AsyncClient(base_url=url, timeout=60, trust_env=False, headers=_bearer(key)) as http_client,
    ):
        found: list[dict[str, Any]] = []
        if a.only_pollers:
            return await polls_of(http_client, url, key, a)
        pair = await turns(lambda: grpc_first(grpc_client), lambda: http_first(http_client), a.rounds)
        found.append(compared("first fragment", *pair))
        if (await http_client.options("/v1/videos/sync")).status_code == 204:
            pair = await turns(lambda: grpc_file(grpc_client), lambda: http_file(http_client), a.rounds)
            found.append(compared("whole file", *pair))
        found.append(await uploads(grpc_client, url, a.turns, a.sessions, a.seconds, a.uploads))
        return [*found, *(await polls_of(http_client, url, key, a))]


async def polls_of(http_client: httpx.AsyncClient, url: str, key: str, a: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each kind of poller."""
    if not a.pollers:
        return []
    kinds = await polled(http_client)
    return [await polls.measured(what, polls.Order(url, paths, key, a.pollers, a.seconds), cpu_s) for what, paths in kinds.items()]


def _bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


async def new_key(url: str, master: str) -> str:
    """A key in the database of the server."""
    database, ring = await Database.open(url), Keyring(Master(master))
    try:
        secret = ring.new()
        await database.run(lambda connection: table.create(connection, secret, time.time(), tenant="bench"))
    finally:
        await database.close()
    return secret.key


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--uploads", type=int, default=20)
    parser.add_argument("--pollers", type=int, default=1000)
    parser.add_argument("--only-pollers", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--upload-to", default="", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.upload_to:
        asyncio.run(upload(a.upload_to, a.uploads))
        return
    with tempfile.TemporaryDirectory(prefix="headrace-door-costs-") as folder:
        state, master = f"sqlite:///{folder}/headrace.db", secrets.token_hex(32)
        os.environ[IdentitySettings().master_variable] = master  # of the replicas too, whose cluster starts with this environment
        args = {"admission": {"mode": "none"}, "identity": {"keys": "required"}}
        with start_local(
            None, Overrides(grpc_port=0, metrics_port=0, args=args, state_url=state, artifacts_folder=f"{folder}/files")
        ) as app:
            key = os.environ[_KEY] = asyncio.run(new_key(state, master))
            found = asyncio.run(measure(app.address, app.http_url, key, a))
    for row in found:
        print(json.dumps(row))
    if a.json:
        a.json.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(0 if all(row["passed"] for row in found) else 1)


if __name__ == "__main__":
    main()
