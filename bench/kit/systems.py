"""The servers that are compared: how each is started, spoken to and stopped. Every one is a process tree of its own.

Peers run in virtual environments that are made on demand. What is pinned in `bench/peers/requirements-*.txt` is theirs and comes first;
torch and the model come from the project's own environment, so that every system computes with the very same libraries and weights.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from bench.kit.load import Play
from bench.kit.wires import GrpcWire, HttpWire, PipelineWire
from deployments.cluster.local import FUSED_CONFIG, ROOT, STAGED_CONFIG, Overrides, free_port, load
from headrace.client import HeadraceClient
from model_core.config import EngineConfig
from model_core.local import load_pipeline

PEERS = ROOT / "bench" / "peers"
VENVS = ROOT / "build" / "peers"
READY_WITHIN_S = 120.0
STOP_WITHIN_S = 20.0
SLOTS = 64  # sessions that every part has room for, so that compute alone limits
_ASK_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a system listens, how many replicas it has, and the folder for its files."""

    port: int
    metrics_port: int
    replicas: int
    folder: Path


@dataclass(frozen=True, slots=True)
class System:
    """One competitor.

    Attributes:
        name, title: short, and for tables.
        wire: `pipeline`, `grpc`, `http` or `sse`.
        path: of the HTTP endpoint.
        command: its start.
        env: on top of ours.
        venv: name of its requirements file; empty: the project's own environment.
        note: what must be known to read its figures.
    """

    name: str
    title: str
    wire: str
    note: str
    command: Callable[[Placement], list[str]] = field(default=lambda _: [])
    path: str = ""
    env: Callable[[Placement], Mapping[str, str]] = field(default=lambda _: {})
    venv: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    """A system that serves: how to play an arrival on it, and its process; None for this one."""

    play: Play
    pid: int


def _ours(config: Path, deployments: Callable[[Placement], Mapping[str, Mapping[str, Any]]]) -> Callable[[Placement], list[str]]:
    def command(place: Placement) -> list[str]:
        args = {
            "admission": {"mode": "none"}, "engine": {"slots": SLOTS}, "decoder": {"slots": SLOTS},
            "front_door": {"max_sessions": SLOTS, "http": {"port": None}},
        }  # fmt: skip
        overrides = Overrides(grpc_port=place.port, metrics_port=place.metrics_port, args=args, deployments=deployments(place))
        document, _ = load(config, overrides)
        written = place.folder / "serve.yaml"
        written.write_text(yaml.safe_dump(document), encoding="utf-8")
        return [sys.executable, "-m", "headrace", "serve", "--config", str(written)]

    return command


def _replicated(place: Placement) -> dict[str, dict[str, Any]]:
    share = {"num_cpus": 0.5}  # what Ray reserves: all replicas and the front door must find room on as many cores as there are
    return {"FusedPipeline": {"autoscaling_config": None, "num_replicas": place.replicas, "ray_actor_options": share}}


def _module(name: str) -> Callable[[Placement], list[str]]:
    def command(place: Placement) -> list[str]:
        return [sys.executable, "-m", f"bench.peers.{name}", "--port", str(place.port), "--replicas", str(place.replicas)]

    return command


def _bentoml(place: Placement) -> list[str]:
    return ["bentoml", "serve", "bench.peers.bentoml_app:Video", "--host", "127.0.0.1", "--port", str(place.port), "-q"]


def _mosec(place: Placement) -> list[str]:
    where = ["--address", "127.0.0.1", "--port", str(place.port), "--path", str(place.folder / "mosec")]
    return ["python", "-m", "bench.peers.mosec_app", *where, "--timeout", "600000", "--log-level", "warning"]


def _litserve(place: Placement) -> list[str]:
    return ["python", *_module("litserve_app")(place)[1:]]


SYSTEMS = {
    system.name: system
    for system in (
        System("floor", "pipeline in one process, no server", "pipeline", "the floor: one engine, a thread for each stage"),
        System(
            "staged", "Headrace, staged", "grpc", "a deployment for each stage, one replica of each, and the front door",
            _ours(STAGED_CONFIG, lambda _: {}),
        ),
        System(
            "fused", "Headrace, fused", "grpc", "all stages in each replica, and the front door", _ours(FUSED_CONFIG, _replicated),
        ),
        System(
            "serve", "Ray Serve, monolith", "grpc", "a streaming gRPC method behind Serve's proxy, Serve's defaults", _module("serve_app"),
        ),
        System(
            "litserve", "LitServe", "http", "an asynchronous streaming API; workers share a queue, and the first that is free takes a call",
            _litserve, "/predict", venv="litserve",
        ),
        System(
            "bentoml", "BentoML", "http", "an asynchronous generator in each worker", _bentoml, "/stream",
            lambda place: {"BENCH_REPLICAS": str(place.replicas)}, venv="bentoml",
        ),
        System(
            "mosec", "mosec, three stages", "sse",
            "a stage answers once, so a clip is denoised as a whole and only then decoded chunk by chunk; it is not paced", _mosec,
            "/inference", lambda _: {"BENCH_REPLICAS": "1"}, venv="mosec",
        ),
    )
}  # fmt: skip


def environment(name: str) -> Path:
    """The folder of the peer's virtual environment, made if it is not there or no longer what is pinned.

    Raises:
        subprocess.CalledProcessError: the packages cannot be installed.
    """
    folder, pinned = VENVS / name, PEERS / f"requirements-{name}.txt"
    stamp = folder / "installed.txt"
    if not (stamp.is_file() and stamp.read_text() == pinned.read_text()):
        shutil.rmtree(folder, ignore_errors=True)
        print(f"making the environment of {name} in {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "-qq", "--disable-pip-version-check", "install", "-r", str(pinned)]
        subprocess.run(pip, check=True)
        packages = next(folder.glob("lib/python*/site-packages"))
        (packages / "zz-model.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")  # behind its own packages
        stamp.write_text(pinned.read_text())
    return folder


@asynccontextmanager
async def running(system: System, replicas: int, lead_s: float) -> AsyncGenerator[Running, None]:
    """Start, wait until the model answers, hand out, stop everything that was started."""
    if system.wire == "pipeline":
        pipeline = load_pipeline(engine=EngineConfig(slots=SLOTS))
        try:
            yield Running(PipelineWire(pipeline, lead_s), os.getpid())
        finally:
            await pipeline.aclose()
        return
    with tempfile.TemporaryDirectory(prefix="hb-", dir="/tmp") as folder:
        place = Placement(free_port(), free_port(), replicas, Path(folder))
        process = _start(system, place)
        try:
            await _until_open(process, place)
            async with _wire(system, place.port, lead_s) as play:
                yield Running(play, process.pid)
        finally:
            await asyncio.to_thread(_stop, process)


def _start(system: System, place: Placement) -> subprocess.Popen[bytes]:
    command, env = system.command(place), {**os.environ, **system.env(place), "PYTHONPATH": str(ROOT)}
    if system.venv:
        programs = environment(system.venv) / "bin"
        command[0] = str(programs / command[0])
        env["PATH"] = f"{programs}{os.pathsep}{env['PATH']}"
    with (place.folder / "log.txt").open("wb") as log:
        return subprocess.Popen(command, cwd=place.folder, env=env, stdout=log, stderr=log, start_new_session=True)


async def _until_open(process: subprocess.Popen[bytes], place: Placement) -> None:
    """Until somebody listens. What listens may not serve yet: the first call, which is not measured, waits for that."""
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", place.port)) == 0:
                return
        await asyncio.sleep(_ASK_EVERY_S)
    said = (place.folder / "log.txt").read_text(errors="replace")[-2000:]
    raise RuntimeError(f"port {place.port} is not open after {READY_WITHIN_S:g} s; exit code {process.poll()}; it said:\n{said}")


@asynccontextmanager
async def _wire(system: System, port: int, lead_s: float) -> AsyncGenerator[Play, None]:
    if system.wire == "grpc":
        async with HeadraceClient(f"127.0.0.1:{port}") as client:
            yield GrpcWire(client, lead_s)
        return
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
        yield HttpWire(session, f"http://127.0.0.1:{port}{system.path}", lead_s, events=system.wire == "sse")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask, wait, then end the whole group: workers outlive a parent that is killed alone, and would answer the next run."""
    tree = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_WITHIN_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for pid, born in tree.items():
        if _born(pid) == born:  # not another process that got its number since
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()


@dataclass(frozen=True, slots=True)
class Used:
    """By a process and all below it: resident memory with shared pages divided among those who share them, and CPU time so far."""

    memory_bytes: int
    cpu_s: float


def used(pid: int, *, memory: bool = True) -> Used:
    total = cpu = 0.0
    for each in [pid, *descendants(pid)]:
        with suppress(OSError):
            stat = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            cpu += (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
            if memory:
                rollup = Path(f"/proc/{each}/smaps_rollup").read_text()
                total += 1024 * next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return Used(int(total), cpu)


def descendants(pid: int) -> dict[int, str]:
    """Processes below `pid`, with what tells each from a later one of the same number."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            children.setdefault(int((entry / "stat").read_text().rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found: list[int] = []
    todo = [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return {each: _born(each) for each in found}


def _born(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
