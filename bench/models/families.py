"""Each family over gRPC from a real local cluster, with small random weights: `python -m bench.models.families [FAMILY ...]`.

Makes the family's small checkpoint, serves it staged, asks for a job (Generate) and a stream (Stream) of the same frames, and writes
`out/FAMILY.mp4`. A streaming family is also steered: a Live, at as many frames a second as a small machine makes, changes its prompt on
the way (`out/FAMILY-live.mp4`); its frames before the change must be the stream's. A family that may be given an image or a video is given
one of each kind as well (`out/FAMILY-from-image.mp4`). Random weights draw noise: what is shown is that the family runs through the same
stages as every other model.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from deployments.cluster.local import Overrides, start_local
from deployments.config.application import AppConfig
from headrace.client import HeadraceClient
from headrace.v1 import video_pb2 as pb
from model_core.families.registry import family_of_tiny, tiny_checkpoints
from model_core.families.tiny import make_tiny
from model_core.media import encode_mp4, png

FRAMES, FPS, STEPS, HEIGHT, WIDTH = 9, 16, 5, 64, 96
SHOWN, SLOW_FPS = 45, 4  # frames of a session without end; frames a second of one that is steered
PROMPT, OTHER = "a red circle moves left over a blue background", "a dog runs over a meadow"


async def ask(address: str, seconds: float, **given: bytes) -> tuple[bytes, list[pb.Frames]]:
    """The job's MP4, and what the stream sent; both of an `image` or a `video`, if one is given."""
    async with HeadraceClient(address) as client:
        job = await client.generate(PROMPT, seconds=seconds, seed=7, **given)  # type: ignore[arg-type]  # image or video
        events = client.stream(PROMPT, seconds=seconds, seed=7, **given)  # type: ignore[arg-type]
        return job.mp4, [event async for event in events if isinstance(event, pb.Frames)]


async def steer(address: str, seconds: float) -> tuple[list[pb.Frames], int]:
    """What a Live sends whose prompt changes once a chunk has come, and the first frame of the new prompt."""
    shown: list[pb.Frames] = []
    changed_at = 0
    async with HeadraceClient(address) as client, client.live(PROMPT, seconds=seconds, seed=7) as session:
        async for event in session:
            match event:
                case pb.Frames():
                    shown.append(event)
                    if len(shown) == 1:
                        await session.set_prompt(OTHER)
                case pb.PromptAck():
                    changed_at = event.first_frame
    return shown, changed_at


def show(name: str, out: Path) -> None:
    small, family = tiny_checkpoints()[name], family_of_tiny(name)
    steered = family.kind is not None and family.kind.streaming is not None
    length, fps = (small.frames or SHOWN, SLOW_FPS) if steered else (FRAMES, FPS)
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="headrace-families-") as folder:
        make_tiny(name, Path(folder) / name)
        model = {"folder": str(Path(folder) / name), "height": HEIGHT, "width": WIDTH, "fps": fps, "steps": STEPS}
        if small.frames:
            model["frames"] = length
        args = {"model": model, "admission": {"tiers": []}}  # no quality is traded under load, or the frames of two sessions would differ
        config = AppConfig.model_validate(args).preset()
        with start_local(overrides=Overrides(args=args)) as running:
            for kind in (*(() if config.needs_media else ("",)), *config.media):
                given = {kind: footage(kind, fps)} if kind else {}
                mp4, chunks = asyncio.run(ask(running.address, length / fps, **given))
                streamed = sum(chunk.frame_count for chunk in chunks)
                write(out / f"{name}{f'-from-{kind}' if given else ''}.mp4", mp4, f"the stream sent {streamed} frames of {length}")
                if steered and not given:
                    live, changed_at = asyncio.run(steer(running.address, length / fps))
                    frames = frames_of(live)
                    same = sum(a == b for a, b in zip(frames, frames_of(chunks), strict=False))
                    told = f"the live sent {len(frames)}, a new prompt from {changed_at} on, and {same} as the stream's"
                    pixels = np.frombuffer(b"".join(frames), np.uint8).reshape(-1, HEIGHT, WIDTH, 3)
                    write(out / f"{name}-live.mp4", encode_mp4(pixels, fps), told)


def footage(kind: str, fps: int) -> bytes:
    """A bright square that goes right over a grey ground; as an image, its first frame."""
    frames = np.full((13, HEIGHT, WIDTH, 3), 90, np.uint8)
    for index, frame in enumerate(frames):
        frame[20:40, 4 + 2 * index : 24 + 2 * index] = (230, 60, 40)
    return png(Image.fromarray(frames[0])) if kind == "image" else encode_mp4(frames, fps)


def write(path: Path, mp4: bytes, told: str) -> None:
    path.write_bytes(mp4)
    print(f"{path}: {len(mp4)} bytes; {told}", flush=True)


def frames_of(chunks: list[pb.Frames]) -> list[bytes]:
    return [data for chunk in chunks for data in chunk.data]


if __name__ == "__main__":
    for chosen in sys.argv[1:] or sorted(tiny_checkpoints()):
        show(chosen, Path("out"))
