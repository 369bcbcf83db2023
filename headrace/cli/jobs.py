"""`headrace jobs`: videos that are made without anybody watching."""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from headrace.cli import console, source
from headrace.cli.console import bad_input, note

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.jobs import JobsClient, RemoteJob

DEFAULT_URL = "http://127.0.0.1:8080"
KEY_VARIABLE = "HEADRACE_API_KEY"
_LOOK_EVERY_S = 1.0
_MOST_LINES_BYTES = 32 * 1024 * 1024

app = typer.Typer(help="Videos that are made without anybody watching: put them into a queue, and fetch them later.", rich_markup_mode=None)

Url = Annotated[str, typer.Option("--url", metavar="URL", help=f"Server, by its HTTP address. The key is in {KEY_VARIABLE}.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, an object a line.")]


class Status(StrEnum):
    queued = "queued"
    running = "running"
    completed = "completed"
    failed = "failed"
    cancelled = "cancelled"
    expired = "expired"


@app.command()
def submit(
    prompt: Annotated[str, typer.Argument(help="What to draw.", show_default=False)] = "",
    file: Annotated[
        Path | None, typer.Option("--file", help="Lines of JSON, a job each, instead of a prompt: all of them or none.", show_default=False)
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Length of the video. [default: 4]", show_default=False)] = None,
    model: Annotated[str, typer.Option(help="[default: the server's]", show_default=False)] = "",
    seed: Annotated[int | None, typer.Option(help="The same seed and request make the same video.", show_default=False)] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WIDTHxHEIGHT", help="Of the file; pictures are scaled to it.", show_default=False)
    ] = None,
    steps: Annotated[int | None, typer.Option(help=source.STEPS_HELP, show_default=False)] = None,
    guidance: Annotated[float | None, typer.Option(help=source.GUIDANCE_HELP, show_default=False)] = None,
    negative_prompt: Annotated[str | None, typer.Option(help=source.NEGATIVE_HELP, show_default=False)] = None,
    image: Annotated[Path | None, typer.Option(help=source.IMAGE_HELP, show_default=False)] = None,
    video: Annotated[Path | None, typer.Option(help=source.VIDEO_HELP, show_default=False)] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Kept with the job.", show_default=False)] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Wait for the end, with a progress bar.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Put a job into the queue, or a job for each line of a file. Prints its id."""

    def main() -> None:
        if (file is None) == (not prompt):
            raise bad_input("PROMPT", "must be given, or --file in its place")
        client = _client(url)
        if file is not None:
            lines = console.existing_file("--file", file).read_bytes()
            if len(lines) > _MOST_LINES_BYTES:
                raise bad_input("--file", f"must be at most {_MOST_LINES_BYTES} bytes; got {len(lines)}")
            batch = client.submit_batch(lines)
            print(json.dumps(batch) if as_json else batch.get("id"))
            if watch:
                _watch_batch(client, str(batch.get("id")))
            return
        width, height = source.read_size(size)
        wish = {
            "prompt": prompt, "model": model or None, "seconds": 4.0 if seconds is None else seconds, "seed": seed, "width": width or None,
            "height": height or None, "steps": steps, "guidance": guidance, "negative_prompt": negative_prompt,
            "image": _encoded("--image", image), "video": _encoded("--video", video), "labels": _labels(label or []) or None,
        }  # fmt: skip
        job = client.submit({name: value for name, value in wish.items() if value is not None})
        _print(job, as_json=as_json)
        if watch:
            _conclude(_watch(client, [job.id]))

    _run(main, url)


@app.command("list")
def list_(
    status: Annotated[Status | None, typer.Option(help="Only those.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest so many.")] = 20,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first."""

    def main() -> None:
        client, left, after = _client(url), limit, ""
        while left:
            jobs, more = client.list(status=status or "", after=after, limit=min(left, 1000))
            for job in jobs:
                print(json.dumps(job.told) if as_json else _line(job))
            if not more or not jobs:
                return
            left, after = left - len(jobs), jobs[-1].id

    _run(main, url)


@app.command()
def watch(
    job: Annotated[list[str], typer.Argument(metavar="ID...", help="Of jobs, or of one batch with --batch.", show_default=False)],
    batch: Annotated[bool, typer.Option("--batch", help="ID is a batch's.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Wait until jobs are over, with a progress bar. Exit code 1 if any of them was not completed."""

    def main() -> None:
        client = _client(url)
        if batch:
            if len(job) != 1:
                raise bad_input("ID", f"must be one batch; got {len(job)}")
            _watch_batch(client, job[0])
        else:
            _conclude(_watch(client, job))

    _run(main, url)


@app.command()
def cancel(
    job: Annotated[list[str], typer.Argument(metavar="ID...", show_default=False)],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Ask for the end of jobs. Those that are over stay as they are."""

    def main() -> None:
        client = _client(url)
        for each in job:
            _print(client.cancel(each), as_json=as_json)

    _run(main, url)


@app.command()
def fetch(
    job: Annotated[str, typer.Argument(metavar="ID", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="MP4 to write; with --batch a folder, that also gets a manifest.", show_default=False)],
    batch: Annotated[bool, typer.Option("--batch", help="ID is a batch's: all its videos.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Write the video of a completed job to a file."""

    def main() -> None:
        client = _client(url)
        if not batch:
            console.writable_file("--out", out)
            size = client.fetch(job, out)
            note(f"{out}: {size} bytes")
            return
        rows = client.manifest(job)
        out.mkdir(parents=True, exist_ok=True)
        (out / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        for row in rows:
            if row["status"] == Status.completed:
                target = out / f"{int(row['row']):05d}-{row['id']}.mp4"
                client.fetch(str(row["id"]), target)
        done = sum(row["status"] == Status.completed for row in rows)
        note(f"{out}: {done} of {len(rows)} videos")

    _run(main, url)


def _client(url: str) -> JobsClient:
    from headrace.jobs import JobsClient

    try:
        return JobsClient(url, os.environ.get(KEY_VARIABLE, ""))
    except ValueError as error:
        raise bad_input("--url", str(error)) from None


def _run(main: Callable[[], None], url: str) -> None:
    """Run a command; what a server refuses is one line."""
    from headrace.jobs import JobsError

    def told() -> None:
        try:
            main()
        except JobsError as error:
            hint = "" if error.status else " (is it running? `headrace serve` starts a server)"
            code = console.EXIT_BAD_INPUT if error.status in (400, 422) else console.EXIT_FAILED
            raise console.Failure(f"{url}: {error}{hint}", code) from None

    console.guarded(told)


def _encoded(option: str, path: Path | None) -> str | None:
    return None if path is None else base64.b64encode(console.existing_file(option, path).read_bytes()).decode()


def _labels(given: list[str]) -> dict[str, str]:
    pairs = [each.partition("=") for each in given]
    for name, sign, _ in pairs:
        if not name or not sign:
            raise bad_input("--label", f"must be NAME=VALUE; got {(name + sign)[:64]!r}")
    return {name: value for name, _, value in pairs}


def _print(job: RemoteJob, *, as_json: bool) -> None:
    print(json.dumps(job.told) if as_json else job.id, flush=True)


def _line(job: RemoteJob) -> str:
    made = f"{job.frames_done}/{job.frames_total}"
    return f"{job.id:<16}{job.status:<11}{made:>12}  {str(job.told.get('prompt', ''))[:60]}"


def _conclude(jobs: list[RemoteJob]) -> None:
    for job in jobs:
        if job.status != Status.completed:
            note(f"{job.id}: {job.status}{': ' + job.error if job.error else ''}")
    if any(job.status != Status.completed for job in jobs):
        raise typer.Exit(console.EXIT_FAILED)


def _watch(client: JobsClient, ids: list[str]) -> list[RemoteJob]:
    """The jobs, once all of them are over."""
    with _Bars(terminal=sys.stderr.isatty()) as bars:
        over: dict[str, RemoteJob] = {}
        while True:
            for each in ids:
                if each not in over:
                    job = client.get(each)
                    bars.show(job.id, job.status, job.frames_done, job.frames_total)
                    if job.over:
                        over[each] = job
            if len(over) == len(set(ids)):
                return [over[each] for each in ids]
            time.sleep(_LOOK_EVERY_S)


def _watch_batch(client: JobsClient, batch_id: str) -> None:
    with _Bars(terminal=sys.stderr.isatty()) as bars:
        while True:
            batch = client.batch(batch_id)
            counts: Mapping[str, Any] = batch.get("counts") or {}
            total, waiting = sum(counts.values()), sum(counts.get(name, 0) for name in (Status.queued, Status.running))
            bars.show(batch_id, "running" if waiting else "over", total - waiting, total)
            if not waiting:
                break
            time.sleep(_LOOK_EVERY_S)
    note(", ".join(f"{number} {name}" for name, number in counts.items()))
    if counts.get(Status.completed, 0) != total:
        raise typer.Exit(console.EXIT_FAILED)


class _Bars:
    """A bar a job on a terminal; otherwise a line whenever a status changes."""

    def __init__(self, *, terminal: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), disable=not terminal)
        self._tasks: dict[str, Any] = {}
        self._said: dict[str, str] = {}
        self._terminal = terminal

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, name: str, status: str, done: int, total: int) -> None:
        if not self._terminal:
            if self._said.get(name) != status:
                self._said[name] = status
                note(f"{name}: {status}, {done} of {total}")
            return
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total or None)
        self._progress.update(self._tasks[name], completed=done, total=total or None, description=f"{name} {status}")
