"""Each family over gRPC from a real local cluster, with small random weights: `python -m bench.families [FAMILY ...]`.

Makes the family's small checkpoint, serves it staged, asks for a job (Generate) and a stream (Stream) of one clip with one seed, and
writes `out/FAMILY.mp4`. Random weights draw noise: what is shown is that the family runs through the same stages as every other model.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from deployments.cluster import Overrides, start_local
from headrace.client import HeadraceClient
from headrace.v1 import video_pb2 as pb
from model_core.families.tiny import MAKERS, make_tiny

FRAMES, FPS, STEPS = 9, 16, 5
PROMPT = "a red circle moves left over a blue background"


async def ask(address: str) -> tuple[bytes, int]:
    """The job's MP4, and how many frames the stream sent."""
    async with HeadraceClient(address) as client:
        job = await client.generate(PROMPT, seconds=FRAMES / FPS, seed=7)
        events = client.stream(PROMPT, seconds=FRAMES / FPS, seed=7)
        return job.mp4, sum([event.frame_count async for event in events if isinstance(event, pb.Frames)])


def show(name: str, out: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="headrace-families-") as folder:
        make_tiny(name, Path(folder) / name)
        model = {"folder": str(Path(folder) / name), "height": 64, "width": 96, "frames": FRAMES, "fps": FPS, "steps": STEPS}
        with start_local(overrides=Overrides(args={"model": model})) as running:
            mp4, frames = asyncio.run(ask(running.address))
    out.mkdir(exist_ok=True)
    (out / f"{name}.mp4").write_bytes(mp4)
    print(f"{name}: {out / name}.mp4, {len(mp4)} bytes; the stream sent {frames} frames of {FRAMES}")


if __name__ == "__main__":
    for family in sys.argv[1:] or sorted(MAKERS):
        show(family, Path("out"))
