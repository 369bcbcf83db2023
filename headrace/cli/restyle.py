"""`headrace restyle`: a video in, at the speed at which it is played, and the same motion out in the words of a prompt."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import console, restyled, secure, source
from headrace.cli.console import bad_input, note
from headrace.cli.recording import SCALE_HELP, Recording, check_out, default_scale

if TYPE_CHECKING:
    from headrace.client import HeadraceClient, LiveEvent, Reconnect
    from headrace.v1 import video_pb2 as wire

_RAW_PIXELS = 256 * 256  # larger frames travel as JPEG
_JPEG_QUALITY = 95
_IN_FLIGHT = 1024  # frames whose moments are remembered


@dataclass(frozen=True, slots=True)
class Summary:
    """What `--json` prints.

    Attributes:
        delay_s, max_delay_s: from a frame's moment in the source until its restyled frame was here: the median, and the longest.
        source_frames, dropped: frames that the server took, and frames that it or this command dropped.
        wall_s: of all of it. `video_s` is how long the video plays.
    """

    model: str
    seed: int
    prompt: str
    strength: float
    frames: int
    source_frames: int
    dropped: int
    delay_s: float
    max_delay_s: float
    video_s: float
    wall_s: float
    frames_sha256: str
    out: str | None


@secure.with_access
def restyle(
    file: Annotated[Path, typer.Argument(help=restyled.SOURCE_HELP, show_default=False)],
    prompt: Annotated[str, typer.Option(help="What to make of it.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write .mp4, .gif, or .npy (raw frames).", show_default=False)] = None,
    strength: Annotated[float, typer.Option(help=restyled.STRENGTH_HELP)] = restyled.DEFAULT_STRENGTH,
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="Server to ask.")] = console.DEFAULT_ADDRESS,
    steps: Annotated[int | None, typer.Option(min=1, max=source.MAX_STEPS, help=source.STEPS_HELP, show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="Drawn at random when not given.", show_default=False)] = None,
    scale: Annotated[int | None, typer.Option(help=SCALE_HELP, show_default=False)] = None,
    patience: Annotated[float | None, typer.Option(min=0.0, help=source.PATIENCE_HELP, show_default=False)] = None,
    access: secure.Access = secure.PLAIN,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Restyle FILE while it plays."""

    async def main() -> Summary:
        source.check_words_and_seed(prompt, None, seed)
        console.existing_file("FILE", file)
        check_out(out, 0.0, scale)
        async with access.client(address) as client:
            played = Played(file, await _model(client))
            return await _restyled(client, played, prompt, strength, steps or 0, seed, out, scale, source.reconnect(patience))

    report = console.run(main, address)
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        _print(report)


async def _model(client: HeadraceClient) -> wire.Model:
    """The server's default model. Raises Failure: it restyles nothing."""
    models = [model for model in await client.list_models() if model.default_model]
    if not models or not models[0].restyles:
        raise bad_input("--address", f"must be of a server whose model restyles videos; got {models[0].name if models else 'no model'}")
    return models[0]


class Played:
    """A file that plays: its frames come when they are due.

    Attributes:
        codec: how they travel.
    """

    def __init__(self, file: Path, model: wire.Model) -> None:
        from headrace.v1 import video_pb2 as pb

        size = model.sizes[0]
        self.fps = model.fps
        self.codec = pb.CODEC_RAW_RGB if size.width * size.height <= _RAW_PIXELS else pb.CODEC_JPEG
        self._frames = restyled.frames("FILE", file, size.width, size.height, model.fps)
        self._moments: deque[float] = deque(maxlen=_IN_FLIGHT)
        self._next = 0

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """Coded. The first one begins the clock."""
        from headrace.v1 import video_pb2 as pb
        from model_core.media import jpeg

        began = time.monotonic()
        async for frame in restyled.one_by_one(self._frames):
            await asyncio.sleep(began + self._next / self.fps - time.monotonic())
            self._moments.append(time.monotonic())
            self._next += 1
            yield frame.tobytes() if self.codec == pb.CODEC_RAW_RGB else jpeg(frame, _JPEG_QUALITY)

    def delay(self, frame: int) -> float | None:
        """Seconds since that frame played; None if that is not remembered."""
        at = frame - (self._next - len(self._moments))
        return time.monotonic() - self._moments[at] if 0 <= at < len(self._moments) else None


async def _restyled(
    client: HeadraceClient,
    played: Played,
    prompt: str,
    strength: float,
    steps: int,
    seed: int | None,
    out: Path | None,
    scale: int | None,
    reconnect: Reconnect,
) -> Summary:
    import hashlib

    from headrace.client import LiveSource
    from headrace.v1 import video_pb2 as pb

    digest, began = hashlib.sha256(), time.monotonic()
    info, usage = pb.Started(), pb.UsageTick()
    frames, delays = 0, list[float]()
    given = LiveSource(played.frames(), strength, played.codec)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(client.live(prompt, steps=steps, seed=seed, reconnect=reconnect, source=given))
        recording: Recording | None = None
        async for event in session:
            match event:
                case pb.Started():
                    info = event
                    note(f"started, at {info.fps} frames a second; a chunk has {info.frames_per_chunk}")
                    if out is not None:
                        recording = Recording(out, info.fps, scale or default_scale(info.width, info.height))
                        await stack.enter_async_context(recording)
                case pb.Frames():
                    frames += event.frame_count
                    delays += [delay for n in range(event.frame_count) if (delay := played.delay(event.first_frame + n)) is not None]
                    digest.update(b"".join(event.data))
                    await _write(recording, event, info)
                case _:
                    usage = _told(event, usage)
    return Summary(
        model=info.model, seed=info.seed, prompt=prompt, strength=strength, frames=frames, source_frames=usage.source_frames,
        dropped=usage.source_dropped + session.source_dropped, delay_s=statistics.median(delays) if delays else 0.0,
        max_delay_s=max(delays, default=0.0), video_s=frames / max(1, info.fps), wall_s=time.monotonic() - began,
        frames_sha256=digest.hexdigest(), out=None if out is None else str(out),
    )  # fmt: skip


async def _write(recording: Recording | None, event: wire.Frames, info: wire.Started) -> None:
    import numpy as np

    if recording is not None:
        await recording.write(np.frombuffer(b"".join(event.data), np.uint8).reshape(event.frame_count, info.height, info.width, 3))


def _told(event: LiveEvent, usage: wire.UsageTick) -> wire.UsageTick:
    """Say what a person wants to know of `event`. Returns the newest usage."""
    from headrace.v1 import video_pb2 as pb

    match event:
        case pb.QueuePosition():
            note(f"waiting, position {event.position}")
        case pb.SourceDropped():
            reason = pb.SourceDropReason.Name(event.reason).removeprefix("SOURCE_DROP_REASON_").lower()
            note(f"dropped {event.frames} frames from frame {event.first_frame} on: {reason}")
        case pb.UsageTick():
            return event
        case pb.Ended():
            source.check_ended(event)
            return event.usage
    return usage


def _print(report: Summary) -> None:
    print(f"model        {report.model}, seed {report.seed}, strength {report.strength:g}")
    print(f"frames       {report.frames}, {report.video_s:.2f} s of video in {report.wall_s:.2f} s")
    print(f"source       {report.source_frames} frames taken, {report.dropped} dropped")
    print(f"delay        {report.delay_s:.3f} s, {report.max_delay_s:.3f} s at most")
    print(f"sha256       {report.frames_sha256}")
    print(f"written      {report.out or 'nothing; -o FILE.mp4 keeps the frames'}")
