"""`headrace top`: sessions, slots, frames, first frames, late chunks and stages of a running cluster, live in the terminal."""

from __future__ import annotations

import http.client
import json
import math
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import console

if TYPE_CHECKING:
    from rich.console import RenderableType

    from observability.top import Reading, StageRow, View

DEFAULT_METRICS = "127.0.0.1:9464"
_WITHIN_S = 3.0
_AT_ONCE = 16
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def top(
    metrics: Annotated[str, typer.Option(metavar="HOST:PORT", help="Metrics port of any front door; it knows all replicas.")] = (
        DEFAULT_METRICS
    ),
    every: Annotated[float, typer.Option(help="Seconds between two readings.")] = 2.0,
    window: Annotated[float, typer.Option(help="Seconds that rates, quantiles and late chunks are taken over.")] = 60.0,
    once: Annotated[bool, typer.Option("--once", help="Print one view, of the next `--every` seconds, and end; for scripts.")] = False,
) -> None:
    """Show what a cluster does right now. Ctrl-C ends it."""

    def main() -> None:
        for option, value in (("--every", every), ("--window", window)):
            console.in_range(option, value, 0.1, 3600)
        console.server_address("--metrics", metrics)
        views = watch(metrics, every, window)
        if once:
            from rich.console import Console

            Console().print(picture(metrics, next(views)))
            return
        from rich.live import Live

        with Live(picture(metrics, next(views)), auto_refresh=False, screen=True) as live:
            for view in views:
                live.update(picture(metrics, view), refresh=True)

    console.guarded(main)


def watch(metrics: str, every_s: float, window_s: float) -> Iterator[View]:
    """A view after each `every_s`, over the newest `window_s`, for ever.

    Raises:
        OSError: the front door does not answer.
    """
    from observability.top import view

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        readings = deque([read(metrics, threads)])
        while True:
            time.sleep(every_s)
            readings.append(read(metrics, threads))
            while len(readings) > 2 and readings[-1].at - readings[1].at >= window_s:
                readings.popleft()
            yield view(readings[0], readings[-1])


def read(metrics: str, threads: ThreadPoolExecutor) -> Reading:
    """One reading of every process that the front door at `metrics` knows.

    Raises:
        OSError: it does not answer.
    """
    from observability.exporter import METRICS_PATH, TARGETS_PATH
    from observability.top import reading

    def page(address: str) -> str | None:
        try:
            return _get(f"http://{address}{METRICS_PATH}")
        except OSError:
            return None

    url = f"http://{metrics}{TARGETS_PATH}"
    try:
        known = {address: target["labels"]["process"] for target in json.loads(_get(url)) for address in target["targets"]}
    except (ValueError, LookupError, TypeError):
        raise console.Failure(f"{url} is not a front door's list of replicas; --metrics names a front door's metrics port") from None
    pages = dict(zip(known, threads.map(page, known), strict=True))
    return reading(time.monotonic(), {address: (process, pages[address]) for address, process in known.items()})


def _get(url: str) -> str:
    """The page at `url`. A proxy of the environment is passed by: replicas are asked where they are.

    Raises:
        OSError: nothing answers, or what does is no HTTP server.
    """
    try:
        with _DIRECT.open(url, timeout=_WITHIN_S) as answer:
            text: str = answer.read().decode(errors="replace")
            return text
    except urllib.error.URLError as error:
        raise OSError(f"{url}: {error.reason}") from None
    except http.client.HTTPException as error:
        raise OSError(f"{url}: no HTTP server answers: {error!r}") from None


def picture(metrics: str, view: View) -> RenderableType:
    """The view as tables."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from observability.catalogue import TTFF_OBJECTIVE_S
    from observability.top import busiest

    numbers = Table(box=None, show_header=False, pad_edge=False)
    late = view.late / view.chunks if view.chunks else math.nan
    load, firsts = f"capacity {view.capacity}, brown-out {view.level}", f"{view.first_frames} sessions, objective {TTFF_OBJECTIVE_S:g} s"
    rows = (
        ("sessions", f"{view.live} live, {view.waiting} waiting, {view.degraded} degraded", load),
        ("cache slots", f"{view.slots_used} of {view.slots} used", ""),
        ("frames", f"{view.frames_per_s:.1f} a second", ""),
        ("first frame", f"p50 {_ms(view.ttff_p50_s)}  p99 {_ms(view.ttff_p99_s)}", firsts),
        ("late chunks", f"{view.late} of {view.chunks}", "" if math.isnan(late) else f"{100 * late:.2f} %"),
    )
    for row in rows:
        numbers.add_row(*row)
    stages = Table(box=None, pad_edge=False)
    stages.add_column("stage")
    for name in ("replicas", "busy", "waits p50", "works p50"):
        stages.add_column(name, justify="right")
    first = busiest(view.stages)
    for stage in view.stages:
        stages.add_row(*_stage(stage), style="bold" if stage.deployment == first else "")
    unread = f", {view.unreadable} processes do not answer" if view.unreadable else ""
    return Group(Text(f"headrace at {metrics}, the last {view.span_s:.0f} s{unread}", style="bold"), Text(), numbers, Text(), stages)


def _stage(stage: StageRow) -> tuple[str, ...]:
    busy = "-" if math.isnan(stage.busy) else f"{100 * stage.busy:.0f} %"
    return stage.deployment, str(stage.replicas), busy, _ms(stage.wait_p50_s), _ms(stage.work_p50_s)


def _ms(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{1000 * seconds:.0f} ms" if seconds >= 0.01 else f"{1000 * seconds:.1f} ms"
