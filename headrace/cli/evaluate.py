"""`headrace eval`: how well the default model draws what it is told, against ceilings and gates."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import console
from headrace.cli.console import note

if TYPE_CHECKING:
    from training.evaluate import Evaluator
    from training.scores import Report, Row, Share

MAX_PROMPTS = 4096
MAX_LONG_CHUNKS = 1000
_NAME_WIDTH, _CELL_WIDTH = 28, 20


def evaluate(
    prompts: Annotated[int, typer.Option(help="Prompts to draw; each also gets a prompt switch.")] = 256,
    steps: Annotated[int | None, typer.Option(help="Denoise steps a chunk; the model's own number if not given.")] = None,
    long_chunks: Annotated[int, typer.Option(help="Length of the long roll-out in chunks.")] = 25,
    threads: Annotated[int, typer.Option(help="Torch threads.")] = 2,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the report here.")] = None,
    sheet: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Write a contact sheet here.")] = None,
) -> None:
    """Score the default model on attribute combinations that were held out of training. Exit code 1 if a gate is missed."""

    def main() -> Report:
        for option, file in (("--json", json_file), ("--sheet", sheet)):
            console.writable_file(option, file)
        began = time.perf_counter()
        evaluator = _evaluator(prompts, steps, long_chunks, threads)
        from training.evaluate import evaluate as run

        with _progress(prompts) as tick:
            report = run(evaluator, long_chunks, tick)
        seconds = time.perf_counter() - began
        if json_file is not None:
            json_file.write_text(json.dumps(report.as_json(), indent=1) + "\n")
        if sheet is not None:
            _write_sheet(evaluator, long_chunks, sheet)
        show(report, seconds)
        return report

    if not all(gate.passed for gate in console.guarded(main).gates()):
        raise typer.Exit(console.EXIT_FAILED)


def _evaluator(prompts: int, steps: int | None, long_chunks: int, threads: int) -> Evaluator:
    from model_core.presets import millrace_64

    config = millrace_64()
    from training.evaluate import WINDOW_CHUNKS

    for name, value, low, high in (
        ("--prompts", prompts, 1, MAX_PROMPTS),
        ("--steps", config.num_steps if steps is None else steps, config.min_steps, config.max_steps),
        ("--long-chunks", long_chunks, WINDOW_CHUNKS, MAX_LONG_CHUNKS),
        ("--threads", threads, 1, 256),
    ):
        console.in_range(name, value, low, high)

    import torch

    from model_core.families.millrace.sentence import SentenceEmbedder
    from model_core.weights import load_dit, load_vae
    from training.evaluate import Evaluator

    torch.set_num_threads(threads)
    return Evaluator(config, load_vae(config), load_dit(config), SentenceEmbedder(config.text).embed, prompts, steps)


def _write_sheet(evaluator: Evaluator, long_chunks: int, path: Path) -> None:
    from model_core.media import png
    from training.sheet import contact_sheet, draw_strips

    path.write_bytes(png(contact_sheet(draw_strips(evaluator, long_chunks))))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, else a line now and then; both on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    err = Console(stderr=True)
    if not err.is_terminal:
        yield lambda done: note(f"{done}/{total} prompts")
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("prompts"), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task("evaluating", total=total)
        yield lambda done: progress.update(task, completed=done)


def show(report: Report, seconds: float) -> None:
    """The report as tables: shares in percent with their 95 % intervals, other measures, gates."""
    from training.scores import ALL, ATTRIBUTES, EXTRAS

    print(f"{report.model}: {report.prompts} held-out prompts, {report.steps} steps a chunk, {seconds:.0f} s")
    print("share right in percent (95 % interval)\n")
    _table(report.rows, (*ATTRIBUTES, ALL))
    print("\nalso said by the prompts, without a gate; speed of moving objects only\n")
    _table(report.rows, EXTRAS)
    loss, ratio = report.long_loss, report.area_ratio
    low, high = loss.interval()
    print(f"\nautoencoder             PSNR mean {report.psnr_db[0]:.1f} dB, minimum {report.psnr_db[1]:.1f} dB")
    length = f"over {report.long_frames} frames"
    print(f"{length:<24}loss of all {100 * loss.value:.1f} points ({100 * low:.1f} to {100 * high:.1f})")
    print(f"                        object area last / first: median {ratio.middle:.2f}, 5 % {ratio.low:.2f}, 95 % {ratio.high:.2f}")
    print(f"                        background shift {report.background_shift:.1f} of 255\n")
    for gate in report.gates():
        limits = [f">= {gate.at_least:g}"] * (gate.at_least > -1) + [f"<= {gate.at_most:g}"] * (gate.at_most < 10)
        print(f"{'PASS' if gate.passed else 'FAIL'}  {gate.name:<44}{gate.value:6.3f}  {', '.join(limits)}")


def _table(rows: tuple[Row, ...], columns: tuple[str, ...]) -> None:
    print(" " * _NAME_WIDTH + "".join(f"{name:<{_CELL_WIDTH}}" for name in columns).rstrip())
    for row in rows:
        print(f"{row.name:<{_NAME_WIDTH}}" + "".join(f"{_cell(row.shares[name]):<{_CELL_WIDTH}}" for name in columns).rstrip())


def _cell(share: Share) -> str:
    low, high = share.interval()
    return f"{100 * share.value:.1f} ({100 * low:.1f}-{100 * high:.1f})"
