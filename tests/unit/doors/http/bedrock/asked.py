"""What the tests of this room ask for, and how they look at what they get."""

from __future__ import annotations

import io
from typing import Any

import av

MODEL = "amazon.nova-reel-v1:1"
ARN = "arn:aws:bedrock:us-east-1:000000000000:async-invoke/job000000000"
STOCK: dict[str, Any] = {
    "modelId": MODEL,
    "modelInput": {
        "taskType": "TEXT_VIDEO",
        "textToVideoParams": {"text": "a red circle"},
        "videoGenerationConfig": {"durationSeconds": 6, "fps": 24, "dimension": "1280x720", "seed": 7},
    },
    "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://bucket/prefix"}},
    "clientRequestToken": "token-1",
}
ONE_SECOND: dict[str, Any] = {
    "taskType": "TEXT_VIDEO",
    "textToVideoParams": {"text": "a red circle"},
    "videoGenerationConfig": {"durationSeconds": 1, "dimension": "96x64"},
}


def frames(video: bytes) -> int:
    """How many a player finds."""
    with av.open(io.BytesIO(video), "r") as container:
        return len(list(container.decode(video=0)))
