"""How every command speaks: results on stdout; progress, notes and errors on stderr; one line an error; exit codes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Protocol, Self, TypeVar

import typer

if TYPE_CHECKING:
    import grpc
    from rich.progress import Progress, TaskID

    from headrace.client import HeadraceClient

DEFAULT_ADDRESS = "127.0.0.1:50051"
EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130
# Best in the environment: other people of this machine can read the arguments of a process.
Key = Annotated[
    str, typer.Option("--key", envvar="HEADRACE_API_KEY", metavar="KEY", help="API key or token for the server.", show_default=False)
]

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
        if address is not None:
            server_address("--address", address)
        return main()
    except KeyboardInterrupt:
        note("interrupted")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except Exception as error:
        failure = _explain(error, address)
        if failure is None:
            raise
        _say(failure)
        raise typer.Exit(failure.exit_code) from None


def conclude(command: Callable[[], int | None]) -> int:
    """Run a whole command line and return its exit code. What was printed has been written by then, or a line says why it could not be.

    Any known error that a command lets out ends here, so that no command can forget it.
    """
    try:
        code = guarded(command) or 0
    except typer.Exit as ended:
        code = ended.exit_code
    except typer.TyperException as error:
        # One line, as all other errors, in place of the usage text.
        note(f"error: {error.format_message()}")
        code = error.exit_code
    if (broken := _broken_output()) is not None:
        if code == 0:
            _say(broken)
            code = broken.exit_code
        # The interpreter flushes once more as it ends, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _broken_output() -> Failure | None:
    """Why what was printed cannot be written; None where it was."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return Failure("" if isinstance(error, BrokenPipeError) else f"stdout cannot be written: {error.strerror}")
    return None


def _say(failure: Failure) -> None:
    if text := " ".join(str(failure).split()):
        note(f"error: {text}")


def connected(address: str, key: str, tls: grpc.ChannelCredentials | None = None) -> HeadraceClient:
    """A client of the server at `address`, which has been checked. Raises Failure: `key` cannot be sent."""
    from headrace.client import HeadraceClient

    try:
        return HeadraceClient(address, tls, key=key)
    except ValueError as error:
        raise Failure(f"--{error}", EXIT_BAD_INPUT) from None


def in_range(option: str, value: float, low: float, high: float) -> None:
    """Raises Failure where `value` is not from `low` to `high`; not a number is not."""
    if not low <= value <= high:
        raise bad_input(option, f"must be from {low:g} to {high:g}; got {value:g}")


def server_address(option: str, address: str) -> None:
    """Raises Failure where `address` is none."""
    from headrace.target import problem

    if (told := problem(address)) is not None:
        raise bad_input(option, told)


def existing_file(option: str, path: Path) -> Path:
    """Raises Failure where `path` is not a regular file; a device or a pipe may never end."""
    if not path.is_file():
        raise bad_input(option, f"must be a file that exists; got {str(path)!r}")
    return path


def writable_file(option: str, path: Path | None) -> None:
    """Make the folder of `path` before the work begins, so that no result is lost for want of one. None: nothing is to be written.

    Raises:
        Failure: the file cannot be written there.
    """
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        existed = path.exists()
        path.open("ab").close()
        if not existed:
            path.unlink()  # until there is something to write
    except OSError as error:
        raise bad_input(option, f"must be a file that can be written; got {str(path)!r}: {error.strerror}") from None


def _explain(error: Exception, address: str | None) -> Failure | None:
    """What to tell a person about `error`; None where it is a defect, whose traceback is worth seeing."""
    from headrace.client import BadRequest, Busy, ClientError, Refused, Unavailable
    from model_core.errors import HeadraceError, InvalidRequest

    match error:
        case Failure():
            return error
        case BadRequest() | InvalidRequest():
            return Failure(str(error), EXIT_BAD_INPUT)
        case Busy() | Unavailable():
            hint = " (is it running? `headrace serve` starts a server)" if isinstance(error, Unavailable) else ""
            return Failure(f"{address}: {error.code.name}: {error}{hint}")
        case ClientError():
            hint = " (set HEADRACE_API_KEY, or --key)" if isinstance(error, Refused) else ""
            return Failure(f"{address}: {error.code.name}: {error}{hint}")
        case HeadraceError() | OSError():
            # Who read what is printed has left, as `head` does: nobody failed.
            return Failure("" if isinstance(error, BrokenPipeError) else str(error))
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
