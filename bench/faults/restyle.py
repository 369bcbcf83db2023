"""Does a restyled session lose a frame when its front door is killed? `python -m bench.faults.restyle`.

Two front doors and one replica of each stage, on a private cluster. A source of noise that moves is sent at the model's rate. On the way
the front door that serves is killed, again and again; the client's library goes on at the other one, and sends the source again from
where that lacks it. Every frame is compared with those of the same source in one process. The exit code is 1 if one is lost, comes
twice, or differs.

Without `--model`: the embedded model, and a small causal Wan with random weights. Causal Wan encodes a chunk of the source with frames
before it, which the server does not keep.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray import serve
from ray.serve.handle import DeploymentHandle

from autoscaling.reports import FrontDoorReport
from bench.kit.redis import Redis
from deployments.cluster.local import ROOT, Overrides, free_port, start_local
from deployments.config.names import APP_NAME, FRONT_DOOR
from deployments.links.remote import reports
from headrace.client import HeadraceClient, LiveSource, Reconnect
from headrace.v1 import video_pb2 as pb
from model_core.config import ModelConfig
from model_core.families.tiny import make_tiny
from model_core.local import load_pipeline
from model_core.pipeline import SessionRequest
from model_core.tasks import cancel_and_wait
from model_core.types import FrameChunk

PROMPT, SEED = "a blue circle moving right", 31
_WITHIN_S = 600.0


@dataclass(slots=True)
class Row:
    """One model.

    Attributes:
        lost, twice, differ: frames.
        gap_s: the longest wait for a chunk after a kill.
        victims: the processes that were killed.
    """

    model: str
    frames: int
    kills: int = 0
    lost: int = 0
    twice: int = 0
    differ: int = 0
    gap_s: float = 0.0
    victims: list[int] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return self.lost == self.twice == self.differ == 0


def moving(frames: int, height: int, width: int) -> NDArray[np.uint8]:
    """`[N, H, W, 3]`: smooth noise that goes right, other in every frame, so that a frame at another's place shows."""
    rng = np.random.default_rng(SEED)
    coarse = rng.integers(0, 256, (height // 8 + 1, (width + frames) // 8 + 2, 3)).repeat(8, 0).repeat(8, 1)
    return np.stack([coarse[:height, n : n + width] for n in range(frames)]).astype(np.uint8)


async def undisturbed(model: str, a: argparse.Namespace) -> tuple[ModelConfig, NDArray[np.uint8], list[bytes]]:
    """The model, a source for it, and its frames, restyled in this process."""
    height, width = (a.height, a.width) if model else (0, 0)  # the embedded model has its own size
    local = load_pipeline(model, height=height, width=width)
    try:
        config = local.pipeline.config
        source, made = moving(config.grid.first_frame(a.chunks), config.height, config.width), list[bytes]()
        session = await local.pipeline.open(SessionRequest("bench", PROMPT, SEED, config.num_steps, None, strength=a.strength))
        if (feed := session.source) is None:
            raise RuntimeError(f"{config.name} restyles nothing")

        async def give() -> None:
            for number in range(len(source)):
                await feed.room()
                feed.offer(number, source[number : number + 1])
            feed.finish()

        giving = asyncio.create_task(give())
        async with aclosing(session.events()) as events:
            async for event in events:
                if isinstance(event, FrameChunk):
                    made += [frame.tobytes() for frame in event.pixels()]
        await cancel_and_wait(giving)
        return config, source, made
    finally:
        await local.aclose()


async def paced(source: NDArray[np.uint8], fps: float) -> AsyncGenerator[bytes, None]:
    began = time.monotonic()
    for number, frame in enumerate(source):
        await asyncio.sleep(max(0.0, began + number / fps - time.monotonic()))
        yield frame.tobytes()


async def kill_the_one_that_serves(doors: DeploymentHandle[Any]) -> int:
    """Its process; 0 where none says that it serves."""
    serving = [report.process.pid for report in await reports(doors, FrontDoorReport, 10.0) if report.process and report.open]
    for pid in serving:
        os.kill(pid, 9)
    return serving[0] if serving else 0


async def disturbed(
    row: Row, address: str, config: ModelConfig, source: NDArray[np.uint8], a: argparse.Namespace
) -> list[tuple[int, bytes]]:
    """Frames as they came, with their numbers."""
    shown: list[tuple[int, bytes]] = []
    doors = serve.get_deployment_handle(FRONT_DOOR, APP_NAME)
    given = LiveSource(paced(source, config.fps), a.strength, codec=pb.CODEC_RAW_RGB)
    kill_at = {round((n + 1) * len(source) / (a.kills + 1)) for n in range(a.kills)}
    last = killed = 0.0
    async with asyncio.timeout(_WITHIN_S), HeadraceClient(address) as client:
        live = client.live(
            PROMPT, seed=SEED, steps=config.num_steps, codec=pb.CODEC_RAW_RGB, max_lead_s=1.0, source=given, reconnect=Reconnect(120.0)
        )
        async with live as session:
            async for event in session:
                if not isinstance(event, pb.Frames):
                    continue
                now = time.monotonic()
                if killed:
                    row.gap_s, killed = max(row.gap_s, now - last), 0.0
                last = now
                shown += [(event.first_frame + n, bytes(data)) for n, data in enumerate(event.data)]
                if due := {at for at in kill_at if at < len(shown)}:
                    kill_at -= due
                    row.victims.append(await kill_the_one_that_serves(doors))
                    row.kills += bool(row.victims[-1])
                    killed = now
    doors.shutdown()
    return shown


def judge(row: Row, shown: list[tuple[int, bytes]], truth: list[bytes]) -> None:
    numbers = [number for number, _ in shown]
    row.lost = len(set(range(len(truth))) - set(numbers))
    row.twice = len(numbers) - len(set(numbers))
    row.differ = sum(number >= len(truth) or data != truth[number] for number, data in shown)


def measure(model: str, a: argparse.Namespace) -> Row:
    """Raises RuntimeError: the model restyles nothing."""
    config, source, truth = asyncio.run(undisturbed(model, a))
    row = Row(config.name, len(truth))
    with closing(Redis(free_port())) as store:
        args: dict[str, Any] = {"session_store": {"url": store.url}, "front_door": {"http": {"port": None}}}
        if model:
            args["model"] = {"folder": model, "height": a.height, "width": a.width}
        two = {"autoscaling_config": None, "num_replicas": 2, "ray_actor_options": {"num_cpus": 0}}
        overrides = Overrides(
            grpc_port=free_port(), metrics_port=0, args=args, deployments={FRONT_DOOR: two}, env={"PYTHONPATH": str(ROOT)}
        )
        with start_local(None, overrides) as app:
            shown = asyncio.run(disturbed(row, app.address, config, source, a))
    judge(row, shown, truth)
    return row


def table(rows: list[Row]) -> str:
    head = f"{'model':16}{'frames':>8}{'kills':>7}{'lost':>6}{'twice':>7}{'differ':>8}{'gap max':>9}"
    return "\n".join([head, *(f"{r.model:16}{r.frames:>8}{r.kills:>7}{r.lost:>6}{r.twice:>7}{r.differ:>8}{r.gap_s:>8.2f}s" for r in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=None, help="folders of checkpoints; empty for the embedded model")
    parser.add_argument("--height", type=int, default=32, help="of a checkpoint's frames; 0 for what its family has")
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--chunks", type=int, default=12, help="of the source")
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--strength", type=float, default=0.6)
    parser.add_argument("--json", type=Path, default=None)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-restyle-") as folder:
        models = a.model
        if models is None:
            make_tiny("causal-wan", Path(folder) / "causal-wan")
            models = ["", f"{folder}/causal-wan"]
        rows = []
        for model in models:
            rows.append(measure(model, a))
            print(table(rows[-1:]), flush=True)
    if a.json is not None:
        a.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if not all(row.clean and row.kills == a.kills for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
