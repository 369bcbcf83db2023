"""The monolith in one Ray Serve deployment: a streaming gRPC method behind Serve's own proxy, as Serve's gRPC guide shows it.

It speaks our `Stream`, so that the same client measures it. Of the other methods it has none.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import tempfile
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import ray
from ray import serve
from ray.serve.config import gRPCOptions

from bench.kit.session import Ask, chunks
from doors.wire import messages
from headrace.v1 import video_pb2 as pb
from model_core.local import load_pipeline

SESSIONS = 256  # at once in a replica; Serve's default of 5 would be the limit that is measured
_OBJECT_STORE_BYTES = 128 * 1024 * 1024


class Video:
    """One replica: its own copy of the model."""

    def __init__(self) -> None:
        self._pipeline = load_pipeline()

    async def Stream(self, request: pb.StreamRequest) -> AsyncGenerator[pb.StreamResponse, None]:  # noqa: N802 - the name of the RPC
        spec = request.spec
        ask = Ask(spec.prompt, spec.seed, spec.seconds, request.max_lead_seconds)
        async with aclosing(chunks(self._pipeline, ask)) as made:
            async for chunk in made:
                yield pb.StreamResponse(frames=messages.frames(chunk))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--replicas", type=int, required=True)
    a = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    folder = Path(tempfile.mkdtemp(prefix="hb-", dir="/tmp"))  # Ray's sockets need a short path
    ray.init(
        num_cpus=max(2, a.replicas), include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES, log_to_driver=False,
        _temp_dir=str(folder), _system_config={"worker_niceness": 0},
    )  # fmt: skip
    try:
        options = gRPCOptions(port=a.port, grpc_servicer_functions=["headrace.v1.video_pb2_grpc.add_VideoServiceServicer_to_server"])
        serve.start(grpc_options=options)
        video = serve.deployment(num_replicas=a.replicas, max_ongoing_requests=SESSIONS, ray_actor_options={"num_cpus": 1})(Video)
        serve.run(video.bind(), name="video")
        stop.wait()
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
