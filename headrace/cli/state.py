"""Where commands find the database of a server."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import console

if TYPE_CHECKING:
    from service.database.engine import Database

DEFAULT_STATE = Path("~/.local/state/headrace")
DATABASE_FILE = "headrace.db"
ARTIFACTS = "artifacts"
PASSWORD_VARIABLE = "HEADRACE_DATABASE_PASSWORD"  # noqa: S105 - a variable's name

State = Annotated[Path, typer.Option("--state", metavar="DIR", help="The server's folder, as given to `headrace serve`.")]
DatabaseUrl = Annotated[
    str,
    typer.Option(
        "--database",
        metavar="URL",
        help=f"The server's database, where it is not in that folder: postgresql://USER@HOST/NAME. Its password is in {PASSWORD_VARIABLE}.",
    ),
]

_UNITS_S = {"m": 60, "h": 3600, "d": 86_400}
_AGO = re.compile(r"(\d{1,6})([mhd])")


@asynccontextmanager
async def database(state: Path, url: str, *, make: bool = False) -> AsyncGenerator[Database, None]:
    """The database of the server that keeps its state there.

    Args:
        make: make it where there is none, for a server that is yet to be started.

    Raises:
        Failure: there is none.
        DatabaseUnusable: it cannot be used.
    """
    from service.database.engine import Database

    opened = await Database.open(url or _file_url(state, make=make), os.environ.get(PASSWORD_VARIABLE))
    try:
        yield opened
    finally:
        await opened.close()


def own(state: Path) -> Path:
    """The folder of a server, which is made where there is none, and which only its owner can read.

    Raises:
        Failure: it cannot be made, or there is no home that it would be in.
    """
    try:
        folder = state.expanduser().resolve()
        for each in (folder, folder / ARTIFACTS):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        raise console.bad_input("--state", f"must be a folder that can be made and written to; got {str(state)!r}: {error}") from None
    return folder


def file_url(folder: Path) -> str:
    """Of the database in the folder of a server."""
    return f"sqlite:///{folder / DATABASE_FILE}"


def _file_url(state: Path, *, make: bool) -> str:
    folder = state.expanduser().resolve()
    if not make and not (folder / DATABASE_FILE).is_file():
        raise console.bad_input("--state", f"must be the folder of a server that has a database; there is none in {str(folder)!r}")
    return file_url(folder)


def moment(option: str, told: str, now: float) -> float | None:
    """Unix time out of a date, a time of ISO 8601 (UTC, where it does not say), or a span before `now` such as 90m, 24h or 7d. Empty: None.

    Raises:
        Failure: it is none of these.
    """
    if not told:
        return None
    if (ago := _AGO.fullmatch(told)) is not None:
        return now - int(ago[1]) * _UNITS_S[ago[2]]
    try:
        at = datetime.fromisoformat(told)
    except ValueError:
        raise console.bad_input(option, f"must be a date, a time, or a span such as 24h or 7d; got {told[:32]!r}") from None
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
