"""`headrace watch`: see a session that somebody else steers."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli import console, secure, source
from headrace.cli.live import Player, write
from headrace.cli.recording import SCALE_HELP, check_out
from headrace.cli.screen import screen
from model_core.tasks import cancel_and_wait


@secure.with_access
def watch(
    token: Annotated[str, typer.Argument(help="As `headrace live` prints it: Started.watch_token.", show_default=False)],
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="Server to ask; any front door will do.")] = console.DEFAULT_ADDRESS,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Record to .mp4, or .npy (raw frames).", show_default=False)] = None,
    scale: Annotated[int | None, typer.Option(help=SCALE_HELP, show_default=False)] = None,
    patience: Annotated[float | None, typer.Option(min=0.0, help=source.PATIENCE_HELP, show_default=False)] = None,
    access: secure.Access = secure.PLAIN,
) -> None:
    """See a session that somebody else steers, from its newest chunk on."""

    async def main() -> None:
        check_out(out, 0.0, scale)
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(access.client(address))
            view = stack.enter_context(screen(write, terminal=sys.stdout.isatty()))
            player = Player(view, out, scale, stack)
            events = await stack.enter_async_context(aclosing(client.watch(token, reconnect=source.reconnect(patience))))
            drawing = asyncio.create_task(player.draw())
            stack.push_async_callback(cancel_and_wait, drawing)
            async for event in events:
                await player.show(event)

    console.run(main, address)
