"""What a viewer gets: `python -m bench.costs.realtime` starts a local cluster and measures it over gRPC.

    first frame    repeated short streams on a warm server, one after the other: p50, p99, max
    real time      one paced session for a minute: frame rate of the unpaced maker behind it, late frames, longest gap
    capacity       more and more simultaneous paced sessions, until chunks come late
    prompt switch  from the new prompt's message to its acknowledgement and to its first frame's arrival, among 1 and 8 live sessions

A chunk is late when it arrives after its first frame is due on a screen that began to play at the first frame's arrival. Client and server
share the machine. Absolute figures say something about this machine only, so the load average is recorded with them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.kit.load import PROMPT, Arrival, offer, together
from bench.kit.tally import Figures, chunk_ms, figures, quantile
from bench.kit.wires import GrpcWire
from deployments.cluster.local import Overrides, start_local
from headrace.client import HeadraceClient
from headrace.playout import PlayoutClock
from headrace.v1 import video_pb2 as pb
from model_core.presets import millrace_64

PROMPTS = (PROMPT, "a large white ring circling on a maroon background", "a small green square rising on a cream background")
MODEL = millrace_64()
GRACE_S = 120.0


async def play(client: HeadraceClient, arrivals: Sequence[Arrival], lead_s: float = 0.0) -> Figures:
    """What they met, as figures."""
    return figures(await offer(arrivals, GrpcWire(client, lead_s), GRACE_S), MODEL.fps)


async def steer(client: HeadraceClient, seed: int, switches: int, steps: int, lead_s: float) -> list[tuple[float, float, float]]:
    """Seconds from each prompt change to its acknowledgement, to the arrival of its first frame and to that on screen; one every 1.5 s."""
    out: list[tuple[float, float, float]] = []
    clock = PlayoutClock(time.monotonic)
    async with client.live(
        PROMPTS[0], seed=seed, codec=pb.CODEC_RAW_RGB, steps=steps, max_lead_s=lead_s, replaceable=clock.replaceable
    ) as session:
        sent = acknowledged = 0.0
        first_frame: int | None = None
        changed_at = time.monotonic()
        async for event in session:
            now = time.monotonic()
            if isinstance(event, pb.PromptAck):
                acknowledged, first_frame = now - sent, event.first_frame
                clock.superseded(first_frame)
            elif isinstance(event, pb.Frames):
                due = clock.arrived(event.first_frame, event.frame_count, MODEL.fps)
                if first_frame is not None and event.first_frame >= first_frame:
                    out.append((acknowledged, now - sent, max(due, now) - sent))
                    first_frame, changed_at, sent = None, now, 0.0
                if len(out) == switches:
                    break
                if not sent and now - changed_at > 1.5:
                    sent = time.monotonic()
                    await session.set_prompt(PROMPTS[(len(out) + 1) % len(PROMPTS)])
    return out


async def switching(client: HeadraceClient, sessions: int, switches: int, steps: int, lead_s: float) -> dict[str, float]:
    """Quantiles over all switches of `sessions` live sessions at once."""
    played = await asyncio.gather(*(steer(client, seed, switches, steps, lead_s) for seed in range(sessions)))
    seen = [switch for one in played for switch in one]
    acknowledged, received, shown = ([switch[part] for switch in seen] for part in range(3))
    return {
        "sessions": sessions, "steps": steps, "switches": len(seen), "ack_p50_s": quantile(acknowledged, 0.5),
        "ack_p99_s": quantile(acknowledged, 0.99), "first_new_frame_p50_s": quantile(received, 0.5),
        "first_new_frame_p99_s": quantile(received, 0.99), "shown_p50_s": quantile(shown, 0.5), "shown_p99_s": quantile(shown, 0.99),
    }  # fmt: skip


async def measure(address: str, a: argparse.Namespace) -> dict[str, object]:
    """The three parts, in order; prints each as it is known."""
    report: dict[str, object] = {"load_average_before": os.getloadavg()[0]}
    async with HeadraceClient(address) as client:
        await play(client, together(1, 2.0, "job"))
        first = [(await play(client, [Arrival(0.0, "job", 0.3, seed)])).ttff_p50_ms for seed in range(a.runs)]
        report["ttff_ms"] = {"runs": a.runs, "p50": quantile(first, 0.5), "p99": quantile(first, 0.99), "max": max(first)}
        print("first frame  ", report["ttff_ms"])
        fast = chunk_ms(await offer(together(1, 10.0, "job"), GrpcWire(client, 0.0), GRACE_S))
        report["unpaced_fps"] = round(1000 * MODEL.frames_per_chunk / fast, 1)
        print(f"unpaced       {report['unpaced_fps']} frames a second")
        single = await play(client, together(1, a.seconds), a.lead)
        print("one session  ", single)
        report["one_session"] = asdict(single)
        steps = []
        for sessions in a.sessions:
            steps.append(await play(client, together(sessions, a.step_seconds), a.lead))
            print("sessions     ", steps[-1])
            if steps[-1].on_time_share < 1:
                break
        report["capacity"] = [asdict(step) for step in steps]
        report["sessions_without_late_chunks"] = max((s.sessions for s in steps if s.on_time_share == 1), default=0)
        print("sessions without a late chunk:", report["sessions_without_late_chunks"])
        report["switch"] = [await switching(client, 1, a.switches, 4, a.lead), await switching(client, 8, a.switches, 2, a.lead)]
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
