"""What a player makes of a finished file. It needs PyAV, and nothing of Headrace."""

from __future__ import annotations

import io

import av


def played(data: bytes) -> tuple[int, int, int]:
    """Frames, width and height of a video, with every frame decoded."""
    with av.open(io.BytesIO(data), "r") as container:
        frames = [(frame.width, frame.height) for frame in container.decode(video=0)]
    if len(set(frames)) != 1:
        raise ValueError(f"the frames are not of one size: {sorted(set(frames))}")
    return len(frames), *frames[0]
