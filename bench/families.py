"""Each family over gRPC from a real local cluster, with small random weights: `python -m bench.families [FAMILY ...]`.

Makes the family's small checkpoint, serves it staged, asks for a job (Generate) and a stream (Stream) of the same frames, and writes
`out/FAMILY.mp4`. A streaming family is also steered: a Live, at as many frames a second as a small machine makes, changes its prompt on
the way, and is what is written; its frames before the change must be the stream's. Random weights draw noise: what is shown is that the
family runs through the same stages as every other model.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import numpy as np

from deployments.cluster import Overrides, start_local
from headrace.client import HeadraceClient
from headrace.v1 import video_pb2 as pb
from model_core.families.tiny import MAKERS, make_tiny
from model_core.media import encode_mp4

FRAMES, FPS, STEPS = 9, 16, 5
STREAMS, ENDLESS, SLOW_FPS = {"anyflow-far": 33, "causal-wan": 45}, ("causal-wan",), 4
PROMPT, OTHER = "a red circle moves left over a blue background", "a dog runs over a meadow"


async def ask(address: str, seconds: float) -> tuple[bytes, list[pb.Frames]]:
    """The job's MP4, and what the stream sent."""
    async with HeadraceClient(address) as client:
        job = await client.generate(PROMPT, seconds=seconds, seed=7)
        events = client.stream(PROMPT, seconds=seconds, seed=7)
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
    steered = name in STREAMS
    length, fps = (STREAMS[name], SLOW_FPS) if steered else (FRAMES, FPS)
    with tempfile.TemporaryDirectory(prefix="headrace-families-") as folder:
        make_tiny(name, Path(folder) / name)
        model = {"folder": str(Path(folder) / name), "height": 64, "width": 96, "fps": fps, "steps": STEPS}
        if name not in ENDLESS:
            model["frames"] = length
        # No quality is traded under load, or the frames of two sessions would differ.
        args = {"model": model, "admission": {"tiers": []}}
        with start_local(overrides=Overrides(args=args)) as running:
            mp4, chunks = asyncio.run(ask(running.address, length / fps))
            live, changed_at = asyncio.run(steer(running.address, length / fps)) if steered else ([], 0)
    told = f"the stream sent {sum(chunk.frame_count for chunk in chunks)} frames of {length}"
    if steered:
        frames, streamed = frames_of(live), frames_of(chunks)
        same = sum(a == b for a, b in zip(frames, streamed, strict=False))
        told += f"; the live {len(frames)}, a new prompt from {changed_at} on, and {same} as the stream's"
        mp4 = encode_mp4(np.frombuffer(b"".join(frames), np.uint8).reshape(-1, 64, 96, 3), fps)
    out.mkdir(exist_ok=True)
    (out / f"{name}.mp4").write_bytes(mp4)
    print(f"{name}: {out / name}.mp4, {len(mp4)} bytes; {told}")


def frames_of(chunks: list[pb.Frames]) -> list[bytes]:
    return [data for chunk in chunks for data in chunk.data]


if __name__ == "__main__":
    for family in sys.argv[1:] or sorted(MAKERS):
        show(family, Path("out"))
