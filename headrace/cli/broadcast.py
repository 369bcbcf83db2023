"""`headrace broadcast`: a session goes out to receivers of RTMP, MPEG-TS and SRT, and into a folder of HLS."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import console, secure, source
from headrace.cli.fragments import Fragments
from headrace.cli.keyboard import lines
from headrace.cli.steering import steer
from model_core.tasks import cancel_and_wait

if TYPE_CHECKING:
    from headrace.client import HeadraceClient, LiveEvent, LiveSession, WatchEvent
    from headrace.v1 import video_pb2 as wire
    from model_core.access_units import Header
    from service.broadcast.destination import Destination
    from service.broadcast.output import Output, Sink
    from service.broadcast.program import Program

_STDIN = 0
# A new prompt's first chunk takes so long at least; what goes out sooner stays as it is.
_GUARD_S = 0.25
_MOST_HOLD_S = 30.0


@secure.with_access
def broadcast(
    prompt: Annotated[str | None, typer.Argument(help="What to draw first, in a session of its own.", show_default=False)] = None,
    watch: Annotated[
        str | None, typer.Option(metavar="TOKEN", help="The session that has this watch token, in place of a new one.", show_default=False)
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="rtmp://, rtmps://, udp:// or srt://; may be given up to 8 times.", show_default=False),
    ] = None,
    hls: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write playlists and segments there.", show_default=False)] = None,
    silent_audio: Annotated[bool, typer.Option("--silent-audio", help="Add a track of silence, which some receivers want.")] = False,
    hold: Annotated[float, typer.Option(help="Seconds that everything waits, so that what is late is not noticed.")] = 1.0,
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="Server to ask.")] = console.DEFAULT_ADDRESS,
    seconds: Annotated[float, typer.Option(help="Length of a new session; 0 plays until /stop.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Drawn at random when not given.", show_default=False)] = None,
    patience: Annotated[float | None, typer.Option(min=0.0, help=source.PATIENCE_HELP, show_default=False)] = None,
    access: secure.Access = secure.PLAIN,
) -> None:
    """Send a session out: to RTMP, MPEG-TS over UDP, SRT, and into a folder of HLS. A typed line is a new prompt of a new session."""

    async def main() -> None:
        from service.broadcast.program import Program
        from service.clock import MonotonicClock

        if (prompt is None) == (watch is None):
            raise console.bad_input("PROMPT", "must be given, or --watch; and not both")
        source.check_words_and_seed(prompt or "", None, seed)
        console.in_range("--hold", hold, 0.0, _MOST_HOLD_S)
        outputs = _outputs(to or [], hls, silent_audio=silent_audio)
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(access.client(address))
            program = Program(MonotonicClock(), hold)
            if watch is not None:
                events = await stack.enter_async_context(aclosing(client.watch(watch, reconnect=source.reconnect(patience))))
                await _play(program, outputs, events)
            else:
                session = await stack.enter_async_context(_session(client, program, prompt or "", seconds, seed, hold, patience))
                # Who broadcasts from a script stops the command: there, the end of the input ends nothing.
                stops = seconds == 0 and sys.stdin.isatty()
                steering = asyncio.create_task(steer(session, lines(_STDIN, None), console.note, stops=stops))
                stack.push_async_callback(cancel_and_wait, steering)
                await _play(program, outputs, aiter(session))

    console.run(main, address)


def _session(
    client: HeadraceClient, program: Program, prompt: str, seconds: float, seed: int | None, hold_s: float, patience: float | None
) -> LiveSession:
    from headrace.v1 import video_pb2 as pb

    return client.live(
        prompt, seconds=seconds, seed=seed, codec=pb.CODEC_FMP4_H264, max_lead_s=max(1.0, hold_s), reconnect=source.reconnect(patience),
        replaceable=lambda: program.replaceable(_GUARD_S),
    )  # fmt: skip


def _outputs(urls: list[str], hls: Path | None, *, silent_audio: bool) -> list[Output]:
    """Raises Failure: an URL is none, or a program is missing."""
    from doors.push.process import NoFfmpeg, ProcessSink, srt_program
    from service.broadcast.destination import destinations
    from service.broadcast.output import Output
    from service.clock import MonotonicClock

    if not urls and hls is None:
        raise console.bad_input("--to", "must be given, or --hls")
    try:
        found = destinations("--to", urls)
        program = srt_program() if any(each.scheme == "srt" for each in found) else ""
    except ValueError as error:
        raise console.Failure(str(error), console.EXIT_BAD_INPUT) from None
    except NoFfmpeg as error:
        raise console.Failure(f"--to: {error}") from None
    clock = MonotonicClock()

    async def opened(destination: Destination, header: Header) -> Sink:
        piped = program if destination.scheme == "srt" else ""
        return await ProcessSink.open(destination, header, silent_audio=silent_audio, program=piped)

    made = [Output(each.name, partial(opened, each), clock, random.random, console.note) for each in found]
    if hls is not None:
        made.append(Output(str(hls), partial(_folder, hls), clock, random.random, console.note, wants_all=True))
    return made


async def _folder(folder: Path, header: Header) -> Sink:
    from doors.push.folder import FolderSink

    return FolderSink(folder, header, time.time)


async def _play(program: Program, outputs: list[Output], events: AsyncIterator[LiveEvent | WatchEvent]) -> None:
    """Until the session has ended, and everything of it is out. Raises what `events` raise, then at once."""
    from service.broadcast.output import run_outputs

    sending = asyncio.create_task(run_outputs(program, outputs))  # before anything goes out
    releasing = asyncio.create_task(program.run())
    fragments = Fragments()
    try:
        async for event in events:
            _see(program, fragments, event)
        program.end()
        await sending
    finally:
        await cancel_and_wait(releasing, sending)
        for output in outputs:
            told = output.counts
            lost = f"connected {told.connections} times, lost {told.failures} times"
            console.note(f"{output.name}: {told.frames} frames, {told.dropped} dropped, {lost}")


def _see(program: Program, fragments: Fragments, event: LiveEvent | WatchEvent) -> None:
    """Raises Failure: it cannot go out."""
    from headrace.v1 import video_pb2 as pb
    from model_core.access_units import NotOurs, group_of

    try:
        match event:
            case pb.Started():
                _begin(program, event)
            case pb.Frames():
                if (fragment := fragments.whole(event)) is not None:
                    program.arrived(group_of(fragment, event.first_frame, event.frame_count))
            case pb.PromptAck():
                program.superseded(event.first_frame)
                console.note(f"frame {event.first_frame}: {event.prompt}")
            case pb.Paused():
                program.paused()
            case pb.PromptRefused():
                console.note(f"refused: {event.message}")
            case pb.Ended():
                source.check_ended(event)
    except NotOurs as error:
        raise console.Failure(f"the server sent a fragment that cannot go out: {error}") from None


def _begin(program: Program, started: wire.Started) -> None:
    from headrace.v1 import video_pb2 as pb
    from model_core.access_units import Header

    if started.codec != pb.CODEC_FMP4_H264:
        got = pb.Codec.Name(started.codec)
        raise console.Failure(f"the session's frames must be CODEC_FMP4_H264 to go out; got {got}", console.EXIT_BAD_INPUT)
    if program.header is None:
        size = f"{started.width}x{started.height} at {started.fps} frames a second"
        console.note(f"{started.model}, seed {started.seed}, {size}")
        if started.watch_token:
            print(started.watch_token, flush=True)
    program.begin(Header.of(started.codec_header, started.width, started.height, started.fps, started.frames_per_chunk))
