"""`headrace replay`: the last seconds of a session again, slowed down."""

from __future__ import annotations

import hashlib
import sys
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import console, secure, source
from headrace.cli.recording import SCALE_HELP, Recording, check_out, default_scale

if TYPE_CHECKING:
    from headrace.client import HeadraceClient

_UNTIL_HELP = "The session's frame that it ends before. [default: the newest that is recorded]"


@secure.with_access
def replay(
    token: Annotated[str, typer.Argument(help="As `headrace live` prints it: Started.resume_token.", show_default=False)],
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="Server to ask; any front door will do.")] = console.DEFAULT_ADDRESS,
    seconds: Annotated[float, typer.Option(help="Of the session's playback.")] = 5.0,
    slow: Annotated[int, typer.Option(min=0, max=64, help="Times slower: 2 or 4.")] = 2,
    until_frame: Annotated[int, typer.Option(min=0, help=_UNTIL_HELP, show_default=False)] = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Record to .mp4, or .npy (raw frames).", show_default=False)] = None,
    scale: Annotated[int | None, typer.Option(help=SCALE_HELP, show_default=False)] = None,
    access: secure.Access = secure.PLAIN,
) -> None:
    """See the last seconds of a session again, slowed down; it may run meanwhile. Prints how many frames came, and their SHA-256."""

    async def main() -> str:
        check_out(out, 0.0, scale)
        async with access.client(address) as client:
            return await _recorded(client)

    async def _recorded(client: HeadraceClient) -> str:
        import numpy as np

        from headrace.v1 import video_pb2 as pb

        digest, frames, info = hashlib.sha256(), 0, None
        async with AsyncExitStack() as stack:
            recording: Recording | None = None
            progress = stack.enter_context(console.reporter(terminal=sys.stderr.isatty()))
            replayed = client.replay(token, seconds=seconds, slow=slow, until_frame=until_frame)
            events = await stack.enter_async_context(aclosing(replayed))
            async for event in events:
                match event:
                    case pb.QueuePosition():
                        progress.waiting(event.position)
                    case pb.Started():
                        info = source.opened(event)
                        progress.started(0, info.fps)
                        if out is not None:
                            chosen = scale or default_scale(info.width, info.height)
                            recording = await stack.enter_async_context(Recording(out, info.fps, chosen))
                    case pb.Frames() if info is not None:
                        data = b"".join(event.data)
                        digest.update(data)
                        frames += event.frame_count
                        progress.frames(frames)
                        if recording is not None:
                            shape = (event.frame_count, info.height, info.width, 3)
                            await recording.write(np.frombuffer(data, np.uint8).reshape(shape))
                    case pb.Ended():
                        source.check_ended(event)
        return f"frames       {frames}\nsha256       {digest.hexdigest()}"

    print(console.run(main, address))
