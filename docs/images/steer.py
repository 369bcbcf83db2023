"""The moving picture on README's first screen: one session of the embedded model, steered twice, as it was drawn.

python docs/images/steer.py    writes docs/images/steer.gif
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import numpy as np

from model_core import media
from model_core.local import load_pipeline
from model_core.pipeline import SessionRequest
from model_core.types import FrameChunk

# Each is sent once so many seconds have been made; it takes effect after the chunk that is being made then.
PROMPTS = (
    (0, "a large yellow star moves right over a navy background"),
    (1.5, "a large red circle moves left over a cream background"),
    (3, "a large white ring circles over a maroon background"),
)
SECONDS, SEED, SCALE = 5, 7, 2


async def draw() -> media.Frames:
    """The whole session's frames, without choice or retouching."""
    local = load_pipeline()
    fps, coming = local.config.fps, list(PROMPTS)
    request = SessionRequest("steer", coming.pop(0)[1], SEED, local.config.num_steps, SECONDS * fps)
    session = await local.pipeline.open(request)
    chunks = []
    try:
        async with aclosing(session.events()) as events:
            async for event in events:
                if isinstance(event, FrameChunk):
                    chunks.append(event.pixels())
                if coming and sum(map(len, chunks)) >= coming[0][0] * fps:
                    await session.set_prompt(coming.pop(0)[1])
    finally:
        await local.aclose()
    return np.concatenate(chunks)


if __name__ == "__main__":
    frames = asyncio.run(draw())
    # Every second frame: browsers slow down a GIF that asks for more than fifteen or so a second.
    picture = media.encode_gif(media.upscale(frames[::2], SCALE), 12)
    Path(__file__).with_suffix(".gif").write_bytes(picture)
    print(f"{len(frames)} frames, {len(picture)} bytes, sha256 of the frames {media.frames_sha256([frames])}")
