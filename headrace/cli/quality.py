"""`headrace quality`: numbers of a video, and of how far it is from another one."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import console
from headrace.cli.jobs import DEFAULT_URL, KEY_VARIABLE, Url

if TYPE_CHECKING:
    from model_core.quality.reference import Likeness
    from model_core.quality.values import Quality

_JOB = re.compile(r"job_[a-z0-9]+")
_NAME_WIDTH = 20


@dataclass(frozen=True, slots=True)
class _Source:
    """A video on this machine. `prompt` is what a job's video was to show, where a detector can tell."""

    path: Path
    name: str
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class _Found:
    """All that was measured, and what could not be. `vmaf` is None where it was not."""

    name: str
    fps: float
    quality: Quality
    likeness: Likeness | None
    vmaf: float | None
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        reference = None if self.likeness is None else {**self.likeness.as_json(), "vmaf": self.vmaf}
        return {"file": self.name, "fps": round(self.fps, 3), **self.quality.as_json(), "reference": reference, "notes": list(self.notes)}


def quality(
    video: Annotated[str, typer.Argument(metavar="FILE|JOB", help="A video, or the id of a completed job.", show_default=False)],
    reference: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A video that it should be like: of the same size and length.", show_default=False)
    ] = None,
    prompt: Annotated[
        str, typer.Option(metavar="TEXT", help="What it should show; a detector knows the world of millrace-64.", show_default=False)
    ] = "",
    url: Url = DEFAULT_URL,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a video: flicker, smoothness, frozen and black frames, and how far it is from a reference."""

    def main() -> None:
        if reference is not None:
            console.existing_file("--reference", reference)
        with _source(video, url) as source:
            found = _measured(source, reference, prompt)
        print(json.dumps(found.as_json()) if as_json else "\n".join(_lines(found, reference)))
        if not as_json:
            for each in found.notes:
                console.note(each)

    console.guarded(main)


@contextmanager
def _source(video: str, url: str) -> Iterator[_Source]:
    path = Path(video)
    if path.is_file():
        yield _Source(path, video)
        return
    if not _JOB.fullmatch(video):
        raise console.bad_input("FILE", f"must be a file that exists, or the id of a job; got {video[:256]!r}")
    with tempfile.TemporaryDirectory(prefix="headrace-quality-") as folder:
        fetched = Path(folder) / "video.mp4"
        yield _Source(fetched, video, _fetch(video, url, fetched))


def _fetch(job_id: str, url: str, out: Path) -> str:
    """The video of a job to `out`. Returns its prompt, or nothing where no detector knows what its model draws."""
    from headrace.jobs import JobsClient, JobsError
    from model_core.quality.words import DETECTOR

    try:
        client = JobsClient(url, os.environ.get(KEY_VARIABLE, ""))
    except ValueError as error:
        raise console.bad_input("--url", str(error)) from None
    try:
        told = client.get(job_id).told
        client.fetch(job_id, out)
    except JobsError as error:
        hint = "" if error.status else " (is it running? `headrace serve` starts a server)"
        raise console.Failure(f"{url}: {error}{hint}") from None
    return str(told.get("prompt", "")) if told.get("model") == DETECTOR else ""


def _measured(source: _Source, reference: Path | None, prompt: str) -> _Found:
    from model_core.quality.look import look
    from model_core.quality.reference import likeness
    from model_core.quality.video import opened
    from model_core.quality.vmaf import NoVmaf, vmaf
    from model_core.quality.wish import Wish

    with opened(source.path, "FILE") as video:
        fps = video.fps
    # What is quick to refuse comes first.
    like = None if reference is None else likeness(source.path, "FILE", reference, "--reference")
    wanted = prompt or source.prompt
    seen = look(source.path, "FILE", Wish(prompt=wanted))
    notes, score = [], None
    if wanted and seen.adherence is None:
        notes.append("adherence: not measured: the prompt names nothing that a detector knows, or the video has fewer than 8 frames")
    if reference is not None:
        try:
            score = vmaf(source.path, "FILE", reference, "--reference")
        except NoVmaf as error:
            notes.append(f"vmaf: not measured: {error}")
    return _Found(source.name, fps, seen, like, score, tuple(notes))


def _lines(found: _Found, reference: Path | None) -> Iterator[str]:
    seen, adherence = found.quality.measures, found.quality.adherence
    yield f"{found.name}: {seen.frames} frames of {seen.width}x{seen.height}, {found.fps:g} a second"
    yield _line(
        "flicker", f"{_number(seen.flicker)}, worst step {_number(seen.worst_flicker)}", "proxy: change between frames; motion counts"
    )
    yield _line("brightness flicker", _number(seen.brightness_flicker), "proxy: of whole frames")
    yield _line("smoothness", _number(seen.smoothness), "proxy: 1 is best")
    yield _line("frozen frames", f"{_percent(seen.frozen_share)}, at most {seen.longest_frozen_frames} in a row", "")
    yield _line("black frames", _percent(seen.black_share), "")
    if adherence is not None:
        shares = ", ".join(f"{name} {_percent(share)}" for name, share in adherence.shares.items())
        yield _line(
            "adherence", f"{_percent(adherence.score)} of {adherence.windows} windows: {shares}", f"by {adherence.detector}'s detector"
        )
    if found.likeness is not None:
        yield f"against {reference}"
        yield from _against(found.likeness.as_json(), found.vmaf)


def _against(told: Mapping[str, Any], vmaf: float | None) -> Iterator[str]:
    yield _line("psnr", f"{_decibels(told['psnr_db'])}, worst frame {_decibels(told['worst_psnr_db'])}", "")
    yield _line("ssim", f"{told['ssim']:.4f}, worst frame {told['worst_ssim']:.4f}", "")
    yield _line("xpsnr", _decibels(told["xpsnr_db"]), "of brightness")
    if vmaf is not None:
        yield _line("vmaf", f"{vmaf:.2f}", "of 100, model vmaf_v0.6.1")


def _line(name: str, value: str, means: str) -> str:
    return f"{name:<{_NAME_WIDTH}}{value}{f'  ({means})' if means else ''}"


def _number(value: float | None) -> str:
    return "too few frames" if value is None else f"{value:.4f}"


def _percent(share: float | None) -> str:
    return "too few frames" if share is None else f"{100 * share:.1f} %"


def _decibels(value: float | None) -> str:
    return "identical" if value is None else f"{value:.2f} dB"
