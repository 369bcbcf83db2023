"""`headrace serve`: a local cluster in the foreground, from start to drain."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import console, source, state
from headrace.cli.console import bad_input, note
from model_core.tasks import cancel_and_wait

if TYPE_CHECKING:
    from deployments.cluster.local import RunningApp

_START_WITHIN_S = 600.0
_READY_WITHIN_S = 120.0
_ASK_EVERY_S = 0.2
_STATE_HELP = "Folder of the database and of the files of jobs, where the configuration names none."


def serve(
    port: Annotated[
        int | None, typer.Option(help="gRPC port; 0 takes a free one. [default: from the configuration]", show_default=False)
    ] = None,
    config: Annotated[Path | None, typer.Option(help="serve.yaml. [default: the one that is shipped]", show_default=False)] = None,
    model: Annotated[str | None, typer.Option(help="A preset, or the folder of a checkpoint.", show_default=False)] = None,
    size: Annotated[str | None, typer.Option(metavar="WIDTHxHEIGHT", help="Of a checkpoint's frames.", show_default=False)] = None,
    frames: Annotated[int, typer.Option(min=0, help="Length of a checkpoint's clip; 0 for its family's.")] = 0,
    fused: Annotated[bool, typer.Option("--fused", help="All three stages in one replica.")] = False,
    metrics_port: Annotated[int | None, typer.Option(help="Port of the Prometheus endpoint; as --port.", show_default=False)] = None,
    http_port: Annotated[int | None, typer.Option(help="Port for HTTP; as --port.", show_default=False)] = None,
    folder: Annotated[Path, typer.Option("--state", metavar="DIR", help=_STATE_HELP)] = state.DEFAULT_STATE,
    no_state: Annotated[bool, typer.Option("--no-state", help="Keep nothing: there are no jobs, keys and usage then.")] = False,
    dashboard: Annotated[bool, typer.Option("--dashboard", help="Start Ray's dashboard too, on this machine's loopback address.")] = False,
    start_within: Annotated[float, typer.Option(help="Seconds that loading and compiling may take until every stage answers.")] = (
        _START_WITHIN_S
    ),
) -> None:
    """Serve in the foreground. Prints READY, the address for gRPC and the URL for HTTP when every stage answers.

    Ctrl-C, SIGTERM or SIGHUP drains; a second signal does not wait for the sessions.
    """

    def main() -> None:
        args = model_args(model, source.read_size(size), frames)
        if args and config is not None:
            raise bad_input("--model", "cannot be given together with --config, which names the model; nor can --size and --frames")
        note("starting a local cluster")
        with running(
            config, port=port, fused=fused, metrics_port=metrics_port, http_port=http_port, dashboard=dashboard,
            start_within_s=start_within, args=args, folder=None if no_state else folder,
        ) as app:  # fmt: skip
            note(f"metrics at http://{app.metrics_address}/metrics")
            asyncio.run(_until_told_to_stop(app))
            _interrupt_on_signals()
            note("draining")

    _interrupt_on_signals()
    console.guarded(main)


def _interrupt_on_signals() -> None:
    """While no loop handles signals, those that stop a service act as Ctrl-C does."""
    for number in _told_to_stop_by():
        signal.signal(number, signal.default_int_handler)


def _told_to_stop_by() -> tuple[signal.Signals, ...]:
    """A closing terminal is one of them, unless `nohup` says otherwise."""
    hang_up = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return (signal.SIGINT, signal.SIGTERM, *hang_up)


def model_args(model: str | None, size: tuple[int, int], frames: int) -> dict[str, Any]:
    """What the options say of the application's `args`; nothing where none is given.

    Raises:
        InvalidRequest, WeightsError: as `model_core.named.model_named`, before anything is started.
    """
    if model is None and size == (0, 0) and not frames:
        return {}

    from model_core.named import model_named
    from model_core.presets import MODELS

    width, height = size
    named = model_named(model or "", height=height, width=width, frames=frames)
    if named.name in MODELS:
        return {"model": named.name}
    folder = str(Path(model or "").expanduser().resolve())
    return {"model": {"folder": folder, "height": height, "width": width, "frames": frames}}


@contextmanager
def running(
    config: Path | None = None,
    *,
    port: int | None = None,
    fused: bool = False,
    metrics_port: int | None = None,
    http_port: int | None = None,
    dashboard: bool = False,
    start_within_s: float = _START_WITHIN_S,
    args: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> Iterator[RunningApp]:
    """A local cluster that serves, for as long as the context lasts.

    Args:
        args: merged over the application's own.
        folder: of the database and of the files of jobs, where the configuration names none; None for neither.

    Raises:
        Failure: an option is out of range.
        HeadraceError, OSError: as `deployments.cluster.local.start_local`.
    """
    for option, value in (("--port", port), ("--metrics-port", metrics_port), ("--http-port", http_port)):
        if value is not None and not 0 <= value <= 65535:
            raise bad_input(option, f"must be from 0 (a free one) to 65535; got {value}")
    if config is not None:
        console.existing_file("--config", config)
    console.in_range("--start-within", start_within_s, 1, 86_400)
    _interrupt_on_signals()  # SIGTERM alone would leave a folder behind

    from deployments.cluster.local import Overrides, start_local

    folder = None if folder is None else state.own(folder)
    overrides = Overrides(
        grpc_port=port, metrics_port=metrics_port, http_port=http_port, fused=fused, dashboard=dashboard, ready_within_s=start_within_s,
        args=args or {}, state_url="" if folder is None else state.file_url(folder),
        artifacts_folder="" if folder is None else str(folder / state.ARTIFACTS),
    )  # fmt: skip
    try:
        app = start_local(config, overrides, note)
    except KeyboardInterrupt:
        # All is gone by now, but Ray may still be starting in a thread, which an orderly end of the interpreter would trip over.
        note("interrupted")
        sys.stdout.flush()
        os._exit(console.EXIT_INTERRUPTED)
    with app:
        yield app


async def _until_told_to_stop(app: RunningApp) -> None:
    """Say READY once the server serves, then wait for a signal to stop.

    Raises:
        Failure: the server does not serve within its time.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _told_to_stop_by():
        loop.add_signal_handler(number, stop.set)
    ready = asyncio.create_task(_wait_until_ready(app))
    told = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((ready, told), return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            await ready
            print(" ".join(filter(None, ("READY", app.address, app.http_url))), flush=True)
            await told
    finally:
        await cancel_and_wait(ready, told)


async def _wait_until_ready(app: RunningApp) -> None:
    """Ask until callers are served, over TLS too. Raises Failure: they are not within their time."""
    try:
        async with asyncio.timeout(_READY_WITHIN_S):
            while not await asyncio.to_thread(app.serving):  # noqa: ASYNC110 - a server in other processes has no event here
                await asyncio.sleep(_ASK_EVERY_S)
    except TimeoutError:
        raise console.Failure(f"{app.address}: not serving within {_READY_WITHIN_S:g} s") from None


async def wait_until_serving(address: str, within_s: float = _READY_WITHIN_S) -> None:
    """Ask for the server's health until it serves.

    Raises:
        Failure: it does not within `within_s`.
    """
    from headrace.cli.status import SERVING
    from headrace.client import ClientError, HeadraceClient

    told = "no answer"
    try:
        async with asyncio.timeout(within_s), HeadraceClient(address) as client:
            while told != SERVING:
                try:
                    told = await client.health(timeout_s=2.0)
                except ClientError as error:
                    told = str(error)
                if told != SERVING:
                    await asyncio.sleep(_ASK_EVERY_S)
    except TimeoutError:
        raise console.Failure(f"{address}: not serving within {within_s:g} s; last: {told}") from None
