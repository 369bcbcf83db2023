"""`headrace generate`: one prompt, one video, and what a viewer would have seen of it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import console, restyled, secure, source
from headrace.cli.console import bad_input, note
from headrace.cli.recording import SCALE_HELP, Recording, check_out, default_scale
from headrace.playout import PlayoutClock

if TYPE_CHECKING:
    from headrace.client import HeadraceClient

_SOURCE_HELP = "a video to restyle, as long as it is. `headrace restyle` does it with a server."
_SECONDS_HELP = "Length of the video. [default: 5, or what the model makes if that is less]"


class Mode(StrEnum):
    stream = "stream"
    unary = "unary"


@dataclass(frozen=True, slots=True)
class Summary:
    """What `--json` prints.

    `frames_sha256` covers the RGB frames as the model decoded them; None in unary mode, where only an MP4 comes back.
    """

    model: str
    seed: int
    prompt: str
    mode: str
    width: int
    height: int
    media_fps: int
    frames: int
    fps: float
    ttff_s: float | None
    wall_s: float
    late_frames: int
    max_gap_s: float
    frames_sha256: str | None
    out: str | None


@secure.with_access
def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw.", show_default=False)],
    address: Annotated[str | None, typer.Option(metavar="HOST:PORT", help=f"Server to ask. [default: {console.DEFAULT_ADDRESS}]")] = None,
    local: Annotated[bool, typer.Option("--local", help="Run the pipeline in this process, without a server.")] = False,
    mode: Annotated[Mode, typer.Option(help="stream: frames as they are made. unary: a finished MP4 in one answer.")] = Mode.stream,
    model: Annotated[str | None, typer.Option(help="With --local: a preset, or the folder of a checkpoint.", show_default=False)] = None,
    size: Annotated[str | None, typer.Option(metavar="WIDTHxHEIGHT", help="Of a checkpoint's frames.", show_default=False)] = None,
    frames: Annotated[int, typer.Option(min=0, help="Length of a checkpoint's clip; 0 for its family's.")] = 0,
    seconds: Annotated[float | None, typer.Option(help=_SECONDS_HELP, show_default=False)] = None,
    steps: Annotated[int | None, typer.Option(min=1, max=source.MAX_STEPS, help=source.STEPS_HELP, show_default=False)] = None,
    guidance: Annotated[float | None, typer.Option(help=source.GUIDANCE_HELP, show_default=False)] = None,
    negative_prompt: Annotated[str | None, typer.Option(help=source.NEGATIVE_HELP, show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same frames. Drawn at random when not given.", show_default=False)] = None,
    image: Annotated[Path | None, typer.Option(help=source.IMAGE_HELP, show_default=False)] = None,
    video: Annotated[Path | None, typer.Option(help=source.VIDEO_HELP, show_default=False)] = None,
    source_file: Annotated[Path | None, typer.Option("--source", help=f"With --local: {_SOURCE_HELP}", show_default=False)] = None,
    strength: Annotated[float | None, typer.Option(help=restyled.STRENGTH_HELP, show_default=False)] = None,
    enhance_frames: Annotated[int, typer.Option(help=source.ENHANCE_FRAMES_HELP)] = 1,
    enhance_size: Annotated[int, typer.Option(help=source.ENHANCE_SIZE_HELP)] = 1,
    out: Annotated[Path | None, typer.Option(help="Write .mp4, .gif, or .npy (raw frames).", show_default=False)] = None,
    scale: Annotated[int | None, typer.Option(help=SCALE_HELP, show_default=False)] = None,
    patience: Annotated[float | None, typer.Option(min=0.0, help=source.PATIENCE_HELP, show_default=False)] = None,
    access: secure.Access = secure.PLAIN,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Make one video from PROMPT."""

    async def main() -> Summary:
        source.check_words_and_seed(prompt, negative_prompt, seed)
        wish = source.Wish(
            prompt, seconds, seed, source.read_footage(image, video), steps, guidance, negative_prompt, source_file,
            _strength(source_file, strength, local=local), enhance_frames, enhance_size,
        )  # fmt: skip
        check_out(out, wish.length(source.DEFAULT_SECONDS), scale)
        of = source.read_size(size)
        if not local and (model is not None or size is not None or frames):
            raise bad_input("--model", "needs --local, and so do --size and --frames: a server has its model already")
        if local:
            _check_no_server(address, secured=access.secured)
        if patience is not None and (local or mode is Mode.unary):
            raise bad_input("--patience", f"needs a stream from a server, without --local and --mode unary; got {patience:g}")
        if mode is Mode.unary:
            if local:
                raise bad_input("--mode", "must be stream with --local; got unary, which is a call to a server")
            if out is not None and out.suffix != ".mp4":
                raise bad_input("--out", f"must end in .mp4 with --mode unary, which returns an MP4; got {str(out)!r}")
            if scale is not None:
                raise bad_input("--scale", f"cannot be given with --mode unary, whose MP4 is written as it came; got {scale}")
            return await _unary(access.client(target), wish, out, as_json)
        opening = source.local(model or "", of, frames) if local else source.remote(access.client(target), patience)
        return await _stream(opening, wish, out, scale)

    target = address or console.DEFAULT_ADDRESS
    report = console.run(main, target)
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        _print(report)


def _check_no_server(address: str | None, *, secured: bool) -> None:
    """Raises Failure: an option says how to reach one."""
    if address is not None:
        raise bad_input("--local", f"cannot be given together with --address; got --address {address}")
    if secured:
        raise bad_input("--local", "cannot be given together with --tls, --ca and --cert: there is no server")


def _strength(file: Path | None, strength: float | None, *, local: bool) -> float | None:
    """Of a video that is restyled; None where none is. Raises Failure."""
    if file is None:
        if strength is not None:
            raise bad_input("--strength", f"needs --source; got {strength:g}")
        return None
    if not local:
        raise bad_input("--source", f"needs --local; `headrace restyle` does it with a server; got {str(file)!r}")
    console.existing_file("--source", file)
    return restyled.DEFAULT_STRENGTH if strength is None else strength


async def _stream(
    opening: AbstractAsyncContextManager[source.Source],
    wish: source.Wish,
    out: Path | None,
    scale: int | None,
) -> Summary:
    import hashlib

    import numpy as np

    digest = hashlib.sha256()
    async with AsyncExitStack() as stack:
        origin = await stack.enter_async_context(opening)
        recording: Recording | None = None
        info: source.Opened | None = None
        clock = PlayoutClock(time.monotonic)
        opened = origin.stream(wish)
        events: AsyncGenerator[source.SourceEvent, None] = await stack.enter_async_context(aclosing(opened))
        progress = stack.enter_context(console.reporter(terminal=sys.stderr.isatty()))
        async for event in events:
            match event:
                case source.Waiting():
                    progress.waiting(event.position)
                case source.Opened():
                    info = event
                    progress.started(info.frames, info.fps)
                    if out is not None:
                        recording = await stack.enter_async_context(
                            Recording(out, info.fps, scale or default_scale(info.width, info.height))
                        )
                case source.RawFrames():
                    if info is None:
                        raise console.Failure("the server sent frames before it said what they are")
                    clock.arrived(event.first_frame, event.count, info.fps)
                    digest.update(event.data)
                    progress.frames(clock.stats().frames)
                    if recording is not None:
                        shape = (event.count, info.height, info.width, 3)
                        await recording.write(np.frombuffer(event.data, np.uint8).reshape(shape))
    if info is None:
        raise console.Failure("the stream ended before it began")
    played = clock.stats()
    return Summary(
        model=info.model, seed=info.seed, prompt=wish.prompt, mode=Mode.stream.value,
        width=info.width, height=info.height, media_fps=info.fps,
        frames=played.frames, fps=played.fps, ttff_s=played.ttff_s, wall_s=played.wall_s, late_frames=played.late_frames,
        max_gap_s=played.max_gap_s, frames_sha256=digest.hexdigest(), out=None if out is None else str(out),
    )  # fmt: skip


async def _unary(connected: HeadraceClient, wish: source.Wish, out: Path | None, as_json: bool) -> Summary:
    begun = time.monotonic()
    async with connected as client:
        answer = await client.generate(
            wish.prompt, seconds=await source.wished_seconds(client, wish), seed=wish.seed, steps=wish.steps or 0, guidance=wish.guidance,
            negative_prompt=wish.negative_prompt, image=wish.footage.image, video=wish.footage.video,
            enhance=source.enhance_of(wish),
        )  # fmt: skip
    wall_s = time.monotonic() - begun
    source.check_ended(answer.ended)
    if out is not None:
        await asyncio.to_thread(out.write_bytes, answer.mp4)
    if as_json:
        note("frames_sha256 is null: unary mode returns an MP4, not the frames as the model decoded them; use --mode stream")
    info, frames = source.opened(answer.started), answer.ended.usage.frames_sent
    # All frames arrive with the answer: nothing can be seen before it, and nothing comes late after it.
    return Summary(
        model=info.model, seed=info.seed, prompt=wish.prompt, mode=Mode.unary.value,
        width=info.width, height=info.height, media_fps=info.fps,
        frames=frames, fps=frames / wall_s, ttff_s=wall_s, wall_s=wall_s, late_frames=0,
        max_gap_s=0.0, frames_sha256=None, out=None if out is None else str(out),
    )  # fmt: skip


def _print(report: Summary) -> None:
    ttff = "none" if report.ttff_s is None else f"{report.ttff_s:.3f} s"
    print(f"model        {report.model}, {report.width}x{report.height} at {report.media_fps} frames a second")
    print(f"seed         {report.seed}")
    print(f"first frame  {ttff}")
    print(f"frames       {report.frames} in {report.wall_s:.2f} s, {report.fps:.1f} a second, {report.late_frames} late")
    if report.frames_sha256 is not None:
        print(f"sha256       {report.frames_sha256}")
    print(f"written      {report.out or 'nothing; --out FILE.mp4 keeps the frames'}")
