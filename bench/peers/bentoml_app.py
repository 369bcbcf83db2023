"""The monolith in BentoML: an endpoint that is an asynchronous generator, as its documentation shows for streaming, in several workers.

Started by `bentoml serve`; the number of workers comes by the environment variable `BENCH_REPLICAS`, because the decorator needs it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator

import bentoml

from bench.kit.session import Ask, framed
from model_core.local import load_pipeline


@bentoml.service(workers=int(os.environ.get("BENCH_REPLICAS", "1")), traffic={"timeout": 600, "max_concurrency": 1024})
class Video:
    """One worker: its own copy of the model."""

    def __init__(self) -> None:
        self.pipeline = load_pipeline()

    @bentoml.api
    async def stream(self, prompt: str, seed: int, seconds: float, lead_s: float) -> AsyncGenerator[bytes, None]:
        async for part in framed(self.pipeline, Ask(prompt, seed, seconds, lead_s)):
            yield part
