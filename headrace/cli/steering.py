"""Typed lines as controls of a session. `headrace live` and `headrace broadcast` read the same ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.client import LiveSession

HELP = "Type a new prompt and press Enter. /pause, /resume, /stop. In a world, /keys up left holds keys, and /keys lets them go."


async def steer(session: LiveSession, typed: AsyncIterator[str], say: Callable[[str], None], *, stops: bool) -> None:
    """Turn lines into controls until there are no more, or the session is over.

    Args:
        say: is told of a line that begins with a slash and is no command. It is not taken for a prompt.
        stops: the end of the lines stops the session.
    """
    from headrace.client import ClientError

    try:
        async for text in typed:
            match text.strip():
                case "":
                    continue
                case "/pause":
                    await session.pause()
                case "/resume":
                    await session.resume()
                case "/stop":
                    await session.stop()
                case keys if keys.split()[0] == "/keys":
                    await session.act(keys.split()[1:])
                case unknown if unknown.startswith("/"):
                    say(f"unknown command {unknown!r}. {HELP}")
                case new_prompt:
                    await session.set_prompt(new_prompt)
    except ClientError:
        return  # whoever reads the session's events knows why
    if stops:
        await session.stop()
