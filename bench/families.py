"""Each family over gRPC from a real local cluster, with small random weights: `python -m bench.families [FAMILY ...]`.

Makes the family's small checkpoint, serves it staged, asks for a job (Generate) and a stream (Stream) of one clip with one seed, and
writes `out/FAMILY.mp4`. A model that needs an image is given a photo-sized file, `out/given.jpg`. Random weights draw noise: what is
shown is that the family runs through the same stages as every other model.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

from deployments.cluster import Overrides, start_local
from headrace.client import HeadraceClient
from headrace.v1 import video_pb2 as pb
from model_core.families.tiny import MAKERS, make_tiny

FRAMES, FPS, STEPS = 9, 16, 5
PROMPT = "a red circle moves left over a blue background"


def given(out: Path) -> bytes:
    """The content of an image file, larger than what is served and of other proportions."""
    image = Image.new("RGB", (1600, 1200), (20, 40, 160))
    ImageDraw.Draw(image).ellipse((400, 300, 1000, 900), (220, 40, 40))
    image.save(out / "given.jpg", quality=95)
    return (out / "given.jpg").read_bytes()


async def ask(address: str, out: Path) -> tuple[bytes, int]:
    """The job's MP4, and how many frames the stream sent."""
    async with HeadraceClient(address) as client:
        (model,) = await client.list_models()
        image = given(out) if model.image.required else None
        job = await client.generate(PROMPT, seconds=FRAMES / FPS, seed=7, image=image)
        events = client.stream(PROMPT, seconds=FRAMES / FPS, seed=7, image=image)
        return job.mp4, sum([event.frame_count async for event in events if isinstance(event, pb.Frames)])


def show(name: str, out: Path) -> None:
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="headrace-families-") as folder:
        make_tiny(name, Path(folder) / name)
        model = {"folder": str(Path(folder) / name), "height": 64, "width": 96, "frames": FRAMES, "fps": FPS, "steps": STEPS}
        with start_local(overrides=Overrides(args={"model": model})) as running:
            mp4, frames = asyncio.run(ask(running.address, out))
    (out / f"{name}.mp4").write_bytes(mp4)
    print(f"{name}: {out / name}.mp4, {len(mp4)} bytes; the stream sent {frames} frames of {FRAMES}")


if __name__ == "__main__":
    for family in sys.argv[1:] or sorted(MAKERS):
        show(family, Path("out"))
