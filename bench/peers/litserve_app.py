"""The monolith in LitServe: an asynchronous streaming API, as its documentation shows for many streams at once, in several workers.

No `from __future__ import annotations` in this file: LitServe takes a request's type only from an annotation that is the class itself.
"""

import argparse
from collections.abc import AsyncGenerator
from typing import Any

import litserve as ls

from bench.kit.session import Ask, framed
from model_core.local import LocalPipeline, load_pipeline


class VideoApi(ls.LitAPI):
    """One worker: its own copy of the model."""

    def setup(self, device: str) -> None:
        self.pipeline: LocalPipeline = load_pipeline()

    async def decode_request(self, request: dict[str, Any]) -> Ask:
        return Ask.from_json(request)

    async def predict(self, ask: Ask) -> AsyncGenerator[bytes, None]:
        async for part in framed(self.pipeline, ask):
            yield part

    # Without a return type: LitServe would make a schema of it.
    async def encode_response(self, output: AsyncGenerator[bytes, None]):  # type: ignore[no-untyped-def]  # noqa: ANN201
        async for part in output:
            yield part


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--replicas", type=int, required=True)
    a = parser.parse_args()
    api = VideoApi(stream=True, enable_async=True)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=a.replicas, timeout=False)
    server.run(host="127.0.0.1", port=a.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
