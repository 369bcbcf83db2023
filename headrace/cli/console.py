"""How every command speaks: results on stdout; progress, notes and errors on stderr; one line an error; exit codes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import typer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

DEFAULT_ADDRESS = "127.0.0.1:50051"
EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130

T = TypeVar("T")


class Failure(Exception):
    """Ends the command with one line on stderr."""

    def __init__(self, message: str, exit_code: int = EXIT_FAILED) -> None:
        self.exit_code = exit_code
        super().__init__(message)


def bad_input(field: str, description: str) -> Failure:
    """A refused option or argument: its name, and a sentence with the limit and the value."""
    return Failure(f"{field}: {description}", EXIT_BAD_INPUT)


def note(text: str) -> None:
    """One line on stderr."""
    print(text, file=sys.stderr, flush=True)


def run(main: Callable[[], Coroutine[Any, Any, T]], address: str | None = None) -> T:
    """Run a command's coroutine function to its end; errors and Ctrl-C as in `guarded`."""
    return guarded(lambda: asyncio.run(main()), address)


def guarded(main: Callable[[], T], address: str | None = None) -> T:
    """Run `main`; turn known errors and Ctrl-C into a line and an exit code. `address` is the server it talks to, for messages.

    Raises:
        typer.Exit: it failed or was interrupted.
    """
    try:
        return main()
    except KeyboardInterrupt:
        note("interrupted")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except Exception as error:
        failure = _explain(error, address)
        if failure is None:
            raise
        note(f"error: {' '.join(str(failure).split())}")
        raise typer.Exit(failure.exit_code) from None


def _explain(error: Exception, address: str | None) -> Failure | None:
    """What to tell a person about `error`; None where it is a defect, whose traceback is worth seeing."""
    from headrace.client import BadRequest, Busy, ClientError, Unavailable
    from model_core.errors import HeadraceError, InvalidRequest

    match error:
        case Failure():
            return error
        case BadRequest() | InvalidRequest():
            return Failure(str(error), EXIT_BAD_INPUT)
        case Busy() | Unavailable():
            retry = "" if error.retry_after_s is None else f"; retry after {error.retry_after_s:g} s"
            hint = " (is it running? `headrace serve` starts a server)" if isinstance(error, Unavailable) else ""
            return Failure(f"{address}: {error.code.name}: {error}{retry}{hint}")
        case ClientError():
            return Failure(f"{address}: {error.code.name}: {error}")
        case HeadraceError() | OSError():
            return Failure(str(error))
    return None


class Reporter(Protocol):
    """Shows how far a video is."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
    def waiting(self, position: int) -> None: ...
    def started(self, total_frames: int, fps: int) -> None: ...
    def frames(self, done: int) -> None: ...


def reporter(*, terminal: bool) -> Reporter:
    """A progress bar for a terminal, plain lines otherwise. Both write to stderr."""
    return BarReporter() if terminal else LineReporter(note)


class LineReporter:
    """One line when video starts, and one for each second of it."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._total, self._fps, self._done = 0, 1, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return

    def waiting(self, position: int) -> None:
        self._say(f"waiting, position {position}")

    def started(self, total_frames: int, fps: int) -> None:
        self._total, self._fps = total_frames, fps
        self._say(f"started, {total_frames} frames at {fps} a second")

    def frames(self, done: int) -> None:
        if done // self._fps > self._done // self._fps:
            self._say(f"{done}/{self._total} frames")
        self._done = done


class BarReporter:
    """A rich progress bar."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("frames"), TimeElapsedColumn())
        self._progress: Progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task: TaskID = self._progress.add_task("connecting", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def waiting(self, position: int) -> None:
        self._progress.update(self._task, description=f"waiting, position {position}")

    def started(self, total_frames: int, fps: int) -> None:
        self._progress.update(self._task, description="streaming", total=total_frames)

    def frames(self, done: int) -> None:
        self._progress.update(self._task, completed=done)
