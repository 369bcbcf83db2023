"""`headrace demo`: a local cluster, one steered stream over gRPC, and what it took. Stops everything it started."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import console, measure, source
from headrace.cli.console import note
from headrace.playout import PlayoutClock, PlayoutStats

if TYPE_CHECKING:
    from headrace.client import HeadraceClient
    from headrace.v1 import video_pb2 as wire
    from model_core.media import Frames

FIRST_PROMPT = "a large yellow star moving right on a navy background"
SECOND_PROMPT = "a large white ring circling on a maroon background"
SECONDS = 12.0
_SHEET_COLUMNS = 8
_SCALE = 4


@dataclass(frozen=True, slots=True)
class Switch:
    """Seconds are counted from the moment the new prompt was sent. `shown_s`: until its first frame is due on the viewer's screen."""

    first_frame: int
    acknowledged_s: float
    received_s: float
    shown_s: float


@dataclass(frozen=True, slots=True)
class Take:
    """What the demo recorded."""

    info: source.Opened
    chunks: list[wire.Frames]
    stats: PlayoutStats
    switch: Switch

    def frames(self) -> Frames:
        """All frames `[N, H, W, 3]`."""
        import numpy as np

        pixels = np.frombuffer(b"".join(b"".join(chunk.data) for chunk in self.chunks), np.uint8)
        return pixels.reshape(-1, self.info.height, self.info.width, 3)


def demo(
    address: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Use a running server instead of starting one.")] = None,
    key: console.Key = "",
    out: Annotated[Path, typer.Option(help="Folder for demo.mp4 and demo.png.")] = Path("out"),
) -> None:
    """Stream 12 s of video from a local cluster, change the prompt once, and show where the time went."""

    def main() -> Take:
        out.mkdir(parents=True, exist_ok=True)
        if address is not None:
            return asyncio.run(_shoot(address, key))

        from headrace.cli.serve import running

        note("starting a local cluster")
        with running(port=0, metrics_port=0) as app:
            try:
                return asyncio.run(_shoot(app.address))
            finally:
                note("stopping the cluster")

    take = console.guarded(main, address)
    write(take, out)
    show(take, out)


async def _shoot(address: str, key: str = "") -> Take:
    from headrace.cli.serve import wait_until_serving

    await wait_until_serving(address)
    async with console.connected(address, key) as client:
        note(f"warming up: one second from {address}")
        async for _ in client.stream(FIRST_PROMPT, seconds=1.0, seed=0):
            pass
        note(f"streaming {SECONDS:g} s: {FIRST_PROMPT}")
        return await record(client, SECONDS, time.monotonic)


async def record(client: HeadraceClient, seconds: float, now: Callable[[], float]) -> Take:
    """Stream, and change the prompt once half of the video has arrived.

    Raises:
        Failure: the server did not do what a live session promises.
    """
    from headrace.v1 import video_pb2 as pb

    clock = PlayoutClock(now)
    info: source.Opened | None = None
    chunks: list[wire.Frames] = []
    ack: wire.PromptAck | None = None
    sent_at: float | None = None
    acknowledged_at = 0.0
    switch: Switch | None = None
    async with client.live(FIRST_PROMPT, seconds=seconds, seed=7, replaceable=clock.replaceable) as session:
        async for event in session:
            match event:
                case pb.Started():
                    info = source.opened(event)
                case pb.PromptAck():
                    ack, acknowledged_at = event, now()
                    clock.superseded(event.first_frame)
                    chunks = [chunk for chunk in chunks if chunk.first_frame < event.first_frame]
                    note(f"new prompt in force from frame {event.first_frame}: {event.prompt}")
                case pb.Frames() if info is not None:
                    due = clock.arrived(event.first_frame, event.frame_count, info.fps)
                    chunks.append(event)
                    if ack is not None and sent_at is not None and switch is None and event.first_frame >= ack.first_frame:
                        switch = Switch(event.first_frame, acknowledged_at - sent_at, now() - sent_at, max(due, now()) - sent_at)
                    if sent_at is None and event.first_frame + event.frame_count >= seconds / 2 * info.fps:
                        sent_at = now()
                        await session.set_prompt(SECOND_PROMPT)
                case pb.Ended():
                    source.check_ended(event)
    if info is None or switch is None:
        raise console.Failure("the session ended before the new prompt was in force")
    return Take(info, chunks, clock.stats(), switch)


def write(take: Take, out: Path) -> None:
    """The video as `demo.mp4`, and two frames of each second as `demo.png` with the prompt change framed."""
    from model_core import media

    frames, fps = take.frames(), take.info.fps
    (out / "demo.mp4").write_bytes(media.encode_mp4(media.upscale(frames, _SCALE), fps))
    every = max(1, fps // 2)
    tiles = range(0, len(frames), every)
    changed = next((i for i, n in enumerate(tiles) if n >= take.switch.first_frame), len(tiles) - 1)
    captions = [f"{n / fps:.1f} s" + (" new prompt" if i == changed else "") for i, n in enumerate(tiles)]
    sheet = media.contact_sheet(frames, columns=_SHEET_COLUMNS, every=every, scale=2, captions=captions, marked={changed})
    (out / "demo.png").write_bytes(media.png(sheet))


def show(take: Take, out: Path) -> None:
    """Print what was measured."""
    from rich.console import Console
    from rich.table import Table

    played, switch, fps = take.stats, take.switch, take.info.fps
    print(f"model           {take.info.model}, {take.info.width}x{take.info.height} at {fps} frames a second, seed {take.info.seed}")
    print(f"first frame     {_ms(played.ttff_s or 0.0)} after the request")
    print(f"frames          {played.frames} in {played.wall_s:.2f} s, {played.fps:.1f} a second (real time is {fps})")
    print(f"late frames     {played.late_frames}, longest gap between chunks {_ms(played.max_gap_s)}")
    print(f"prompt switch   at frame {switch.first_frame}: acknowledged after {_ms(switch.acknowledged_s)}, first new frame received after")
    print(f"                {_ms(switch.received_s)} and on screen after {_ms(switch.shown_s)}")
    first = measure.first_frame(played.ttff_s or 0.0, take.chunks[0])
    print(f"first frame is  {', '.join(f'{stage} {_ms(seconds)}' for stage, seconds in first)}")
    table = Table("stage", title="where the milliseconds of each chunk went", title_justify="left")
    for name in ("chunks", "queue p50", "queue max", "service p50", "service max"):
        table.add_column(name, justify="right")
    for row in measure.per_stage(take.chunks):
        times = (row.queue_p50_s, row.queue_max_s, row.service_p50_s, row.service_max_s)
        table.add_row(row.stage, str(row.chunks), *(f"{1000 * seconds:.1f}" for seconds in times))
    Console(width=90).print(table)
    print(f"one chunk plays for {1000 * take.chunks[0].frame_count / fps:.0f} ms")
    print(f"written         {out / 'demo.mp4'}, {out / 'demo.png'}")


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"
