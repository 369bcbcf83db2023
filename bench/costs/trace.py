"""One session's first frame, millisecond by millisecond: `python -m bench.costs.trace` (`make trace`).

A local cluster writes traces to a file. Viewers come one after the other, each with a trace id of its own in its call's metadata. What is
printed is the one in the middle by time to first frame. For each of them the parts must sum to what the front door measured, within 2 %.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.kit.load import PROMPT
from deployments.cluster.local import Overrides, start_local
from headrace.client import HeadraceClient
from headrace.v1 import video_pb2 as pb
from model_core.types import Codec, FrameChunk, StageTiming
from observability import waterfall
from observability.tracing import Tracing, span_exporter

TOLERANCE = 0.02
_WRITTEN_WITHIN_S = 15.0


async def view(address: str, trace_id: str, seed: int) -> float:
    """One viewer on a connection that stands already. Returns seconds until the first frame."""
    metadata = (("traceparent", f"00-{trace_id}-{secrets.token_hex(8)}-01"),)
    async with HeadraceClient(address, metadata=metadata) as client:
        await client.list_models()
        asked, first_s = time.perf_counter(), 0.0
        async for event in client.stream(f"{PROMPT} {seed}", seconds=1.0, seed=seed, codec=pb.CODEC_JPEG, max_lead_s=0.5):
            if isinstance(event, pb.Frames) and not first_s:
                first_s = time.perf_counter() - asked
        return first_s


async def views(address: str, runs: int) -> dict[str, float]:
    """What each of `runs` viewers measured, by trace id, after some that nobody counts."""
    found = {}
    for number in range(runs + 3):
        trace_id = secrets.token_hex(16)
        first_s = await view(address, trace_id, number)
        if number >= 3:
            found[trace_id] = first_s
    return found


def written(file: Path, wanted: set[str]) -> dict[str, waterfall.FirstFrame]:
    """First frames by trace id, once all of them are in the file.

    Raises:
        TimeoutError: they do not come.
    """
    deadline = time.monotonic() + _WRITTEN_WITHIN_S
    while time.monotonic() < deadline:
        traces = {t.root.trace_id: found for t in waterfall.read(file.read_text().splitlines()) if (found := waterfall.first_frame(t))}
        if wanted <= traces.keys():
            return {trace_id: traces[trace_id] for trace_id in wanted}
        time.sleep(0.2)
    raise TimeoutError(f"{len(wanted)} traces were asked for, and are not all in {file} after {_WRITTEN_WITHIN_S:g} s")


def cost_us(chunks: int = 500) -> float:
    """Processor time that a traced chunk costs a front door, what is done in the thread that exports included."""
    tracing = Tracing(span_exporter("file", os.devnull, ""), 1.0)
    trace = tracing.begin("service", "Stream", ())
    if trace is None:
        raise AssertionError("every call is traced")
    denoised = StageTiming("denoiser", 0.01, 0.06, 0.03, 0.001, time.time(), (0.045, 0.03, 0.015, 0.0))
    decoded = StageTiming("decoder", 0.001, 0.02, 0.02, 0.001, time.time())
    chunk = FrameChunk(0, 0, 8, 64, 64, Codec.JPEG, (b"",), np.zeros((1, 1, 1, 1), np.float32), (denoised, decoded))
    began = time.process_time()
    for _ in range(chunks):
        trace.sent(chunk, 0.0, 0.0, 0.0)
    tracing.close()
    return 1e6 * (time.process_time() - began) / chunks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=11)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hr-trace-") as folder:
        file = Path(folder) / "traces.jsonl"
        tracing = {"exporter": "file", "file": str(file), "sample": 0.0}
        with start_local(None, Overrides(grpc_port=0, metrics_port=0, args={"tracing": tracing})) as app:
            seen = asyncio.run(views(app.address, a.runs))
            found = written(file, set(seen))
    trace_id = sorted(found, key=lambda each: found[each].ttff_s)[len(found) // 2]
    middle = found[trace_id]
    print(*waterfall.table(middle), sep="\n")
    print(f"{'at the client':38}{1000 * seen[trace_id]:8.2f}  from its call to the first frame in its hands")
    worst = max(abs(one.missing_s) / one.ttff_s for one in found.values())
    print(f"{len(found)} sessions: the parts sum to the time to first frame within {100 * worst:.2f} %")
    print(f"a traced chunk costs a front door {cost_us():.0f} µs of processor time, writing its three spans included")
    if worst > TOLERANCE:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
