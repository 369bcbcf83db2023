"""A real local cluster around fake stages, with what tests look at."""

from __future__ import annotations

import asyncio
import math
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve._private.api import serve_start
from ray.serve._private.common import ReplicaState
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ServeDeploySchema

from autoscaling.reports import FrontDoorReport, ReplicaReport
from deployments.cluster.local import ROOT, STAGED_CONFIG, Overrides, RunningApp, load
from deployments.config.names import APP_NAME, FRONT_DOOR
from deployments.links.remote import reports
from headrace.client import HeadraceClient
from headrace.v1 import video_pb2 as pb
from model_core.pipeline import SessionRequest
from model_core.presets import millrace_64
from model_core.types import FrameChunk
from model_core.uploads.decoders import UploadDecoders
from model_core.uploads.upload import Upload, UploadLimits
from tests.fakes import FakeStages
from tests.ray.fake_stages import FOLDER_VARIABLE

PATIENCE_S = 240.0  # only bounds a failing test
AFTER_S = 2.0  # of video, which shows that a session goes on


class Cluster:
    """Close it before its application is stopped."""

    def __init__(self, app: RunningApp, folder: Path) -> None:
        self.app = app
        self.folder = folder
        self._handles: dict[str, DeploymentHandle[Any]] = {}

    def client(self) -> HeadraceClient:
        return HeadraceClient(self.app.address)

    def handle(self, deployment: str) -> DeploymentHandle[Any]:
        if deployment not in self._handles:
            self._handles[deployment] = serve.get_deployment_handle(deployment, APP_NAME)
        return self._handles[deployment]

    async def stages(self, deployment: str) -> list[ReplicaReport]:
        """From every replica of a stage that answers now."""
        return await reports(self.handle(deployment), ReplicaReport, PATIENCE_S)

    async def pids(self, deployment: str) -> set[int]:
        """Processes of the replicas that answer now; none where Serve has not told the handle of any yet."""
        found: list[FrontDoorReport] | list[ReplicaReport]
        try:
            if deployment == FRONT_DOOR:
                found = await reports(self.handle(deployment), FrontDoorReport, PATIENCE_S)
            else:
                found = await self.stages(deployment)
        except DeploymentUnavailableError:
            return set()
        return {replica.process.pid for replica in found if replica.process}

    def running(self, deployment: str) -> int:
        """Its replicas that serve now."""
        return int(serve.status().applications[APP_NAME].deployments[deployment].replica_states.get(ReplicaState.RUNNING, 0))

    async def open(self, *deployments: str) -> list[int]:
        """For each stage: the links that its replicas have open, then the sessions of their denoisers and decoders."""
        found = []
        for deployment in deployments:
            replicas = await self.stages(deployment)
            found.append(sum(replica.link.open for replica in replicas if replica.link))
            found += [sum(held) for held in zip(*map(_sessions, replicas), strict=True)]
        return found

    async def until_open(self, *wanted: int, of: tuple[str, ...]) -> None:
        """Wait until `of` have that open, and nothing that was left over from before."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.open(*of) != [*wanted]:  # noqa: ASYNC110 - other processes count
                await asyncio.sleep(0.05)

    async def until_one(self, deployment: str, *, but: int = 0) -> int:
        """Wait until one process answers, which is not `but`."""
        async with asyncio.timeout(PATIENCE_S):
            while len(found := await self.pids(deployment)) != 1 or but in found:  # noqa: ASYNC110 - Serve works
                await asyncio.sleep(0.05)
        (pid,) = found
        return pid

    async def until_free(self, *deployments: str) -> None:
        """Wait until they have nothing open."""
        async with asyncio.timeout(PATIENCE_S):
            while any(await self.open(*deployments)):  # noqa: ASYNC110 - another process counts down
                await asyncio.sleep(0.05)

    def close(self) -> None:
        """End the handles' background work: it would look for the cluster when that is gone."""
        for handle in self._handles.values():
            handle.shutdown()


def _sessions(replica: ReplicaReport) -> list[int]:
    denoising = [replica.denoiser.sessions + replica.denoiser.waiting] if replica.denoiser else []
    return denoising + ([replica.decoder.sessions] if replica.decoder else [])


def overrides(folder: Path, port: int, *, fused: bool = False) -> Overrides:
    env = {"PYTHONPATH": str(ROOT), FOLDER_VARIABLE: str(folder)}
    return Overrides(grpc_port=port, metrics_port=0, http_port=0, fused=fused, args={"stages": "tests.ray.fake_stages"}, env=env)


def redeploy(changed: Overrides) -> None:
    """As `serve deploy` with the staged file, onto the private cluster that `start_local` started with other overrides."""
    document, _ = load(STAGED_CONFIG, changed)
    serve_start(proxy_location="Disabled").deploy_apps(ServeDeploySchema.model_validate(document))


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def listener(port: int) -> int:
    """The process that listens on a TCP port of this machine."""
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
        sockets |= {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].rsplit(":", 1)[1], 16) == port}
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(link.readlink()) in sockets:
                return int(link.parts[2])
        except OSError:
            continue  # gone since it was listed
    raise LookupError(f"nobody listens on {port}")


def peers(port: int) -> set[int]:
    """Processes at the other end of this process's connections to a TCP port of this machine."""
    rows = [line.split() for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6") for line in Path(table).read_text().splitlines()[1:]]
    open_rows = [row for row in rows if row[3] == "01"]
    mine = {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
    ours = {int(row[1].rsplit(":", 1)[1], 16) for row in open_rows if f"socket:[{row[9]}]" in mine and _port(row[2]) == port}
    theirs = {f"socket:[{row[9]}]" for row in open_rows if _port(row[1]) == port and _port(row[2]) in ours}
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(link.readlink()) in theirs:
                found.add(int(link.parts[2]))
        except OSError:
            continue  # gone since it was listed
    return found


def _port(address: str) -> int:
    return int(address.rsplit(":", 1)[1], 16)


async def stream(
    client: HeadraceClient, prompt: str, seed: int, seconds: float, max_lead_s: float = 0.0
) -> AsyncGenerator[pb.Frames, None]:
    async with aclosing(client.stream(prompt, seconds=seconds, seed=seed, codec=pb.CODEC_RAW_RGB, max_lead_s=max_lead_s)) as events:
        async for event in events:
            if isinstance(event, pb.Frames):
                yield event


async def play(cluster: Cluster, prompt: str, seed: int, over: asyncio.Event, made: list[bytes]) -> None:
    """A session without an end of its own: it is left `AFTER_S` after `over`. What it brings is in `made` at once."""
    until: float = math.inf
    async with cluster.client() as client, aclosing(stream(client, prompt, seed, seconds=3600.0, max_lead_s=1.0)) as chunks:
        async for chunk in chunks:
            made += chunk.data
            if over.is_set():
                until = min(until, len(made) + AFTER_S * millrace_64().fps)
            if len(made) >= until:
                return


async def frames(client: HeadraceClient, prompt: str, seed: int, seconds: float) -> list[bytes]:
    """A whole session over gRPC."""
    async with asyncio.timeout(PATIENCE_S):
        return [bytes(frame) async for chunk in stream(client, prompt, seed, seconds) for frame in chunk.data]


async def as_expected(made: list[bytes], prompt: str, seed: int) -> bool:
    """Whether it is the beginning of that session."""
    return made == await expected(prompt, seed, len(made) / millrace_64().fps)


async def expected(
    prompt: str, seed: int, seconds: float, switch: tuple[int, str] | None = None, image: bytes | None = None
) -> list[bytes]:
    """The same session in this process; `switch` is a frame index and the prompt from there on."""
    stages = FakeStages()
    total = round(seconds * stages.config.fps)
    with closing(UploadDecoders()) as decoders:
        footage = None if image is None else await decoders.footage(Upload("image", image, "image", UploadLimits()), stages.config)
    request = SessionRequest("local", prompt, seed, stages.config.num_steps, total, footage=footage)
    session = await stages.pipeline.open(request)
    made: list[bytes] = []
    async with aclosing(session.events()) as events:
        async for event in events:
            made += event.data if isinstance(event, FrameChunk) else []
            if switch is not None and len(made) == switch[0]:
                await session.set_prompt(switch[1])
                switch = None
    return made
