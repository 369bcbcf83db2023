"""What a viewer gets: `python -m bench.realtime` starts a local cluster and measures it over gRPC.

    first frame    repeated short streams on a warm server, one after the other: p50, p99, max
    real time      one paced session for a minute: frame rate of the unpaced maker behind it, late frames, longest gap
    capacity       more and more simultaneous paced sessions, until frames come late
    prompt switch  from the new prompt's message to its acknowledgement and to its first frame's arrival, among 1 and 8 live sessions

A frame is late when it arrives after the moment it is due on a screen that began to play at the first frame's arrival. Client and server
share the machine. Absolute figures say something about this machine only, so the load average is recorded with them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from deployments.cluster import Overrides, start_local
from headrace.client import HeadraceClient
from headrace.playout import PlayoutClock, PlayoutStats
from headrace.v1 import video_pb2 as pb

PROMPT = "a large yellow star moving right on a navy background"
PROMPTS = (PROMPT, "a large white ring circling on a maroon background", "a small green square rising on a cream background")
FPS = 24


@dataclass(frozen=True, slots=True)
class Load:
    """`sessions` at once for `seconds` each; late frames and longest gap over all of them."""

    sessions: int
    seconds: float
    frames: int
    late_frames: int
    max_late_s: float
    max_gap_s: float
    ttff_p50_s: float
    ttff_max_s: float


def quantile(values: Sequence[float], q: float) -> float:
    """Nearest-rank quantile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


async def play(client: HeadraceClient, seconds: float, seed: int, max_lead_s: float) -> PlayoutStats:
    """One `Stream` of raw frames, read at once."""
    clock = PlayoutClock(time.monotonic)
    async for event in client.stream(PROMPT, seconds=seconds, seed=seed, codec=pb.CODEC_RAW_RGB, max_lead_s=max_lead_s):
        if isinstance(event, pb.Frames):
            clock.arrived(event.first_frame, event.frame_count, FPS)
    return clock.stats()


async def load(client: HeadraceClient, sessions: int, seconds: float, lead_s: float) -> Load:
    """`sessions` paced streams, started together."""
    played = await asyncio.gather(*(play(client, seconds, seed, lead_s) for seed in range(sessions)))
    first = [p.ttff_s or 0.0 for p in played]
    return Load(
        sessions=sessions, seconds=seconds, frames=sum(p.frames for p in played), late_frames=sum(p.late_frames for p in played),
        max_late_s=round(max(p.max_late_s for p in played), 4), max_gap_s=round(max(p.max_gap_s for p in played), 4),
        ttff_p50_s=round(quantile(first, 0.5), 4), ttff_max_s=round(max(first), 4),
    )  # fmt: skip


async def steer(client: HeadraceClient, seed: int, switches: int, steps: int) -> list[tuple[float, float]]:
    """Seconds from each prompt change to its acknowledgement and to the arrival of the first frame under it; a change every 1.5 s."""
    out: list[tuple[float, float]] = []
    async with client.live(PROMPTS[0], seed=seed, codec=pb.CODEC_RAW_RGB, steps=steps, max_lead_s=0.5) as session:
        sent = acknowledged = 0.0
        first_frame: int | None = None
        changed_at = time.monotonic()
        async for event in session:
            now = time.monotonic()
            if isinstance(event, pb.PromptAck):
                acknowledged, first_frame = now - sent, event.first_frame
            elif isinstance(event, pb.Frames):
                if first_frame is not None and event.first_frame >= first_frame:
                    out.append((acknowledged, now - sent))
                    first_frame, changed_at, sent = None, now, 0.0
                if len(out) == switches:
                    break
                if not sent and now - changed_at > 1.5:
                    sent = time.monotonic()
                    await session.set_prompt(PROMPTS[(len(out) + 1) % len(PROMPTS)])
    return out


async def switching(client: HeadraceClient, sessions: int, switches: int, steps: int) -> dict[str, float]:
    """Quantiles over all switches of `sessions` live sessions at once."""
    seen = [pair for one in await asyncio.gather(*(steer(client, seed, switches, steps) for seed in range(sessions))) for pair in one]
    acknowledged, received = [pair[0] for pair in seen], [pair[1] for pair in seen]
    return {
        "sessions": sessions, "steps": steps, "switches": len(seen), "ack_p50_s": quantile(acknowledged, 0.5),
        "ack_p99_s": quantile(acknowledged, 0.99), "first_new_frame_p50_s": quantile(received, 0.5),
        "first_new_frame_p99_s": quantile(received, 0.99),
    }  # fmt: skip


async def measure(address: str, a: argparse.Namespace) -> dict[str, object]:
    """The three parts, in order; prints each as it is known."""
    report: dict[str, object] = {"load_average_before": os.getloadavg()[0]}
    async with HeadraceClient(address) as client:
        await play(client, 2.0, 0, 0.0)
        first = [(await play(client, 0.3, seed, 0.0)).ttff_s or 0.0 for seed in range(a.runs)]
        report["ttff_s"] = {"runs": a.runs, "p50": quantile(first, 0.5), "p99": quantile(first, 0.99), "max": max(first)}
        print("first frame  ", {k: round(v, 4) for k, v in report["ttff_s"].items()})  # type: ignore[attr-defined]
        fast = await play(client, 10.0, 1, 0.0)
        print(f"unpaced       {fast.fps:.1f} frames a second over {fast.frames} frames")
        report["unpaced_fps"] = fast.fps
        single = await load(client, 1, a.seconds, a.lead)
        print("one session  ", single)
        report["one_session"] = asdict(single)
        steps = []
        for sessions in a.sessions:
            steps.append(await load(client, sessions, a.step_seconds, a.lead))
            print("sessions     ", steps[-1])
            if steps[-1].late_frames:
                break
        report["capacity"] = [asdict(step) for step in steps]
        report["sessions_without_late_frames"] = max((s.sessions for s in steps if not s.late_frames), default=0)
        print("sessions without a late frame:", report["sessions_without_late_frames"])
        report["switch"] = [await switching(client, 1, a.switches, 4), await switching(client, 8, a.switches, 2)]
        for row in report["switch"]:  # type: ignore[attr-defined]
            print("prompt switch", {k: round(v, 4) for k, v in row.items()})
    report["load_average_after"] = os.getloadavg()[0]
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", help="measure a running server instead of starting a cluster")
    parser.add_argument("--fused", action="store_true", help="one deployment for all stages")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--step-seconds", type=float, default=20)
    parser.add_argument("--switches", type=int, default=20, help="prompt changes of each session")
    parser.add_argument("--lead", type=float, default=1.0, help="how far frames may run ahead of playback, in seconds")
    parser.add_argument("--sessions", type=int, nargs="+", default=[2, 3, 4, 5, 6, 7, 8, 10, 12])
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    if a.address:
        report = asyncio.run(measure(a.address, a))
    else:
        everybody = {"admission": {"mode": "none"}}  # capacity is what is to be measured
        with start_local(None, Overrides(grpc_port=0, metrics_port=0, fused=a.fused, args=everybody)) as app:
            report = asyncio.run(measure(app.address, a))
    if a.json:
        a.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
